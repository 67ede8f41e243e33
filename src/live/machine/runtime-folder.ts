/**
 * The private folder of a running machine: sockets, tables, and who serves it.
 *
 * Mode 0700, so that nobody else reaches the sockets, whatever their own mode. What is left behind
 * by a server that is gone is removed; what a live server holds is not touched.
 */
import { chmodSync, lstatSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir, userInfo } from "node:os";
import { join } from "node:path";
import { StackError } from "../../errors.ts";

/** Bytes of a Unix socket's path, without the 0 at its end. */
const SOCKET_PATH_MAX = 107;
const PRIVATE = 0o700;
/** The longest name in the folder: `metrics.sock` and 31 letters of a device. */
const NAME_MAX = 36;

/** Where things lie in a runtime folder. */
export class RuntimeFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  socketOf(device: string): string {
    return join(this.path, `${device}.sock`);
  }

  get viot(): string {
    return join(this.path, "viot.aml");
  }

  get metrics(): string {
    return join(this.path, "metrics.sock");
  }

  /** Writes a file into the folder. */
  write(path: string, bytes: Uint8Array): void {
    writeFileSync(path, bytes, { mode: 0o600 });
  }

  /** Whether somebody has sockets in it. */
  hasSockets(): boolean {
    return readdirSync(this.path).some((name) => name.endsWith(".sock"));
  }

  /** Removes the folder and all in it. */
  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
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

/**
 * Makes the folder of a machine, private to this user.
 *
 * @throws StackError `live/runtime-folder` when the path is too long for sockets, or somebody else's
 */
export function makeRuntimeFolder(path: string): RuntimeFolder {
  if (Buffer.byteLength(path) + 1 + NAME_MAX > SOCKET_PATH_MAX) {
    throw refused(path, "its path is too long for sockets in it");
  }
  try {
    mkdirSync(path, { recursive: true, mode: PRIVATE });
    // Not through a link that somebody else has put there: /tmp is everybody's.
    const { uid } = userInfo();
    for (const one of [path, join(path, "..")]) {
      const found = lstatSync(one);
      if (!found.isDirectory()) throw refused(one, "it is no folder");
      if (found.uid !== uid && found.uid !== 0) throw refused(one, "it belongs to somebody else");
    }
    chmodSync(path, PRIVATE);
  } catch (cause) {
    if (cause instanceof StackError) throw cause;
    throw refused(path, (cause as NodeJS.ErrnoException).code ?? String(cause), cause);
  }
  return new RuntimeFolder(path);
}

function refused(path: string, why: string, cause?: unknown): StackError {
  return new StackError({
    code: "live/runtime-folder",
    kind: "input",
    message: `The folder for sockets cannot be used: ${why}`,
    at: { file: path },
    hint: "name another one by --runtime-dir",
    cause,
  });
}
