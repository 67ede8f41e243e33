/**
 * Tar archives in memory: reads what tar programs write of a directory, writes what they all read.
 *
 * Some hundred lines instead of a package: a capture needs files and links, no permissions, owners,
 * sparse files or streams, and an archive from a stranger has to be bounded. Source: POSIX.1-2024,
 * pax, "ustar Interchange Format", "pax Header"; GNU tar manual, "Basic Tar Format" (types L, K).
 */
import { StackError } from "../errors.ts";

/** A member of an archive. */
export interface TarMember {
  /** Without leading `./` and `/`, and without trailing `/`. */
  readonly path: string;
  readonly kind: "file" | "link" | "directory";
  /** Contents of a file. */
  readonly bytes: Uint8Array;
  /** Where a symbolic link, or a hard link from the root of the archive, leads. */
  readonly target: string;
}

const BLOCK = 512;
const MEMBERS_MAX = 4_000_000;
const PATH_MAX = 4096;
const NO_BYTES = new Uint8Array(0);
const decoder = new TextDecoder("utf-8");

interface Override {
  path?: string;
  linkpath?: string;
  size?: number;
}

/**
 * Reads an archive.
 *
 * @param file - how messages name it
 * @throws StackError `host/tar-damaged` with the offset
 */
export function readTar(archive: Uint8Array, file: string): TarMember[] {
  const members: TarMember[] = [];
  let next: Override = {};
  let at = 0;
  while (at + BLOCK <= archive.length) {
    const header = archive.subarray(at, at + BLOCK);
    if (header.every((byte) => byte === 0)) return members;
    if (!isHeader(header)) throw damaged(file, at, "no header of a tar member stands here");
    const size = next.size ?? numberAt(header, 124, 12);
    const start = at + BLOCK;
    if (size > archive.length - start) throw damaged(file, at, "a member is longer than the rest");
    if (members.length >= MEMBERS_MAX) throw damaged(file, at, "it has too many members");
    const bytes = archive.subarray(start, start + size);
    const type = String.fromCharCode(header[156]!);
    if (type === "x") next = paxOf(bytes);
    else if (type === "L") next = { ...next, path: stringAt(bytes, 0, bytes.length) };
    else if (type === "K") next = { ...next, linkpath: stringAt(bytes, 0, bytes.length) };
    else {
      const member = memberOf(header, type, bytes, next);
      if (member !== null) members.push(member);
      next = {};
    }
    at = start + Math.ceil(size / BLOCK) * BLOCK;
  }
  if (members.length === 0) throw damaged(file, 0, "it is empty");
  return members;
}

function damaged(file: string, offset: number, what: string): StackError {
  return new StackError({
    code: "host/tar-damaged",
    kind: "input",
    message: `this is no readable tar archive: ${what}`,
    at: { file, offset },
    hint: "`iommukit inspect --capture OUT.tar.gz` writes one; so does tar on /sys",
  });
}

/** Whether the sum of a header's bytes is the one it states. */
function isHeader(header: Uint8Array): boolean {
  let sum = 8 * 0x20;
  for (let at = 0; at < BLOCK; at += 1) if (at < 148 || at >= 156) sum += header[at]!;
  return numberAt(header, 148, 8) === sum;
}

function memberOf(
  header: Uint8Array,
  type: string,
  bytes: Uint8Array,
  next: Override,
): TarMember | null {
  const isUstar = stringAt(header, 257, 5) === "ustar";
  const prefix = isUstar && header[345] !== 0 ? `${stringAt(header, 345, 155)}/` : "";
  const path = cleanPath(next.path ?? prefix + stringAt(header, 0, 100));
  if (path === "" || path.length > PATH_MAX) return null;
  const target = next.linkpath ?? stringAt(header, 157, 100);
  if (type === "5") return { path, kind: "directory", bytes: NO_BYTES, target: "" };
  if (type === "2") return { path, kind: "link", bytes: NO_BYTES, target };
  if (type === "1") return { path, kind: "link", bytes: NO_BYTES, target: `/${cleanPath(target)}` };
  // Devices and pipes hold nothing; everything else that POSIX does not name is a file.
  if (type === "3" || type === "4" || type === "6" || type === "g") return null;
  return { path, kind: "file", bytes, target: "" };
}

function cleanPath(path: string): string {
  return path.replace(/^(\.?\/)+/, "").replace(/\/+$/, "");
}

/** Records of a pax header: `length key=value\n`. */
function paxOf(bytes: Uint8Array): Override {
  const override: Override = {};
  const text = decoder.decode(bytes);
  for (const match of text.matchAll(/^\d+ (path|linkpath|size)=(.*)$/gm)) {
    if (match[1] === "path") override.path = match[2]!;
    else if (match[1] === "linkpath") override.linkpath = match[2]!;
    else if (/^\d{1,15}$/.test(match[2]!)) override.size = Number(match[2]);
  }
  return override;
}

function stringAt(bytes: Uint8Array, at: number, length: number): string {
  const field = bytes.subarray(at, at + length);
  const end = field.indexOf(0);
  return decoder.decode(end < 0 ? field : field.subarray(0, end));
}

/** An octal number, or −1. */
function numberAt(bytes: Uint8Array, at: number, length: number): number {
  const text = stringAt(bytes, at, length).trim();
  if (text === "") return 0;
  return /^[0-7]{1,12}$/.test(text) ? Number.parseInt(text, 8) : Number.POSITIVE_INFINITY;
}

/** Writes an archive: times are zero, owners nobody, so that the same members give the same bytes. */
export function writeTar(members: readonly TarMember[]): Uint8Array {
  const blocks: Uint8Array[] = [];
  for (const member of members) {
    const records = [
      ...(fits(member.path) ? [] : [paxRecord("path", member.path)]),
      ...(fits(member.target) ? [] : [paxRecord("linkpath", member.target)]),
    ];
    if (records.length > 0) {
      const bytes = new TextEncoder().encode(records.join(""));
      pushMember(blocks, "x", { path: "pax", kind: "file", bytes, target: "" });
    }
    const type = { file: "0", link: "2", directory: "5" }[member.kind];
    pushMember(blocks, type, member);
  }
  blocks.push(new Uint8Array(2 * BLOCK));
  return new Uint8Array(Buffer.concat(blocks));
}

function fits(text: string): boolean {
  return Buffer.byteLength(text) <= 100;
}

/** A record starts with its own length in bytes, these digits included. */
function paxRecord(key: string, value: string): string {
  const rest = Buffer.byteLength(` ${key}=${value}\n`);
  let length = rest + String(rest).length;
  length = rest + String(length).length;
  return `${length} ${key}=${value}\n`;
}

function pushMember(blocks: Uint8Array[], type: string, member: TarMember): void {
  const header = Buffer.alloc(BLOCK);
  const octal = (value: number, at: number, length: number) =>
    header.write(`${value.toString(8).padStart(length - 1, "0")}\0`, at, "latin1");
  header.write(member.path, 0, 100, "utf8");
  octal(type === "5" ? 0o755 : type === "2" ? 0o777 : 0o644, 100, 8);
  octal(0, 108, 8);
  octal(0, 116, 8);
  octal(member.bytes.length, 124, 12);
  octal(0, 136, 12);
  header.fill(0x20, 148, 156);
  header.write(type, 156, "latin1");
  header.write(member.target, 157, 100, "utf8");
  header.write("ustar\x0000", 257, "latin1");
  octal(
    header.reduce((sum, byte) => sum + byte, 0),
    148,
    7,
  );
  blocks.push(header, member.bytes);
  const over = member.bytes.length % BLOCK;
  if (over > 0) blocks.push(new Uint8Array(BLOCK - over));
}
