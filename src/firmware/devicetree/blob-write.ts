/**
 * Writes flattened devicetrees: one that was read, token by token where it was; or a new one with
 * its blocks in the order of dtc, byte for byte as dtc would.
 */
import { assert } from "../../errors.ts";
import {
  type DevicetreeBlob,
  FDT_MAGIC,
  type FdtVersion,
  HEADER_BYTES,
  Token,
} from "./blob-format.ts";
import type { DevicetreeParts, DtNode, DtProperty, DtReservation } from "./tree.ts";

/** Writes all that a blob's parts explain; the rest is zero. */
export function putBlob(blob: DevicetreeBlob): Uint8Array {
  const bytes = new Uint8Array(blob.bytes);
  const writer = new BlobWriter(bytes);
  const { header, reservations, strings, root, endAt } = blob;
  const { structureBytes } = header;
  const words = [
    ...[FDT_MAGIC, header.totalBytes, header.structureAt, header.stringsAt],
    ...[header.reservationsAt, header.version, header.lastCompatibleVersion],
    ...[header.bootCpu, header.stringsBytes],
    ...(structureBytes === null ? [] : [structureBytes]),
  ];
  writer.words(0, words);
  writer.reservations(header.reservationsAt, reservations);
  // Blocks of a hostile blob may overlap: strings come first, so that tokens stay readable.
  bytes.set(strings, header.stringsAt);
  writer.node(root);
  writer.words(endAt, [Token.END]);
  return bytes;
}

/** How a new blob is laid out. */
export interface FlattenOptions {
  /** @default 17 */
  readonly version?: FdtVersion;
}

/** Writes a tree as a new blob. */
export function flatten(tree: DevicetreeParts, { version = 17 }: FlattenOptions = {}): Uint8Array {
  const table = new StringTable();
  const reservationsAt = 40;
  const structureAt = reservationsAt + 16 * (tree.reservations.length + 1);
  const { node: root, next } = place(tree.root, structureAt, table);
  const stringsAt = next + 4;
  const strings = table.bytes();
  const bytes = stringsAt + strings.length;
  return putBlob({
    ...tree,
    root,
    strings,
    endAt: next,
    bytes,
    kept: [],
    header: {
      totalBytes: bytes,
      structureAt,
      stringsAt,
      reservationsAt,
      version,
      lastCompatibleVersion: 16,
      bootCpu: tree.bootCpu,
      stringsBytes: strings.length,
      structureBytes: HEADER_BYTES[version] === 40 ? stringsAt - structureAt : null,
    },
  });
}

/** Gives every token its place, from `at` on. @returns the node, and where the next token stands */
function place(node: DtNode, at: number, table: StringTable): { node: DtNode; next: number } {
  let next = at + 4 + aligned(node.name.length + 1);
  const properties = node.properties.map((one): DtProperty => {
    const placed = { ...one, at: next, nameAt: table.add(one.name) };
    next += 12 + aligned(one.value.length);
    return placed;
  });
  const children: DtNode[] = [];
  for (const child of node.children) {
    const placed = place(child, next, table);
    children.push(placed.node);
    next = placed.next;
  }
  return { node: { ...node, properties, children, at, endAt: next }, next: next + 4 };
}

/** Ends of names that are remembered; no real tree has as many. */
const TAILS_MAX = 2 ** 20;

/** Names in order of first use; the end of one can serve as another, as dtc has it. */
class StringTable {
  readonly #places = new Map<string, number>();
  readonly #texts: string[] = [];
  #bytes = 0;

  add(name: string): number {
    const known = this.#places.get(name);
    if (known !== undefined) return known;
    const at = this.#bytes;
    const tails = this.#places.size < TAILS_MAX ? name.length : 1;
    for (let skip = 0; skip < tails; skip += 1) {
      const tail = name.slice(skip);
      if (!this.#places.has(tail)) this.#places.set(tail, at + skip);
    }
    if (!this.#places.has("")) this.#places.set("", at + name.length);
    this.#texts.push(`${name}\0`);
    this.#bytes += name.length + 1;
    return at;
  }

  bytes(): Uint8Array {
    return Uint8Array.from(this.#texts.join(""), (one) => one.charCodeAt(0));
  }
}

class BlobWriter {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer);
  }

  words(at: number, words: readonly number[]): void {
    for (const [index, word] of words.entries()) this.#view.setUint32(at + 4 * index, word);
  }

  reservations(at: number, list: readonly DtReservation[]): void {
    for (const [index, one] of list.entries()) {
      this.#view.setBigUint64(at + 16 * index, one.address);
      this.#view.setBigUint64(at + 16 * index + 8, one.bytes);
    }
    this.#bytes.fill(0, at + 16 * list.length, at + 16 * list.length + 16);
  }

  node({ name, properties, children, at, endAt }: DtNode): void {
    assert(at >= 0 && endAt > at, "every token has a place");
    this.words(at, [Token.BEGIN_NODE]);
    this.#text(at + 4, name);
    for (const { at: token, nameAt, value } of properties) {
      this.words(token, [Token.PROP, value.length, nameAt]);
      this.#bytes.set(value, token + 12);
    }
    for (const child of children) this.node(child);
    this.words(endAt, [Token.END_NODE]);
  }

  #text(at: number, text: string): void {
    for (let index = 0; index < text.length; index += 1) {
      this.#bytes[at + index] = text.charCodeAt(index);
    }
    this.#bytes[at + text.length] = 0;
  }
}

function aligned(bytes: number): number {
  return (bytes + 3) & ~3;
}
