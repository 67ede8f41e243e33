/**
 * The private folder of a running machine: sockets, tables, memory disks, and who serves it.
 *
 * One process at a time has it, by a lock that ends with the process. What that one makes is listed
 * in a file of the folder before it is made, so that it, or the next one after a crash, removes
 * just that: a folder that was there before stays, with whatever else lies in it.
 */
import {
  closeSync,
  ftruncateSync,
  lstatSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { basename, join } from "node:path";
import { assert, type StackError } from "../../errors.ts";
import { type FolderLock, lockFolder } from "../system/folder-lock.ts";
import { SOCKET_PATH_BYTES_MAX } from "../system/system.ts";
import { makePrivate, refused, removeFolders } from "./private-folder.ts";

/** The longest name in the folder: `.sock` and 31 letters of a device. */
const NAME_MAX = 36;
const LIST = "served.json";
const LIST_BYTES_MAX = 65_536;
/** How often the folder is looked for again that its holder before has just removed. */
const ATTEMPTS = 3;

/** What stands in the list. */
interface Served {
  readonly machine: string;
  readonly process: number;
  /** Whether the folder itself is to be removed, too. */
  readonly isMade: boolean;
  readonly files: readonly string[];
}

interface Claim {
  readonly lock: FolderLock;
  readonly machine: string;
  readonly madeFolders: readonly string[];
  readonly files: Set<string>;
}

/** Where things lie in a runtime folder; {@link RuntimeFolder.claim} it before making some. */
export class RuntimeFolder {
  readonly path: string;
  #claim: Claim | null = null;

  constructor(path: string) {
    this.path = path;
  }

  socketOf(device: string): string {
    return join(this.path, `${device}.sock`);
  }

  diskOf(device: string): string {
    return join(this.path, `${device}.disk`);
  }

  get viot(): string {
    return join(this.path, "viot.aml");
  }

  get metrics(): string {
    return join(this.path, "metrics.sock");
  }

  /**
   * Makes the folder, private to this user, and takes it for this process; removes what one that
   * has crashed left in it.
   *
   * @throws StackError `live/runtime-folder` when it is somebody else's, open to others, in use, or
   *   its path too long for sockets
   */
  async claim(machine: string): Promise<void> {
    assert(this.#claim === null, "a folder is claimed once");
    if (Buffer.byteLength(this.path) + 1 + NAME_MAX > SOCKET_PATH_BYTES_MAX) {
      throw refused(this.path, "its path is too long for sockets in it");
    }
    let madeFolders: readonly string[] = [];
    let lock: FolderLock | null = null;
    for (let attempt = 0; lock === null && attempt < ATTEMPTS; attempt += 1) {
      madeFolders = [...makePrivate(this.path), ...madeFolders];
      lock = await lockFolder(this.path).catch((cause: NodeJS.ErrnoException) => {
        if (cause.code === "ENOENT") return null;
        throw cause;
      });
    }
    if (lock === null) throw inUse(this.path, machine);
    try {
      if (removeLeftovers(this.path) && madeFolders.length === 0) madeFolders = [this.path];
    } catch (error) {
      removeFolders(madeFolders);
      lock.release();
      throw error;
    }
    this.#claim = { lock, machine, madeFolders, files: new Set() };
  }

  /** A path in the folder that may be used; it is removed with the folder. */
  own(path: string): string {
    assert(this.#claim !== null, "a folder is claimed before something is made in it");
    const { files, machine, madeFolders } = this.#claim;
    if (files.has(path)) return path;
    if (lstatSync(path, { throwIfNoEntry: false }) !== undefined) {
      const hint = "move it away, or name an empty folder by --runtime-dir";
      throw refused(path, "this is there already, and was made by somebody else", hint);
    }
    const isFirst = files.size === 0;
    files.add(path);
    const list: Served = {
      machine,
      process: process.pid,
      isMade: madeFolders.length > 0,
      files: [...files].map((one) => basename(one)),
    };
    const text = `${JSON.stringify(list)}\n`;
    writeFileSync(join(this.path, LIST), text, { mode: 0o600, flag: isFirst ? "wx" : "w" });
    return path;
  }

  /** Writes a file into the folder. */
  write(path: string, bytes: Uint8Array): void {
    writeFileSync(this.own(path), bytes, { mode: 0o600 });
  }

  /** Makes a file of zeros that takes no room yet. */
  makeSparse(path: string, bytes: number): void {
    const fd = openSync(this.own(path), "wx", 0o600);
    try {
      ftruncateSync(fd, bytes);
    } finally {
      closeSync(fd);
    }
  }

  /** Removes what was made in the folder, and the folder if it was made and is empty. */
  remove(): void {
    if (this.#claim === null) return;
    const { files, lock, madeFolders } = this.#claim;
    this.#claim = null;
    for (const path of files) rmSync(path, { force: true });
    if (files.size > 0) rmSync(join(this.path, LIST), { force: true });
    removeFolders(madeFolders);
    lock.release();
  }
}

/** Environment as the choice of the folder looks at it. */
export interface FolderEnvironment {
  readonly XDG_RUNTIME_DIR?: string | undefined;
}

/** Where the folder of a machine is. */
export function runtimePath(name: string, env: FolderEnvironment): string {
  const base = env.XDG_RUNTIME_DIR || join(tmpdir(), `iommukit-${userInfo().uid}`);
  return env.XDG_RUNTIME_DIR ? join(base, "iommukit", name) : join(base, name);
}

/** What the folder's holder, or one that has crashed, says of itself; null where nobody does. */
function readList(folder: string): Served | null {
  const path = join(folder, LIST);
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return null;
  try {
    if (!status.isFile() || status.size > LIST_BYTES_MAX) throw new RangeError("no list of ours");
    const { machine, process: id, isMade, files } = JSON.parse(readFileSync(path, "utf8"));
    const isList =
      typeof machine === "string" &&
      typeof id === "number" &&
      typeof isMade === "boolean" &&
      Array.isArray(files) &&
      files.every((name) => typeof name === "string" && /^[a-z][a-z0-9.-]*$/.test(name));
    if (!isList) throw new RangeError("no list of ours");
    return { machine, process: id, isMade, files };
  } catch (cause) {
    throw refused(path, "this is no list of what a server has made", undefined, cause);
  }
}

/** Removes what a server that has crashed made. @returns whether it made the folder, too */
function removeLeftovers(folder: string): boolean {
  const before = readList(folder);
  if (before === null) return false;
  for (const name of before.files) rmSync(join(folder, name), { force: true });
  rmSync(join(folder, LIST), { force: true });
  return before.isMade;
}

function inUse(path: string, machine: string): StackError {
  const hint = "stop that one, or give this machine another `name`, or another --runtime-dir";
  try {
    const holder = readList(path);
    if (holder !== null) {
      const why = `process ${holder.process} serves the machine ${holder.machine} from it`;
      return refused(path, why, hint);
    }
  } catch {
    // The list is being written just now.
  }
  return refused(path, `another process uses it, and ${machine} cannot`, hint);
}
