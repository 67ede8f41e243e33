/**
 * How binary descriptions of hardware are declared: fixed parts as layouts, and behind them packed
 * records, arrays, names and bytes. Encode, decode, dump and documentation come from the same
 * declaration; `table-decode.ts` reads by it.
 */
import { assert } from "../errors.ts";
import { type Decoded, type Field, type Fields, type Layout, layout } from "../wire/layout.ts";

type Extra = Omit<Field, "kind" | "at" | "doc" | "length">;

/** Shorthands that keep a declaration one line a field. */
export const u8 = (at: number, doc: string, more: Extra = {}) =>
  ({ kind: "u8", at, doc, ...more }) as const;
export const u16 = (at: number, doc: string, more: Extra = {}) =>
  ({ kind: "u16", at, doc, ...more }) as const;
export const u32 = (at: number, doc: string, more: Extra = {}) =>
  ({ kind: "u32", at, doc, ...more }) as const;
export const u64 = (at: number, doc: string, more: Extra = {}) =>
  ({ kind: "u64", at, doc, ...more }) as const;
/** An address. */
export const address = (at: number, doc: string) =>
  ({ kind: "u64", at, doc, as: "address" }) as const;
/** A PCI requester id in 16 bits: bus, device, function. */
export const bdf = (at: number, doc: string) => ({ kind: "u16", at, doc, as: "bdf" }) as const;
/** Characters, padded. */
export const characters = (at: number, length: number, doc: string) =>
  ({ kind: "bytes", at, length, doc, as: "text" }) as const;

/** Values of a fixed part by field name, whatever the structure. */
export type Values = Readonly<Record<string, number | bigint | Uint8Array>>;

/** A layout whose fields are not known to the type checker. */
export interface AnyLayout {
  readonly name: string;
  readonly bytes: number;
  readonly fields: Fields;
  decode(view: DataView, at?: number): Values;
  encode(value: Values, view: DataView, at?: number): void;
}

/** A structure: a fixed part and what follows it. */
export interface StructureFormat<Kind extends string = string> {
  readonly kind: Kind;
  /** Its name in the specification. */
  readonly title: string;
  /** Value of its type field, or null where it is known by its place. */
  readonly type: number | null;
  readonly layout: AnyLayout;
  /** Claimed in this order; what nothing claims is kept as bytes. */
  readonly parts: readonly PartFormat[];
}

/** A structure whose fields are known to the type checker. */
export interface Format<Kind extends string, F extends Fields> extends StructureFormat<Kind> {
  readonly layout: Layout<F>;
}

/** Values of a structure's fixed part. */
export type ValuesOf<Form> =
  Form extends Format<string, infer F extends Fields> ? Decoded<F> : Values;

/** A position or a count: a number, or the field that holds it. Positions count from the start. */
export type Place = number | string;

/** What a structure holds beyond its fixed part. */
export type PartFormat =
  | {
      readonly part: "array";
      readonly of: StructureFormat;
      readonly at: Place;
      /** `rest`: as many as fit. */
      readonly count: Place | "rest";
      /** Only in structures whose field has at least this value. */
      readonly since?: readonly [field: string, least: number];
      /** Left out without a word where it does not fit or something else lies there. */
      readonly isOptional?: boolean;
    }
  | { readonly part: "records"; readonly list: RecordList; readonly at: Place }
  | { readonly part: "text"; readonly name: string; readonly at: Place }
  | {
      readonly part: "bytes";
      readonly name: string;
      readonly at: Place;
      readonly length: Place | "rest";
    }
  | { readonly part: "table"; readonly at: Place };

/** Records packed behind one another, each with a type and a length. */
export interface RecordList {
  readonly title: string;
  /** The part that all have; also the form of records whose type is unknown or that are short. */
  readonly head: StructureFormat;
  readonly formats: readonly StructureFormat[];
  typeOf(view: DataView, at: number): number;
  /** Bytes of the record, or 0 when that cannot be known. `end` is where the list ends. */
  lengthOf(view: DataView, at: number, end: number): number;
}

/** Declares a structure. @param type - value of its type field, or null */
export function structure<const Kind extends string, const F extends Fields>(
  kind: Kind,
  type: number | null,
  title: string,
  bytes: number,
  fields: F,
  parts: readonly PartFormat[] = [],
): Format<Kind, F> {
  return { kind, type, title, layout: layout(kind, bytes, fields), parts };
}

/** Declares packed records whose head has the fields `type` and `length`. */
export function records<F extends Fields>(
  title: string,
  head: Format<string, F>,
  formats: readonly StructureFormat[],
): RecordList {
  const type = readerOf(head.layout.fields.type);
  const length = readerOf(head.layout.fields.length);
  for (const format of formats) assert(format.type !== null, `${format.kind} has a type`);
  return { title, head, formats, typeOf: type, lengthOf: length };
}

function readerOf(field: Field | undefined): (view: DataView, at: number) => number {
  assert(field !== undefined, "the head of a record has a type and a length");
  const position = field.at;
  if (field.kind === "u8") return (view, at) => view.getUint8(at + position);
  if (field.kind === "u16") return (view, at) => view.getUint16(at + position, true);
  assert(field.kind === "u32", "types and lengths are numbers");
  return (view, at) => view.getUint32(at + position, true);
}
