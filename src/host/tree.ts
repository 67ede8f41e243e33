/**
 * The files of a host as a reader sees them: a live root, a captured directory or an archive.
 *
 * Paths are absolute within the tree (`/sys/bus/pci/devices`). What is missing, unreadable or of
 * the wrong kind is `null`: hosts differ, and a captured tree may be damaged. A tree never leads
 * outside of itself, whatever its links say.
 */

/** Names that one directory may have; the rest is not looked at. */
export const NAMES_MAX = 200_000;
/** Bytes of a text file that are looked at. */
export const TEXT_BYTES_MAX = 1 << 20;
/** Links that are followed for one path. */
const LINKS_MAX = 16;

/** A file that is read in pieces. */
export interface HostFile {
  /**
   * Up to `bytes` bytes at an offset; fewer at its end, and none where reading is refused. They are
   * good until another file is opened.
   */
  read(at: number, bytes: number): Uint8Array;
  close(): void;
}

/** The files of a host. */
export interface HostTree {
  /** How messages name it. */
  readonly name: string;
  /** Whether it is the running system. */
  readonly isLive: boolean;
  /** Names in a directory, sorted; null when there is no such directory. */
  list(path: string): readonly string[] | null;
  /**
   * A text file without trailing zeros and white space.
   *
   * @param clean - drops what a capture must not carry on; idempotent
   */
  text(path: string, clean?: (text: string) => string): string | null;
  /** The first bytes of a file. @param clean - as of `text` */
  bytes(path: string, max: number, clean?: (bytes: Uint8Array) => Uint8Array): Uint8Array | null;
  open(path: string): HostFile | null;
  /** Where a symbolic link leads, as a path of the tree; null when it is no link. */
  link(path: string): string | null;
  /** How many paths the system refused to show. */
  readonly deniedCount: number;
}

/**
 * Joins a path and what a link in its directory says; never leads above the root.
 *
 * @example
 * resolvePath("/sys/class/iommu", "../../devices/virtual/iommu/dmar0"); // "/sys/devices/…"
 */
export function resolvePath(directory: string, target: string): string {
  const parts: string[] = [];
  const text = target.startsWith("/") ? target : `${directory}/${target}`;
  for (const part of text.split("/")) {
    if (part === "" || part === ".") continue;
    if (part === "..") parts.pop();
    else parts.push(part);
  }
  return `/${parts.join("/")}`;
}

/** The directory part of a path. */
export function directoryOf(path: string): string {
  return path.slice(0, Math.max(0, path.lastIndexOf("/"))) || "/";
}

/** The last part of a path. */
export function baseName(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}

/** Follows a path that may be a link, or a chain of them; itself where it is none. */
export function follow(tree: HostTree, path: string): string {
  let at = path;
  for (let hops = 0; hops < LINKS_MAX; hops += 1) {
    const target = tree.link(at);
    if (target === null) return at;
    // Where the kernel's devices are, nothing is a link to somewhere else.
    if (target.startsWith("/sys/devices/")) return target;
    at = target;
  }
  return at;
}

/**
 * Where a file that holds nothing but a relative path leads: what is left of a symbolic link when a
 * tree went through a tool without links.
 */
export function linkText(bytes: Uint8Array): string | null {
  if (bytes.length < 4 || bytes.length > 1023) return null;
  if (bytes[0] !== 0x2e || bytes[1] !== 0x2e || bytes[2] !== 0x2f) return null;
  for (const byte of bytes) if (byte < 0x21 || byte > 0x7e) return null;
  return String.fromCharCode(...bytes);
}

/** Text of a file: archivers fill files of sysfs, which claim to be larger than they are. */
export function textOf(bytes: Uint8Array): string {
  let end = bytes.length;
  while (end > 0 && bytes[end - 1]! <= 0x20) end -= 1;
  return Buffer.from(bytes.buffer, bytes.byteOffset, end).toString("latin1");
}
