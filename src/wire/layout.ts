/**
 * Binary layouts declared once as data: encode, decode, accessors, checks and documentation come
 * from the same declaration.
 *
 * Fields are little endian. Bytes that no field covers are reserved: `decode` keeps them and
 * `encode` writes them back, so that `encode(decode(x))` equals `x` byte for byte. A declaration
 * whose fields overlap or leave the stated size stops the program at load.
 *
 * `decode` and `encode` check the length first and serve the control plane. Hot paths use the
 * accessors (`get`, `set`, and `pfn`, `pageOffset`, `setAddress` for 64-bit addresses as frame
 * number plus offset): they allocate nothing and leave the length to their caller, whom DataView
 * stops with a RangeError at the worst.
 */
import { AssertionError, assert, StackError } from "../errors.ts";

/**
 * What a field means, for documentation and dumps; encode and decode do not look at it.
 * A part of a flags field is a bit number or an inclusive span of bits, low end first.
 */
export interface Meaning {
  readonly doc: string;
  readonly bits?: Readonly<Record<string, number | readonly [low: number, high: number]>>;
  /** Names of single values, in the specification's words. */
  readonly names?: Readonly<Record<number, string>>;
  /** How the value reads best: an address, a PCI requester ID, characters, a plain count. */
  readonly as?: "address" | "bdf" | "text" | "count";
}

/** One field: what it holds, where it starts, what it means. */
export type Field =
  | (Meaning & { readonly kind: "u8" | "u16" | "u32" | "u64"; readonly at: number })
  | (Meaning & { readonly kind: "bytes"; readonly at: number; readonly length: number });

/** The fields of a layout by name. */
export type Fields = Readonly<Record<string, Field>>;

/** What a field decodes to: u64 to bigint, bytes to a copy, everything smaller to number. */
export type ValueOf<F extends Field> = F extends { kind: "u64" }
  ? bigint
  : F extends { kind: "bytes" }
    ? Uint8Array
    : number;

/** What a layout decodes to; `reserved` is every byte that no field covers, in order, to be read. */
export type Decoded<F extends Fields> = { -readonly [Name in keyof F]: ValueOf<F[Name]> } & {
  reserved: Uint8Array;
};

/** What a layout encodes: reserved bytes left out are zero. */
export type Encodable<F extends Fields> = {
  readonly [Name in keyof F]: ValueOf<F[Name]>;
} & { readonly reserved?: Uint8Array };

type Names<F extends Fields, Kind extends Field["kind"]> = {
  [Name in keyof F]: F[Name]["kind"] extends Kind ? Name : never;
}[keyof F];
type Getters<F extends Fields> = {
  readonly [Name in keyof F]: (view: DataView, at: number) => ValueOf<F[Name]>;
};
type Setters<F extends Fields> = {
  readonly [Name in keyof F]: (view: DataView, at: number, value: ValueOf<F[Name]>) => void;
};
type NumberGetters<F extends Fields> = {
  readonly [Name in Names<F, "u64">]: (view: DataView, at: number) => number;
};
type AddressSetters<F extends Fields> = {
  readonly [Name in Names<F, "u64">]: (
    view: DataView,
    at: number,
    pfn: number,
    offset: number,
  ) => void;
};

/** A declared layout. Every position argument `at` is where the structure starts in the view. */
export interface Layout<F extends Fields> {
  readonly name: string;
  /** Size of the structure in bytes. */
  readonly bytes: number;
  readonly fields: F;
  /** Position of each field in the structure. */
  readonly at: { readonly [Name in keyof F]: number };
  /** Positions of the bytes that no field covers. */
  readonly reservedAt: readonly number[];
  /** Reads one field, without a length check of its own. */
  readonly get: Getters<F>;
  /** Writes one field, without a length or value check of its own. */
  readonly set: Setters<F>;
  /** Reads the 4 KiB frame number of a 64-bit address. */
  readonly pfn: NumberGetters<F>;
  /** Reads bits 11 … 0 of a 64-bit address. */
  readonly pageOffset: NumberGetters<F>;
  /** Writes a 64-bit address as frame number and offset (0 … 4095). */
  readonly setAddress: AddressSetters<F>;
  /**
   * Reads the whole structure.
   *
   * @throws StackError `wire/too-short` when the view ends before the structure does
   */
  decode(view: DataView, at?: number): Decoded<F>;
  /**
   * Writes the whole structure.
   *
   * @throws StackError `wire/too-short` when the view ends before the structure does
   * @throws AssertionError when a value does not fit its field
   */
  encode(value: Encodable<F>, view: DataView, at?: number): void;
  /** Writes the whole structure into fresh bytes. */
  bytesOf(value: Encodable<F>): Uint8Array;
  /** The structure as a Markdown table, reserved bytes included. */
  describe(): string;
}

const sizes = { u8: 1, u16: 2, u32: 4, u64: 8 } as const;
const limits = { u8: 0xff, u16: 0xffff, u32: 0xffff_ffff } as const;

/** Bytes that a field takes. */
export function fieldBytes(field: Field): number {
  return field.kind === "bytes" ? field.length : sizes[field.kind];
}

/** A view over exactly the bytes of an array. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/**
 * Declares a layout.
 *
 * @param name - the structure's name in its specification
 * @param bytes - its size
 * @param fields - its fields, in any order
 * @throws AssertionError when fields overlap or leave the stated size
 * @example
 * const Head = layout("virtio_iommu_req_head", 4, { type: { kind: "u8", at: 0, doc: "what to do" } });
 * Head.decode(new DataView(new Uint8Array([3, 0, 0, 7]).buffer)); // { type: 3, reserved: [0, 0, 7] }
 */
export function layout<const F extends Fields>(name: string, bytes: number, fields: F): Layout<F> {
  const reservedAt = uncovered(name, bytes, fields);
  const entries = Object.entries(fields);
  const get: Record<string, unknown> = {};
  const set: Record<string, unknown> = {};
  const pfn: Record<string, unknown> = {};
  const pageOffset: Record<string, unknown> = {};
  const setAddress: Record<string, unknown> = {};
  for (const [key, field] of entries) {
    [get[key], set[key]] = accessorsOf(field);
    if (field.kind !== "u64") continue;
    [pfn[key], pageOffset[key], setAddress[key]] = addressAccessorsOf(field.at);
  }
  const readers = get as Record<string, (view: DataView, at: number) => unknown>;
  const writers = set as Record<string, (view: DataView, at: number, value: unknown) => void>;
  const zeros = new Uint8Array(reservedAt.length);
  const keys = entries.map(([key]) => key);
  const readersInOrder = keys.map((key) => readers[key]!);
  const writersInOrder = keys.map((key) => writers[key]!);

  function decode(view: DataView, at = 0): Decoded<F> {
    checkLength(name, bytes, view, at);
    const value: Record<string, unknown> = {};
    for (let index = 0; index < keys.length; index += 1) {
      value[keys[index]!] = readersInOrder[index]!(view, at);
    }
    value.reserved = reservedOf(view, at);
    return value as Decoded<F>;
  }

  /** Bytes that are zero, as they nearly always are, share one array: it must not be written. */
  function reservedOf(view: DataView, at: number): Uint8Array {
    for (let index = 0; index < reservedAt.length; index += 1) {
      if (view.getUint8(at + reservedAt[index]!) === 0) continue;
      return Uint8Array.from(reservedAt, (position) => view.getUint8(at + position));
    }
    return zeros;
  }

  function encode(value: Encodable<F>, view: DataView, at = 0): void {
    checkLength(name, bytes, view, at);
    const given = value as Readonly<Record<string, unknown>>;
    // Messages are made only for what does not fit: they would cost more than the writing.
    for (const [key, field] of entries) {
      if (!fits(field, given[key])) refuse(name, key, field, given[key]);
    }
    const reserved = value.reserved;
    if (reserved !== undefined && reserved.length !== reservedAt.length) {
      assert(false, `${name} has ${reservedAt.length} reserved bytes`);
    }
    for (let index = 0; index < keys.length; index += 1) {
      writersInOrder[index]!(view, at, given[keys[index]!]);
    }
    for (let index = 0; index < reservedAt.length; index += 1) {
      view.setUint8(at + reservedAt[index]!, reserved === undefined ? 0 : reserved[index]!);
    }
  }

  return {
    name,
    bytes,
    fields,
    at: Object.fromEntries(entries.map(([key, field]) => [key, field.at])) as Layout<F>["at"],
    reservedAt,
    get: get as Getters<F>,
    set: set as Setters<F>,
    pfn: pfn as NumberGetters<F>,
    pageOffset: pageOffset as NumberGetters<F>,
    setAddress: setAddress as AddressSetters<F>,
    decode,
    encode,
    bytesOf(value) {
      const out = new Uint8Array(bytes);
      encode(value, viewOf(out));
      return out;
    },
    describe: () => describe(name, bytes, fields, reservedAt),
  };
}

/** Checks that fields lie inside and apart, and lists the bytes that none covers. */
function uncovered(name: string, bytes: number, fields: Fields): number[] {
  assert(Number.isInteger(bytes) && bytes > 0, `${name} has a size`);
  const owner: (string | undefined)[] = new Array(bytes).fill(undefined);
  for (const [key, field] of Object.entries(fields)) {
    const length = fieldBytes(field);
    assert(key !== "reserved", `${name}: reserved bytes need no field`);
    assert(Number.isInteger(field.at) && field.at >= 0, `${name}.${key} starts inside`);
    assert(Number.isInteger(length) && length > 0, `${name}.${key} has a length`);
    assert(field.at + length <= bytes, `${name}.${key} ends inside ${bytes} bytes`);
    for (let position = field.at; position < field.at + length; position += 1) {
      assert(owner[position] === undefined, `${name}: ${key} overlaps ${owner[position]}`);
      owner[position] = key;
    }
  }
  return owner.flatMap((key, position) => (key === undefined ? [position] : []));
}

function checkLength(name: string, bytes: number, view: DataView, at: number): void {
  if (at >= 0 && at + bytes <= view.byteLength) return;
  throw new StackError({
    code: "wire/too-short",
    kind: "input",
    message: `${name} needs ${bytes} bytes at ${at}, of which ${Math.max(view.byteLength - at, 0)} exist`,
    hint: "the structure is truncated, or its length field is wrong",
  });
}

function fits(field: Field, value: unknown): boolean {
  switch (field.kind) {
    case "bytes":
      return value instanceof Uint8Array && value.length === field.length;
    case "u64":
      return typeof value === "bigint" && value >= 0n && value <= 0xffff_ffff_ffff_ffffn;
    default:
      return isIntegerUpTo(limits[field.kind], value);
  }
}

function isIntegerUpTo(last: number, value: unknown): boolean {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value <= last;
}

/** Says why a value does not fit its field. */
function refuse(name: string, key: string, field: Field, value: unknown): never {
  const where = `${name}.${key}`;
  const wanted =
    field.kind === "bytes"
      ? `${field.length} bytes`
      : field.kind === "u64"
        ? "a bigint of 64 bits"
        : `an integer of ${field.kind}`;
  const shown = value instanceof Uint8Array ? `${value.length} bytes` : String(value);
  throw new AssertionError(`${where} takes ${wanted}, not ${shown}`);
}

/** Reader and writer of one field. */
function accessorsOf(field: Field): [unknown, unknown] {
  const offset = field.at;
  switch (field.kind) {
    case "u8":
      return [
        (view: DataView, at: number) => view.getUint8(at + offset),
        (view: DataView, at: number, value: number) => view.setUint8(at + offset, value),
      ];
    case "u16":
      return [
        (view: DataView, at: number) => view.getUint16(at + offset, true),
        (view: DataView, at: number, value: number) => view.setUint16(at + offset, value, true),
      ];
    case "u32":
      return [
        (view: DataView, at: number) => view.getUint32(at + offset, true),
        (view: DataView, at: number, value: number) => view.setUint32(at + offset, value, true),
      ];
    case "u64":
      return [
        (view: DataView, at: number) => view.getBigUint64(at + offset, true),
        (view: DataView, at: number, value: bigint) => view.setBigUint64(at + offset, value, true),
      ];
    case "bytes": {
      const length = field.length;
      const windowOf = (view: DataView, at: number): Uint8Array =>
        new Uint8Array(view.buffer, view.byteOffset + at + offset, length);
      return [
        (view: DataView, at: number) => windowOf(view, at).slice(),
        (view: DataView, at: number, value: Uint8Array) => windowOf(view, at).set(value),
      ];
    }
  }
}

/** Frame reader, offset reader and address writer of a 64-bit field. */
function addressAccessorsOf(offset: number): [unknown, unknown, unknown] {
  return [
    (view: DataView, at: number) =>
      view.getUint32(at + offset + 4, true) * 0x10_0000 +
      (view.getUint32(at + offset, true) >>> 12),
    (view: DataView, at: number) => view.getUint16(at + offset, true) & 0xfff,
    (view: DataView, at: number, pfn: number, pageOffset: number) => {
      const high = Math.floor(pfn / 0x10_0000);
      view.setUint32(at + offset, ((pfn - high * 0x10_0000) << 12) | pageOffset, true);
      view.setUint32(at + offset + 4, high, true);
    },
  ];
}

function describe(
  name: string,
  bytes: number,
  fields: Fields,
  reservedAt: readonly number[],
): string {
  const rows = Object.entries(fields).map(([key, field]) => ({
    at: field.at,
    length: fieldBytes(field),
    key,
    kind: field.kind as string,
    doc: field.doc,
  }));
  let gap: (typeof rows)[number] | undefined;
  for (const position of reservedAt) {
    if (gap !== undefined && position === gap.at + gap.length) gap.length += 1;
    else {
      gap = { at: position, length: 1, key: "reserved", kind: "bytes", doc: "kept as found" };
      rows.push(gap);
    }
  }
  rows.sort((a, b) => a.at - b.at);
  return [
    `${name}, ${bytes} bytes, little endian`,
    "",
    "| offset | bytes | field | kind | meaning |",
    "|---|---|---|---|---|",
    ...rows.map((row) => `| ${row.at} | ${row.length} | ${row.key} | ${row.kind} | ${row.doc} |`),
    "",
  ].join("\n");
}
