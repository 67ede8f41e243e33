/** What can be wrong with the file of a disk, in words. */
import { errnoName } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import type { System } from "../system/system.ts";

const SIZE_MAX = 2 ** 53;

/** An error about a disk image. @param errno - negative */
export function stateError(path: string, what: string, errno: number): StackError {
  return new StackError({
    code: "live/disk-image",
    kind: "input",
    message: `The disk image ${what} (${errnoName(-errno)})`,
    at: { file: path },
    hint: "it must be a file or block device that this user may open; make one with `truncate -s 1G`",
  });
}

export function readOnlyReason(isReadOnly: boolean): string {
  return isReadOnly ? "cannot be opened" : "cannot be opened for writing";
}

/** The size of a disk image. @throws StackError `live/disk-image` */
export function sizeOf(system: System, fd: number, path: string, blockBytes: number): number {
  const status = system.status(fd);
  if (typeof status === "number") throw stateError(path, "cannot be looked at", status);
  const { kind, bytes } = status;
  let wrong: string | null = null;
  if (kind !== "regular" && kind !== "block") wrong = `is a ${kind}, not a file or block device`;
  else if (bytes === 0) wrong = "is empty";
  else if (bytes % blockBytes !== 0)
    wrong = `has ${bytes} bytes, which is no multiple of its ${blockBytes}-byte blocks`;
  else if (bytes >= SIZE_MAX) wrong = "is larger than 8 PiB";
  if (wrong === null) return bytes;
  throw new StackError({
    code: "live/disk-image",
    kind: "input",
    message: `The disk image ${wrong}`,
    at: { file: path },
    hint: "make one of the size you want with `truncate -s 1G IMAGE`",
  });
}
