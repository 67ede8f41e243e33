/** Finds out what a path that stands for a host is: a directory, an archive, or an lstopo export. */
import { readFileSync, statSync } from "node:fs";
import { StackError } from "../errors.ts";
import { archiveTree } from "./archive-tree.ts";
import { DiskTree } from "./disk-tree.ts";
import type { HostTree } from "./tree.ts";

/** Bytes of a file that may stand for a host. */
const FILE_BYTES_MAX = 512 << 20;

/** A host's files, or the text of an lstopo export. */
export type OpenedHost =
  | { readonly kind: "tree"; readonly tree: HostTree }
  | { readonly kind: "lstopo"; readonly name: string; readonly text: string };

/** The running system. */
export function liveHost(): OpenedHost {
  return { kind: "tree", tree: new DiskTree("/") };
}

/**
 * Opens what stands for a host.
 *
 * @throws StackError when the path cannot be read or is neither
 */
export function openHost(path: string): OpenedHost {
  let isDirectory: boolean;
  let bytes: Uint8Array | null = null;
  try {
    const stat = statSync(path);
    isDirectory = stat.isDirectory();
    if (!isDirectory && stat.isFile() && stat.size > FILE_BYTES_MAX) {
      throw notAHost(path, "it is larger than 512 MiB");
    }
    if (!isDirectory) bytes = readFileSync(path);
  } catch (cause) {
    if (cause instanceof StackError) throw cause;
    const { code } = cause as NodeJS.ErrnoException;
    const what =
      code === "ENOENT" ? "there is no such file or directory" : `it cannot be read (${code})`;
    throw notAHost(path, what, cause);
  }
  if (bytes === null) return { kind: "tree", tree: checked(new DiskTree(path), path) };
  if (startsAsXml(bytes)) {
    return { kind: "lstopo", name: path, text: new TextDecoder().decode(bytes) };
  }
  return { kind: "tree", tree: checked(archiveTree(bytes, path), path) };
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
