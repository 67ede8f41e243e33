/**
 * Makes room for a listening socket: its folder must be private, and what a dead server left at the
 * path is removed. A socket that somebody answers at is never touched.
 */
import { lstatSync, rmSync } from "node:fs";
import { dirname } from "node:path";
import { Errno, errnoName } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import { SOCKET_PATH_BYTES_MAX, type System } from "../system/system.ts";

const BACKLOG = 4;

/**
 * Listens at a path.
 *
 * @returns the listening descriptor
 * @throws StackError `live/socket` when the folder is open to others, or the path is taken
 */
export function listenAt(system: System, path: string, owner: string): number {
  const bytes = Buffer.byteLength(path);
  if (bytes > SOCKET_PATH_BYTES_MAX) {
    const why = `has ${bytes} bytes, and a socket's path may have ${SOCKET_PATH_BYTES_MAX}`;
    throw refused(path, why, "choose a shorter folder");
  }
  checkFolder(dirname(path));
  removeStale(system, path);
  const fd = system.listen(path, BACKLOG, owner);
  if (fd < 0) throw refused(path, `cannot be listened at (${errnoName(-fd)})`);
  return fd;
}

function checkFolder(folder: string): void {
  const status = lstatSync(folder, { throwIfNoEntry: false });
  if (status === undefined) throw refused(folder, "does not exist", "make it with mode 0700");
  if (!status.isDirectory()) throw refused(folder, "is no folder");
  const user = process.getuid?.();
  if (status.uid !== user && status.uid !== 0) throw refused(folder, "belongs to another user");
  if ((status.mode & 0o022) !== 0 && (status.mode & 0o1000) === 0)
    throw refused(folder, "can be written by others", `run chmod 0700 ${folder}`);
}

function removeStale(system: System, path: string): void {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status === undefined) return;
  if (!status.isSocket()) throw refused(path, "exists and is no socket", "choose another path");
  const probe = system.connect(path, "probe");
  if (probe >= 0) system.close(probe);
  if (probe !== -Errno.ECONNREFUSED) {
    const why = probe >= 0 ? "somebody answers at it" : errnoName(-probe);
    throw refused(path, `is in use (${why})`, "stop the other server, or choose another path");
  }
  rmSync(path);
}

function refused(path: string, why: string, hint?: string): StackError {
  return new StackError({
    code: "live/socket",
    kind: "input",
    message: `The socket cannot be made: its path ${why}`,
    at: { file: path },
    ...(hint === undefined ? {} : { hint }),
  });
}
