/**
 * A description as a tree to be shown: every field with its offset, value and meaning. What all
 * kinds of description share, so that one report prints them all.
 */
import { ridText } from "../topology/pci-address.ts";
import { hex } from "../units.ts";
import { type Field, fieldBytes } from "../wire/layout.ts";
import type { Item, Structure } from "./table-item.ts";

/** One field. */
export interface DumpField {
  /** Bytes from the start of the file. */
  readonly at: number;
  readonly length: number;
  readonly name: string;
  /** Exact value: a number up to 32 bits, else text: hexadecimal, characters, or bytes. */
  readonly value: number | string;
  /** The value for a reader: flags and values by name. */
  readonly text: string;
  /** What the field means. */
  readonly doc: string;
}

/** A part of a description. */
export interface DumpNode {
  readonly at: number;
  readonly length: number;
  readonly name: string;
  readonly title: string;
  readonly fields: readonly DumpField[];
  readonly items: readonly DumpNode[];
}

/** Bytes of an opaque part that are shown. */
const BYTES_SHOWN = 16;

/** Makes a tree of a decoded structure. */
export function dumpItem(root: Structure): DumpNode {
  return dumpStructure(root);
}

function dumpStructure(structure: Structure): DumpNode {
  const { format, at, length, values } = structure;
  const fields: DumpField[] = [];
  for (const [name, field] of Object.entries(format.layout.fields)) {
    fields.push(dumpField(name, field, at, values[name]!));
  }
  fields.sort((a, b) => a.at - b.at);
  const reserved = values.reserved;
  if (reserved instanceof Uint8Array && reserved.some((byte) => byte !== 0)) {
    fields.push(opaque("reserved", at, reserved, "reserved bytes that are not zero"));
  }
  const items: DumpNode[] = [];
  for (const item of structure.items) {
    if (item.kind === "structure") items.push(dumpStructure(item));
    else fields.push(dumpLeaf(item));
  }
  return { at, length, name: format.kind, title: format.title, fields, items };
}

function dumpLeaf(item: Exclude<Item, Structure>): DumpField {
  if (item.kind === "bytes") return opaque(item.name, item.at, item.bytes, "kept as found");
  const { at, length, name, text } = item;
  return { at, length, name, value: text, text: quoted(text), doc: "ended by NUL" };
}

function opaque(name: string, at: number, bytes: Uint8Array, doc: string): DumpField {
  const value = hexBytes(bytes);
  const shown = hexBytes(bytes.subarray(0, BYTES_SHOWN));
  const text =
    bytes.length > BYTES_SHOWN && bytes.every((byte) => byte === 0)
      ? `${bytes.length} × 00`
      : bytes.length > BYTES_SHOWN
        ? `${shown} … ${bytes.length} bytes`
        : shown;
  return { at, length: bytes.length, name, value, text, doc };
}

function hexBytes(bytes: Uint8Array): string {
  return Array.from(bytes, (byte) => hex(byte, 2).slice(2)).join(" ");
}

/** Characters in quotes; what is no printable one as `\xNN`. */
export function quoted(text: string): string {
  const shown = text.replace(/[^ -~]|["\\]/g, (one) =>
    one === '"' || one === "\\" ? `\\${one}` : `\\x${hex(one.charCodeAt(0), 2).slice(2)}`,
  );
  return `"${shown}"`;
}

function dumpField(
  name: string,
  field: Field,
  base: number,
  value: number | bigint | Uint8Array,
): DumpField {
  const common = { at: base + field.at, length: fieldBytes(field), name, doc: field.doc };
  if (value instanceof Uint8Array) {
    if (field.as !== "text") return { ...opaque(name, common.at, value, field.doc), ...common };
    const text = String.fromCharCode(...value);
    return { ...common, value: text, text: quoted(text) };
  }
  const text = valueText(field, value);
  return { ...common, value: typeof value === "bigint" ? hex(value) : value, text };
}

function valueText(field: Field, value: number | bigint): string {
  if (field.as === "count") return value.toString();
  if (field.as === "bdf") return ridText(Number(value));
  const plain = hex(value, field.as === "address" ? 16 : 0);
  const name = field.names?.[Number(value)];
  if (name !== undefined) return `${value} (${name})`;
  if (field.bits === undefined || value === 0) return plain;
  const parts = bitsText(field.bits, Number(value));
  return parts.length === 0 ? plain : `${plain} (${parts.join(", ")})`;
}

/** Set bits by name; spans of bits with their value. */
function bitsText(bits: NonNullable<Field["bits"]>, value: number): string[] {
  const parts: string[] = [];
  for (const [name, place] of Object.entries(bits)) {
    if (typeof place === "number") {
      if (Math.floor(value / 2 ** place) % 2 === 1) parts.push(name);
      continue;
    }
    const [low, high] = place;
    const part = Math.floor(value / 2 ** low) % 2 ** (high - low + 1);
    if (part !== 0) parts.push(`${name} ${part}`);
  }
  return parts;
}
