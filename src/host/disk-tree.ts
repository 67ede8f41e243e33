/**
 * The files of the running system, or of a directory that a system was captured into.
 *
 * A captured tree may be hostile: directories are resolved once and must lie inside of it, a file's
 * own last part is never followed, and pipes are not waited for.
 */
import {
  closeSync,
  constants,
  type Dirent,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  realpathSync,
  type Stats,
} from "node:fs";
import {
  directoryOf,
  type HostFile,
  type HostTree,
  linkText,
  NAMES_MAX,
  resolvePath,
  TEXT_BYTES_MAX,
  textOf,
} from "./tree.ts";

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
const FLAGS = O_RDONLY | O_NOFOLLOW | O_NONBLOCK;
const SMALL_BYTES = 4096;
/** Names of a directory that are looked at one by one, before all of it is. */
const SINGLY_MAX = 2;

/** A tree on disk; `/` is the running system. */
export class DiskTree implements HostTree {
  readonly name: string;
  readonly isLive: boolean;
  deniedCount = 0;
  readonly #root: string;
  readonly #realRoot: string | null;
  #error = "";
  readonly #kinds = new Map<string, ReadonlyMap<string, Dirent> | null>();
  /** How many names of a directory were asked for one by one. */
  readonly #asked = new Map<string, number>();
  readonly #directories = new Map<string, string | null>();
  readonly #buffer = new Uint8Array(SMALL_BYTES);
  /** What the one open file of a captured tree holds. */
  readonly #piece = new Uint8Array(SMALL_BYTES);

  constructor(root: string) {
    this.name = root;
    this.#root = root.replace(/\/+$/, "");
    this.isLive = this.#root === "";
    this.#realRoot = this.isLive ? "" : this.#attempt(() => realpathSync.native(this.#root));
  }

  list(path: string): readonly string[] | null {
    const real = this.#directory(path);
    const names = real === null ? null : this.#attempt(() => readdirSync(real === "" ? "/" : real));
    return names === null ? null : names.sort().slice(0, NAMES_MAX);
  }

  text(path: string, clean?: (text: string) => string): string | null {
    const bytes = this.#read(path, TEXT_BYTES_MAX);
    if (bytes === null) return null;
    return clean === undefined ? textOf(bytes) : clean(textOf(bytes));
  }

  bytes(path: string, max: number, clean?: (bytes: Uint8Array) => Uint8Array): Uint8Array | null {
    const bytes = this.#read(path, max);
    if (bytes === null) return null;
    return clean === undefined ? bytes.slice() : clean(bytes);
  }

  open(path: string): HostFile | null {
    const fd = this.#open(path);
    if (fd === null) return null;
    if (!this.isLive) {
      // Here a call costs more than bytes do: a device answers piece by piece, a disk at once.
      const whole = this.#piece.subarray(0, this.#readAt(fd, this.#piece, 0) ?? 0);
      closeSync(fd);
      return { read: (at, bytes) => whole.subarray(at, at + bytes), close() {} };
    }
    return {
      read: (at, bytes) => {
        const buffer = new Uint8Array(bytes);
        return buffer.subarray(0, this.#readAt(fd, buffer, at) ?? 0);
      },
      close: () => closeSync(fd),
    };
  }

  link(path: string): string | null {
    const directory = this.#directory(directoryOf(path));
    if (directory === null) return null;
    const real = `${directory}/${path.slice(path.lastIndexOf("/") + 1)}`;
    let target = this.#attempt(() => readlinkSync(real));
    if (target === null && this.#error === "EINVAL" && !this.isLive) {
      // No link: a directory, or a file that stands for a link.
      const isFile = this.#attempt(() => lstatSync(real))?.isFile() === true;
      const bytes = isFile ? this.#read(path, 1024) : null;
      target = bytes === null ? null : linkText(bytes);
    }
    return target === null ? null : resolvePath(directoryOf(path), target);
  }

  /** Bytes in a buffer that the next read overwrites, where they are few. */
  #read(path: string, max: number): Uint8Array | null {
    const fd = this.#open(path);
    if (fd === null) return null;
    try {
      const first = this.#readAt(fd, this.#buffer.subarray(0, Math.min(max, SMALL_BYTES)), 0);
      if (first === null) return null;
      if (first < SMALL_BYTES || max <= SMALL_BYTES) return this.#buffer.subarray(0, first);
      return this.#readRest(fd, first, max);
    } finally {
      closeSync(fd);
    }
  }

  #readRest(fd: number, first: number, max: number): Uint8Array {
    const pieces = [this.#buffer.slice(0, first)];
    let total = first;
    while (total < max) {
      const piece = new Uint8Array(Math.min(1 << 16, max - total));
      const count = this.#readAt(fd, piece, total) ?? 0;
      if (count === 0) break;
      pieces.push(piece.subarray(0, count));
      total += count;
    }
    return new Uint8Array(Buffer.concat(pieces));
  }

  #open(path: string): number | null {
    const directory = this.#directory(directoryOf(path));
    if (directory === null) return null;
    const real = `${directory}/${path.slice(path.lastIndexOf("/") + 1)}`;
    return this.#attempt(() => openSync(real, FLAGS));
  }

  #readAt(fd: number, buffer: Uint8Array, at: number): number | null {
    return this.#attempt(() => readSync(fd, buffer, 0, buffer.length, at));
  }

  /** The real path of a directory of the tree; null when it is none or lies outside. */
  #directory(path: string): string | null {
    if (this.isLive) return path === "/" ? "" : path;
    if (this.#realRoot === null) return null;
    const known = this.#directories.get(path);
    if (known !== undefined) return known;
    // Paths come from names and from links that were resolved as text: none has such parts.
    if (path.includes("/..")) return null;
    const real = path === "/" ? this.#realRoot : this.#resolve(path, this.#realRoot);
    this.#directories.set(path, real);
    return real;
  }

  #resolve(path: string, root: string): string | null {
    const parent = this.#directory(directoryOf(path));
    if (parent === null) return null;
    const name = path.slice(path.lastIndexOf("/") + 1);
    const here = `${parent}/${name}`;
    const kind = this.#kindOf(parent, name);
    if (kind?.isDirectory() === true) return here;
    if (kind?.isSymbolicLink() !== true) return null;
    const real = this.#attempt(() => realpathSync.native(here));
    return real !== null && `${real}/`.startsWith(`${root}/`) ? real : null;
  }

  /** What a name in a directory is: asked for singly, then with one call for all of them. */
  #kindOf(directory: string, name: string): Dirent | Stats | null {
    const known = this.#kinds.get(directory);
    if (known !== undefined) return known?.get(name) ?? null;
    const asked = (this.#asked.get(directory) ?? 0) + 1;
    if (asked > SINGLY_MAX) return this.#kindsIn(directory)?.get(name) ?? null;
    this.#asked.set(directory, asked);
    return this.#attempt(() => lstatSync(`${directory}/${name}`));
  }

  #kindsIn(directory: string): ReadonlyMap<string, Dirent> | null {
    const entries = this.#attempt(() => readdirSync(directory, { withFileTypes: true }));
    const kinds = entries === null ? null : new Map(entries.map((entry) => [entry.name, entry]));
    this.#kinds.set(directory, kinds);
    return kinds;
  }

  /** A system call; null when it fails, and the reason in `#error`. */
  #attempt<T>(call: () => T): T | null {
    // What is not there is no exception here: a trace of the stack for each would take longest.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      return call();
    } catch (error) {
      this.#error = (error as NodeJS.ErrnoException).code ?? "";
      if (this.#error === "EACCES" || this.#error === "EPERM") this.deniedCount += 1;
      return null;
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  }
}
