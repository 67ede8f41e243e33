/** Finds out what a path that stands for a host is: a directory, an archive, or an lstopo export. */
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { StackError } from "../errors.ts";
import { archiveTree, unpacked } from "./archive-tree.ts";
import { DiskTree } from "./disk-tree.ts";
import { foreignFile } from "./foreign-file.ts";
import type { HostTree } from "./tree.ts";

/** Bytes of a file that may stand for a host. */
const FILE_BYTES_MAX = 512 << 20;
const PIECE_BYTES = 1 << 18;
/** What the path of the standard input is called, and its descriptor. */
const STDIN_PATH = "-";
const STDIN = 0;

/** A host's files, or the text of an lstopo export. */
export type OpenedHost =
  | { readonly kind: "tree"; readonly tree: HostTree }
  | { readonly kind: "lstopo"; readonly name: string; readonly text: string };

/** The running system. */
export function liveHost(): OpenedHost {
  return { kind: "tree", tree: new DiskTree("/") };
}

/**
 * Opens what stands for a host; `-` is the standard input, and gzip is unpacked.
 *
 * @throws StackError when the path cannot be read or is neither
 */
export function openHost(path: string): OpenedHost {
  const name = path === STDIN_PATH ? "(standard input)" : path;
  let packed: Uint8Array | null;
  try {
    packed = path === STDIN_PATH ? readWhole(STDIN, name) : readPath(path);
  } catch (cause) {
    if (cause instanceof StackError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    const what =
      code === "ENOENT" ? "there is no such file or directory" : `it cannot be read (${code})`;
    throw notAHost(name, what, cause);
  }
  if (packed === null) return { kind: "tree", tree: checked(new DiskTree(path), path) };
  const bytes = unpacked(packed, name);
  if (startsAsXml(bytes)) return { kind: "lstopo", name, text: new TextDecoder().decode(bytes) };
  const foreign = foreignFile(bytes);
  if (foreign !== null) throw notAHost(name, foreign.what, undefined, foreign.hint);
  return { kind: "tree", tree: checked(archiveTree(bytes, name), name) };
}

/** A file whole; null when it is a directory. */
function readPath(path: string): Uint8Array | null {
  if (statSync(path).isDirectory()) return null;
  const fd = openSync(path, "r");
  try {
    return readWhole(fd, path);
  } finally {
    closeSync(fd);
  }
}

function readWhole(fd: number, name: string): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (let total = 0; total <= FILE_BYTES_MAX; ) {
    const piece = new Uint8Array(PIECE_BYTES);
    const count = readSync(fd, piece, 0, PIECE_BYTES, null);
    if (count === 0) return Buffer.concat(pieces);
    pieces.push(piece.subarray(0, count));
    total += count;
  }
  throw notAHost(name, "it is larger than 512 MiB");
}

function startsAsXml(bytes: Uint8Array): boolean {
  return /^\ufeff?\s*<[?!a-z]/.test(new TextDecoder().decode(bytes.subarray(0, 64)));
}

/** A tree that holds something of /sys. */
function checked(tree: HostTree, path: string): HostTree {
  if (tree.list("/sys") !== null) return tree;
  throw notAHost(
    path,
    "it holds no directory sys",
    undefined,
    "pass the directory that has sys in it",
  );
}

function notAHost(
  file: string,
  what: string,
  cause?: unknown,
  hint = "pass a directory with sys in it, a .tar.gz of it, or the XML of lstopo",
): StackError {
  return new StackError({
    code: "host/not-a-host",
    kind: "input",
    message: `this does not stand for a host: ${what}`,
    at: { file },
    hint,
    cause,
  });
}
