/** The files of a host out of a tar archive, gzip-compressed or not. */
import { gunzipSync } from "node:zlib";
import { StackError } from "../errors.ts";
import { CAPTURE_NOTES } from "./capture.ts";
import { readTar, type TarMember } from "./tar.ts";
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

/** Bytes that an archive may have when it is unpacked. */
const UNPACKED_MAX = 1 << 30;
const LINKS_MAX = 16;

/** A tree in memory. */
export class ArchiveTree implements HostTree {
  readonly name: string;
  readonly isLive = false;
  readonly deniedCount: number;
  readonly #members = new Map<string, TarMember>();
  readonly #names = new Map<string, string[]>();
  readonly #known = new Set<string>();

  constructor(name: string, members: readonly TarMember[]) {
    this.name = name;
    const root = rootOf(members);
    for (const member of members) {
      if (!member.path.startsWith(root)) continue;
      const path = `/${member.path.slice(root.length)}`;
      this.#enter(path);
      if (member.kind === "directory" && !this.#names.has(path)) this.#names.set(path, []);
      // Later members replace earlier ones, as in unpacking.
      this.#members.set(path, member);
    }
    for (const names of this.#names.values()) names.sort();
    this.deniedCount = Number(/"denied":(\d{1,9})/.exec(this.text(CAPTURE_NOTES) ?? "")?.[1] ?? 0);
  }

  list(path: string): readonly string[] | null {
    return this.#names.get(this.#real(path))?.slice(0, NAMES_MAX) ?? null;
  }

  text(path: string, clean?: (text: string) => string): string | null {
    const bytes = this.#file(path);
    if (bytes === null) return null;
    const text = textOf(bytes.subarray(0, TEXT_BYTES_MAX));
    return clean === undefined ? text : clean(text);
  }

  bytes(path: string, max: number, clean?: (bytes: Uint8Array) => Uint8Array): Uint8Array | null {
    const bytes = this.#file(path)?.subarray(0, max) ?? null;
    return bytes === null || clean === undefined ? bytes : clean(bytes);
  }

  open(path: string): HostFile | null {
    const bytes = this.#file(path);
    if (bytes === null) return null;
    return { read: (at, count) => bytes.subarray(at, at + count), close() {} };
  }

  link(path: string): string | null {
    const direct = this.#members.get(path);
    const directory = direct === undefined ? this.#real(directoryOf(path)) : directoryOf(path);
    const member = direct ?? this.#members.get(joined(directory, path));
    if (member === undefined || member.kind === "directory") return null;
    const target = member.kind === "link" ? member.target : linkText(member.bytes);
    return target === null ? null : resolvePath(directory, target);
  }

  #file(path: string): Uint8Array | null {
    const member =
      this.#members.get(path) ?? this.#members.get(joined(this.#real(directoryOf(path)), path));
    return member?.kind === "file" ? member.bytes : null;
  }

  /** The path of a directory without links on the way. */
  #real(path: string): string {
    if (this.#names.has(path)) return path;
    let real = "";
    let links = 0;
    for (const part of path.split("/")) {
      if (part === "") continue;
      let at = `${real}/${part}`;
      let member = this.#members.get(at);
      while (member?.kind === "link") {
        links += 1;
        if (links > LINKS_MAX) return path;
        at = resolvePath(real === "" ? "/" : real, member.target);
        member = this.#members.get(at);
        real = directoryOf(at);
      }
      real = at;
    }
    return real === "" ? "/" : real;
  }

  /** Makes a path, and the directories above it, known to their directories. */
  #enter(path: string): void {
    let at = path;
    while (at !== "/" && at !== "") {
      if (this.#known.has(at)) return;
      this.#known.add(at);
      const directory = directoryOf(at);
      const names = this.#names.get(directory);
      const name = at.slice(at.lastIndexOf("/") + 1);
      if (names !== undefined) {
        names.push(name);
      } else {
        this.#names.set(directory, [name]);
      }
      at = directory;
    }
  }
}

function joined(directory: string, path: string): string {
  const name = path.slice(path.lastIndexOf("/") + 1);
  return directory === "/" ? `/${name}` : `${directory}/${name}`;
}

/** What stands before `sys/` in the members' paths. */
function rootOf(members: readonly TarMember[]): string {
  for (const { path } of members) {
    // /proc has a sys of its own.
    const at = `/${path}`.search(/(?<!\/proc)\/sys\/(bus|devices|kernel|class|firmware)(\/|$)/);
    if (at >= 0) return path.slice(0, at);
  }
  return "";
}

/**
 * Reads an archive.
 *
 * @throws StackError when it is none
 */
export function archiveTree(bytes: Uint8Array, file: string): ArchiveTree {
  return new ArchiveTree(file, readTar(unpacked(bytes, file), file));
}

/** Bytes without gzip around them. @throws StackError when it is damaged or too much */
export function unpacked(bytes: Uint8Array, file: string): Uint8Array {
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return bytes;
  try {
    return gunzipSync(bytes, { maxOutputLength: UNPACKED_MAX });
  } catch (cause) {
    const isTooMuch = (cause as NodeJS.ErrnoException).code === "ERR_BUFFER_TOO_LARGE";
    throw new StackError({
      code: isTooMuch ? "host/too-large" : "host/gzip-damaged",
      kind: "input",
      message: isTooMuch
        ? `the gzip data expands beyond ${UNPACKED_MAX} bytes`
        : "the gzip data ends early or is damaged",
      at: { file },
      hint: isTooMuch ? "archive /sys alone" : "copy the file again",
      cause,
    });
  }
}
