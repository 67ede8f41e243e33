/** Writes a table piece by piece: fixed parts by their layouts, lengths and checksum at the end. */
import { assert, StackError } from "../../errors.ts";
import type { Encodable, Fields } from "../../wire/layout.ts";
import type { Format } from "../table-format.ts";
import { HEADER_BYTES, type headerFields, seal, trimmed } from "./header.ts";

/** Who made a table, as its header says. */
export interface TableIds {
  /** At most 6 characters. */
  readonly oemId: string;
  /** At most 8 characters. */
  readonly oemTableId: string;
  readonly oemRevision: number;
  /** At most 4 characters. */
  readonly creatorId: string;
  readonly creatorRevision: number;
}

/** What this project writes when nothing else is asked for. */
export const defaultIds: TableIds = {
  oemId: "IOMMUK",
  oemTableId: "IOMMUKIT",
  oemRevision: 1,
  creatorId: "IKIT",
  creatorRevision: 1,
};

type HeaderName = keyof typeof headerFields;

/** The header's fields as values, to encode a table's fixed part with. */
export function headerValues(signature: string, revision: number, ids: TableIds) {
  return {
    signature: padded(signature, 4, "\0"),
    length: 0,
    revision,
    checksum: 0,
    oemId: padded(ids.oemId, 6, " "),
    oemTableId: padded(ids.oemTableId, 8, " "),
    oemRevision: ids.oemRevision,
    creatorId: padded(ids.creatorId, 4, " "),
    creatorRevision: ids.creatorRevision,
  } satisfies Record<HeaderName, number | Uint8Array>;
}

/** The ids in the header of an existing table. */
export function idsOf(table: Uint8Array): TableIds {
  assert(table.length >= HEADER_BYTES, "a table has a header");
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  return {
    oemId: trimmed(table.subarray(10, 16)),
    oemTableId: trimmed(table.subarray(16, 24)),
    oemRevision: view.getUint32(24, true),
    creatorId: trimmed(table.subarray(28, 32)),
    creatorRevision: view.getUint32(32, true),
  };
}

/** Characters of one byte each in a fixed field. */
export function padded(text: string, length: number, fill: string): Uint8Array {
  if (text.length > length || [...text].some((one) => one.charCodeAt(0) > 0xff)) {
    throw new StackError({
      code: "acpi/id",
      kind: "input",
      message: `"${text}" is not ${length} characters or fewer of one byte each`,
    });
  }
  return Uint8Array.from(text.padEnd(length, fill), (one) => one.charCodeAt(0));
}

/** Limit of a table that this project writes. */
const BYTES_MAX = 4 * 2 ** 20;

/** A table that grows. */
export class TableWriter {
  #bytes = new Uint8Array(4096);
  #view = new DataView(this.#bytes.buffer);
  #length = 0;

  /** Bytes written so far: where the next piece will stand. */
  get length(): number {
    return this.#length;
  }

  /** Appends a structure's fixed part. @returns where it stands */
  put<F extends Fields>(format: Format<string, F>, values: Encodable<F>): number {
    const at = this.#grow(format.layout.bytes);
    format.layout.encode(values, this.#view, at);
    return at;
  }

  /** Appends bytes. @returns where they stand */
  putBytes(bytes: Uint8Array): number {
    const at = this.#grow(bytes.length);
    this.#bytes.set(bytes, at);
    return at;
  }

  /** Appends characters and a NUL, then zeros up to a multiple of `alignment` from `base`. */
  putText(text: string, alignment = 1, base = 0): number {
    const at = this.putBytes(padded(text, text.length, ""));
    this.#grow(1);
    while ((this.#length - base) % alignment !== 0) this.#grow(1);
    return at;
  }

  /** Writes a field of a structure that is already there. */
  patch<F extends Fields, Name extends keyof F & string>(
    format: Format<string, F>,
    at: number,
    name: Name,
    value: number,
  ): void {
    const field = format.layout.fields[name];
    assert(field !== undefined, "the field exists");
    const width = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff, u64: 0, bytes: 0 }[field.kind];
    if (value > width) throw tooMuch(format.title, name, value, width);
    const set = format.layout.set[name] as (view: DataView, at: number, value: number) => void;
    set(this.#view, at, value);
  }

  /** The finished table, with length and checksum set. */
  finish(): Uint8Array {
    return seal(this.#bytes.slice(0, this.#length));
  }

  /** Appends zeros. @returns where they stand */
  #grow(bytes: number): number {
    const at = this.#length;
    this.#length += bytes;
    if (this.#length > BYTES_MAX) throw tooMuch("The table", "length", this.#length, BYTES_MAX);
    if (this.#length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#length, 2 * this.#bytes.length));
      larger.set(this.#bytes);
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    return at;
  }
}

function tooMuch(what: string, name: string, value: number, most: number): StackError {
  return new StackError({
    code: "acpi/too-much",
    kind: "input",
    message: `${what}: ${name} would be ${value}, and holds ${most} at most`,
    hint: "the machine has more than this table can describe; leave some of it out",
  });
}
