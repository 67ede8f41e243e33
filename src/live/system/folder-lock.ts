/**
 * Locks a folder for this process, by flock(2) on the folder itself: there is no lock file to be
 * left behind, and the kernel ends the lock with the process, however that ends. Linux only.
 */
import { closeSync, constants, fstatSync, lstatSync, openSync } from "node:fs";
import { StackError } from "../../errors.ts";

const LOCK_EX = 2;
const LOCK_NB = 4;

/** A lock that is held. */
export interface FolderLock {
  release(): void;
}

/**
 * Takes the lock. Links are not followed.
 *
 * @returns null where another process has it
 * @throws StackError `live/foreign-calls`; the error of `open` where there is no such folder
 */
export async function lockFolder(path: string): Promise<FolderLock | null> {
  const flock = await loadFlock();
  const { O_RDONLY, O_DIRECTORY, O_NOFOLLOW } = constants;
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  // The holder before may have removed the folder after it was opened here.
  const isHeld = flock(fd, LOCK_EX | LOCK_NB) === 0 && isStill(path, fstatSync(fd).ino);
  if (!isHeld) closeSync(fd);
  return isHeld ? { release: () => closeSync(fd) } : null;
}

function isStill(path: string, inode: number): boolean {
  return lstatSync(path, { throwIfNoEntry: false })?.ino === inode;
}

async function loadFlock(): Promise<(fd: number, how: number) => number> {
  try {
    const { default: koffi } = await import("koffi");
    return koffi.load(null).func("int flock(int fd, int how)");
  } catch (cause) {
    throw new StackError({
      code: "live/foreign-calls",
      kind: "usage",
      message: "the package for foreign calls (koffi) does not load on this system",
      hint: "install iommukit again with optional packages enabled: npm install --include=optional",
      cause,
    });
  }
}
