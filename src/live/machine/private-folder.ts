/**
 * Makes a folder that nobody else can reach into, or says why one that is there is none. What was
 * there before is looked at only: neither its mode nor what it holds is changed.
 */
import { lstatSync, mkdirSync, rmdirSync, type Stats, statSync } from "node:fs";
import { dirname } from "node:path";
import { StackError } from "../../errors.ts";

const PRIVATE = 0o700;
const OTHERS = 0o077;
const WRITABLE_BY_ALL = 0o002;
const STICKY = 0o1000;

/**
 * Makes a folder, and those above it that are not there.
 *
 * @returns the folders made, the deepest one first; none where it was there, private, already
 * @throws StackError `live/runtime-folder`
 */
export function makePrivate(path: string): readonly string[] {
  const missing: string[] = [];
  let top = path;
  let status = look(top);
  while (status === null) {
    missing.push(top);
    top = dirname(top);
    status = look(top);
  }
  if (missing.length === 0) checkPrivate(path, status);
  // Whoever may write to the folder above could put another one in this one's place.
  checkParent(missing.length === 0 ? dirname(path) : top);
  const made: string[] = [];
  try {
    for (const one of missing.toReversed()) {
      mkdirSync(one, { mode: PRIVATE });
      made.unshift(one);
    }
  } catch (cause) {
    removeFolders(made);
    throw refused(path, (cause as NodeJS.ErrnoException).code ?? String(cause), undefined, cause);
  }
  return made;
}

/** Removes folders that are empty, and leaves others. */
export function removeFolders(paths: readonly string[]): void {
  try {
    for (const path of paths) rmdirSync(path);
  } catch {
    // Somebody has put something in it: then it is not for us to remove.
  }
}

/** Refuses a folder for sockets. */
export function refused(
  path: string,
  why: string,
  hint = "name another one by --runtime-dir",
  cause?: unknown,
): StackError {
  return new StackError({
    code: "live/runtime-folder",
    kind: "input",
    message: `The folder for sockets cannot be used: ${why}`,
    at: { file: path },
    hint,
    cause,
  });
}

function look(path: string): Stats | null {
  try {
    return lstatSync(path, { throwIfNoEntry: false }) ?? null;
  } catch (cause) {
    throw refused(path, (cause as NodeJS.ErrnoException).code ?? String(cause), undefined, cause);
  }
}

function checkPrivate(path: string, status: Stats): void {
  if (status.isSymbolicLink()) throw refused(path, "it is a link");
  if (!status.isDirectory()) throw refused(path, "it is no folder");
  if (status.uid !== process.getuid?.()) throw refused(path, "it belongs to somebody else");
  if ((status.mode & OTHERS) === 0) return;
  const mode = (status.mode & 0o777).toString(8).padStart(4, "0");
  const hint = "name a folder that is not there yet, or make this one private: chmod 0700";
  throw refused(path, `others can reach into it (mode ${mode})`, hint);
}

function checkParent(path: string): void {
  const own = process.getuid?.();
  // A link may be followed where nobody else can aim it elsewhere.
  for (const status of [look(path), statSync(path, { throwIfNoEntry: false })]) {
    if (!status) throw refused(path, "it is a link to nowhere");
    if (status.uid !== own && status.uid !== 0) throw refused(path, "it belongs to somebody else");
    if (status.isSymbolicLink()) continue;
    if (!status.isDirectory()) throw refused(path, "it is no folder");
    const isShared = (status.mode & WRITABLE_BY_ALL) !== 0 && (status.mode & STICKY) === 0;
    if (isShared) throw refused(path, "everybody can write to it");
  }
}
