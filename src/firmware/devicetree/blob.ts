/**
 * Reads a flattened devicetree: header, reserved memory, and the tree out of its tokens.
 *
 * Nothing in it is trusted: every offset is checked against the block that it must lie in, nesting
 * and size are bounded, and an error names the offset. What the tree does not explain (NOP tokens,
 * slack behind the blocks, padding that is not zero) is kept beside it, so that {@link encodeBlob}
 * gives every byte back. Source: Devicetree Specification 0.4, chapter 5; dtc's rules where the text
 * is silent.
 */
import { StackError } from "../../errors.ts";
import { hex } from "../../units.ts";
import {
  type DevicetreeBlob,
  FDT_MAGIC,
  type FdtHeader,
  HEADER_BYTES,
  type KeptBytes,
  Token,
} from "./blob-format.ts";
import { putBlob } from "./blob-write.ts";
import type { DtNode, DtProperty, DtReservation } from "./tree.ts";

/** Largest blob; QEMU's are 1 MiB, slack included. */
export const BLOB_BYTES_MAX = 16 * 2 ** 20;
/** Nodes inside each other at most; Linux unflattens as many (FDT_MAX_DEPTH). */
export const DEPTH_MAX = 64;
const NAME_BYTES_MAX = 255;
/** Nodes and properties at most; large servers have some ten thousand. */
export const ITEMS_MAX = 2 ** 18;

/** Whether bytes are a devicetree by their magic number. */
export function isBlob(bytes: Uint8Array): boolean {
  return bytes.length >= 4 && viewOf(bytes).getUint32(0) === FDT_MAGIC;
}

/**
 * Reads a blob.
 *
 * @param file - what errors call it
 * @throws StackError `devicetree/…` with the offset of what is wrong
 */
export function decodeBlob(bytes: Uint8Array, file = "devicetree blob"): DevicetreeBlob {
  const fail: Fail = (code, at, message, hint) =>
    new StackError({
      code: `devicetree/${code}`,
      kind: "input",
      message,
      at: { file, offset: at },
      ...(hint === undefined ? {} : { hint }),
    });
  if (bytes.length > BLOB_BYTES_MAX) {
    throw fail("too-large", BLOB_BYTES_MAX, `A blob has ${BLOB_BYTES_MAX} bytes at most`);
  }
  const header = readHeader(bytes, fail);
  const reservations = readReservations(bytes, header, fail);
  const reader = new StructureReader(bytes, header, fail);
  const { root, endAt } = reader.read();
  const { stringsAt, stringsBytes, bootCpu } = header;
  const strings = bytes.slice(stringsAt, stringsAt + stringsBytes);
  const plain: DevicetreeBlob = {
    header,
    reservations,
    bootCpu,
    root,
    strings,
    endAt,
    bytes: bytes.length,
    kept: [],
  };
  return { ...plain, kept: differences(bytes, putBlob(plain)) };
}

/** Gives the bytes of a blob back, as they were. */
export function encodeBlob(blob: DevicetreeBlob): Uint8Array {
  const bytes = putBlob(blob);
  for (const one of blob.kept) bytes.set(one.bytes, one.at);
  return bytes;
}

/** Runs of bytes in which `bytes` differs from `plain`. */
function differences(bytes: Uint8Array, plain: Uint8Array): KeptBytes[] {
  const kept: KeptBytes[] = [];
  for (let at = 0; at < bytes.length; at += 1) {
    if (bytes[at] === plain[at]) continue;
    const start = at;
    while (at < bytes.length && bytes[at] !== plain[at]) at += 1;
    kept.push({ at: start, bytes: bytes.slice(start, at) });
  }
  return kept;
}

type Fail = (code: string, at: number, message: string, hint?: string) => StackError;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function readHeader(bytes: Uint8Array, fail: Fail): FdtHeader {
  if (bytes.length < HEADER_BYTES[16]) {
    throw fail(
      "too-short",
      bytes.length,
      `A header has 36 bytes or more, here are ${bytes.length}`,
    );
  }
  const view = viewOf(bytes);
  const word = (at: number) => view.getUint32(at);
  if (word(0) !== FDT_MAGIC) {
    throw fail(
      "magic",
      0,
      `A devicetree starts with ${hex(FDT_MAGIC)}, here is ${hex(word(0), 8)}`,
    );
  }
  const version = word(20);
  const lastCompatibleVersion = word(24);
  if (version < 16 || lastCompatibleVersion > 17) {
    const what = `Version ${version}, compatible back to ${lastCompatibleVersion}`;
    const hint = "versions 16 and 17 are known; `dtc -I dtb -O dtb -V 17` converts";
    throw fail("version", version < 16 ? 20 : 24, `${what}, cannot be read`, hint);
  }
  if (version >= 17 && bytes.length < HEADER_BYTES[17]) {
    throw fail("too-short", bytes.length, "The header of version 17 has 40 bytes");
  }
  const header = {
    totalBytes: word(4),
    structureAt: word(8),
    stringsAt: word(12),
    reservationsAt: word(16),
    version,
    lastCompatibleVersion,
    bootCpu: word(28),
    stringsBytes: word(32),
    structureBytes: version >= 17 ? word(36) : null,
  };
  checkBlocks(header, bytes.length, fail);
  return header;
}

function checkBlocks(header: FdtHeader, fileBytes: number, fail: Fail): void {
  const { totalBytes, structureAt, structureBytes, stringsAt, stringsBytes } = header;
  const headerBytes = header.version >= 17 ? HEADER_BYTES[17] : HEADER_BYTES[16];
  if (totalBytes > fileBytes) {
    throw fail("truncated", 4, `The blob has ${totalBytes} bytes, the file ${fileBytes}`);
  }
  const blocks = [
    [8, "structure", structureAt, structureBytes ?? 0, 4],
    [12, "strings", stringsAt, stringsBytes, 1],
    [16, "memory reservations", header.reservationsAt, 16, 8],
  ] as const;
  for (const [at, name, start, bytes, unit] of blocks) {
    if (start < headerBytes || start + bytes > totalBytes) {
      const place = `${hex(start)} … ${hex(start + bytes)}`;
      throw fail("block", at, `The ${name} would be at ${place} of ${totalBytes} bytes`);
    }
    if (start % unit !== 0) throw fail("alignment", at, `The ${name} start at ${hex(start)}`);
  }
}

function readReservations(bytes: Uint8Array, header: FdtHeader, fail: Fail): DtReservation[] {
  const view = viewOf(bytes);
  const reservations: DtReservation[] = [];
  for (let at = header.reservationsAt; at + 16 <= header.totalBytes; at += 16) {
    const address = view.getBigUint64(at);
    const size = view.getBigUint64(at + 8);
    if (address === 0n && size === 0n) return reservations;
    reservations.push({ address, bytes: size });
  }
  const at = header.reservationsAt;
  throw fail("reservations", at, "The memory reservations have no end (two zeros)");
}

interface OpenNode {
  readonly name: string;
  readonly at: number;
  readonly properties: DtProperty[];
  readonly children: DtNode[];
}

/** Reads the tokens; one pass, no recursion. */
class StructureReader {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #header: FdtHeader;
  readonly #end: number;
  readonly #fail: Fail;
  /** Names of properties by offset: few are different. */
  readonly #names = new Map<number, string>();
  #at: number;
  #items = 0;

  constructor(bytes: Uint8Array, header: FdtHeader, fail: Fail) {
    this.#bytes = bytes;
    this.#view = viewOf(bytes);
    this.#header = header;
    this.#fail = fail;
    this.#at = header.structureAt;
    const size = header.structureBytes;
    this.#end = size === null ? header.totalBytes : header.structureAt + size;
  }

  read(): { root: DtNode; endAt: number } {
    const open: OpenNode[] = [];
    let root: DtNode | null = null;
    for (;;) {
      const at = this.#at;
      const token = this.#word("a token");
      switch (token) {
        case Token.NOP:
          break;
        case Token.BEGIN_NODE:
          if (root !== null) throw this.#fail("second-root", at, "A node follows the root's end");
          open.push(this.#begin(at, open.length));
          break;
        case Token.PROP:
          this.#property(at, open.at(-1));
          break;
        case Token.END_NODE: {
          const node = open.pop();
          if (node === undefined) throw this.#fail("no-node", at, "END_NODE where no node is open");
          const done = { ...node, endAt: at };
          if (open.length === 0) root = done;
          else open.at(-1)!.children.push(done);
          break;
        }
        case Token.END:
          if (root === null)
            throw this.#fail("unfinished", at, "END inside a node, or without one");
          return { root, endAt: at };
        default:
          throw this.#fail("token", at, `${hex(token, 8)} is no token`);
      }
    }
  }

  #word(what: string): number {
    if (this.#at + 4 > this.#end) {
      throw this.#fail("truncated", this.#at, `The structure ends where ${what} should be`);
    }
    const word = this.#view.getUint32(this.#at);
    this.#at += 4;
    return word;
  }

  #count(at: number): void {
    this.#items += 1;
    if (this.#items <= ITEMS_MAX) return;
    throw this.#fail("too-many", at, `More than ${ITEMS_MAX} nodes and properties`);
  }

  #begin(at: number, depth: number): OpenNode {
    this.#count(at);
    if (depth >= DEPTH_MAX) {
      throw this.#fail("depth", at, `Nodes are more than ${DEPTH_MAX} deep`);
    }
    const name = this.#text(this.#at, this.#end);
    this.#at = aligned(this.#at + name.length + 1);
    return { name, at, properties: [], children: [] };
  }

  #property(at: number, node: OpenNode | undefined): void {
    this.#count(at);
    if (node === undefined) throw this.#fail("no-node", at, "A property outside of every node");
    if (node.children.length > 0) {
      throw this.#fail("order", at, "A property behind a child; properties come first");
    }
    const length = this.#word("a property's length");
    const nameAt = this.#word("a property's name");
    if (length > this.#end - this.#at) {
      throw this.#fail(
        "truncated",
        at + 4,
        `A value of ${length} bytes passes the structure's end`,
      );
    }
    const value = this.#bytes.slice(this.#at, this.#at + length);
    this.#at = aligned(this.#at + length);
    node.properties.push({ name: this.#nameAt(nameAt, at), value, at, nameAt });
  }

  #nameAt(nameAt: number, at: number): string {
    const known = this.#names.get(nameAt);
    if (known !== undefined) return known;
    const { stringsAt, stringsBytes } = this.#header;
    if (nameAt >= stringsBytes) {
      const message = `The name is at ${hex(nameAt)} of ${stringsBytes} bytes of strings`;
      throw this.#fail("name", at + 8, message);
    }
    const name = this.#text(stringsAt + nameAt, stringsAt + stringsBytes);
    this.#names.set(nameAt, name);
    return name;
  }

  #text(at: number, end: number): string {
    const limit = Math.min(end, at + NAME_BYTES_MAX + 1);
    const stop = this.#bytes.subarray(at, limit).indexOf(0);
    if (stop < 0) throw this.#fail("name", at, "The name has no end (NUL)");
    return String.fromCharCode(...this.#bytes.subarray(at, at + stop));
  }
}

function aligned(at: number): number {
  return (at + 3) & ~3;
}
