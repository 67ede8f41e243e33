/**
 * A decoded description as a tree that covers every byte of it: structures with typed values, and
 * between them names and bytes as they were found, so that nothing is lost on the way back.
 */
import { assert } from "../errors.ts";
import type { Decoded, Fields } from "../wire/layout.ts";
import type { Format, StructureFormat, Values } from "./table-format.ts";

/** A structure; its items lie inside it, in order of position, and leave no byte out. */
export interface Structure {
  readonly kind: "structure";
  readonly format: StructureFormat;
  /** Bytes from the start of the file. */
  readonly at: number;
  readonly length: number;
  readonly values: Values;
  readonly items: readonly Item[];
}

/** Bytes without further meaning: padding, unknown content, what could not be read. */
export interface Bytes {
  readonly kind: "bytes";
  /** What they are: `padding`, `behind the end`, a part's name. */
  readonly name: string;
  readonly at: number;
  readonly length: number;
  readonly bytes: Uint8Array;
}

/** A name that a NUL byte ends, which `length` includes. One character is one byte. */
export interface Text {
  readonly kind: "text";
  readonly name: string;
  readonly at: number;
  readonly length: number;
  readonly text: string;
}

export type Item = Structure | Bytes | Text;

/** A structure of a known format. */
export interface StructureOf<F extends Fields> extends Structure {
  readonly values: Decoded<F>;
}

/** Whether an item is a structure of the given format. */
export function isA<F extends Fields>(
  item: Item,
  format: Format<string, F>,
): item is StructureOf<F> {
  return item.kind === "structure" && item.format === format;
}

/** The items of the given format, in order. */
export function itemsOf<F extends Fields>(
  parent: Structure,
  format: Format<string, F>,
): StructureOf<F>[] {
  return parent.items.filter((item) => isA(item, format)) as StructureOf<F>[];
}

/** The first item that is a name, or null. */
export function textOf(parent: Structure): string | null {
  const found = parent.items.find((item) => item.kind === "text");
  return found === undefined ? null : found.text;
}

/** The bytes called `name`, or null. */
export function bytesNamed(parent: Structure, name: string): Uint8Array | null {
  const found = parent.items.find((item) => item.kind === "bytes" && item.name === name);
  return found?.kind === "bytes" ? found.bytes : null;
}

/**
 * Writes a tree back: every item at its position. The inverse of decoding, byte for byte; lengths,
 * counts and checksums are values like all others and are not made right here.
 */
export function encodeItem(root: Structure): Uint8Array {
  const out = new Uint8Array(endOf(root) - root.at);
  writeItem(root, root.at, new DataView(out.buffer), out);
  return out;
}

/** A table may have bytes behind its end, so the last item can end later than its parent. */
function endOf(root: Structure): number {
  const last = root.items.at(-1);
  return Math.max(root.at + root.length, last === undefined ? 0 : last.at + last.length);
}

function writeItem(item: Item, base: number, view: DataView, out: Uint8Array): void {
  const at = item.at - base;
  switch (item.kind) {
    case "bytes":
      assert(item.bytes.length === item.length, "bytes are as long as they say");
      out.set(item.bytes, at);
      return;
    case "text":
      for (let index = 0; index < item.text.length; index += 1) {
        out[at + index] = item.text.charCodeAt(index);
      }
      return;
    case "structure":
      item.format.layout.encode(item.values, view, at);
      for (const inner of item.items) writeItem(inner, base, view, out);
  }
}
