/**
 * What a result's table consists of: columns with a key, a unit and a meaning, grouped in sections.
 * Terminal table, CSV and JSON are all made from these, so that they cannot disagree.
 */
import { assert } from "../errors.ts";
import { sizeText } from "../units.ts";

/** One value of a result. `null` means that the recording cannot tell. */
export type Cell = string | number | boolean | null;

/** What a number counts. `share` is a fraction 0 … 1, `ratio` a plain quotient, `ns` nanoseconds. */
export type Unit = "text" | "count" | "bytes" | "ns" | "ratio" | "share";

/** One property of a row. */
export interface Column<Row> {
  /** Name in JSON and CSV, camelCase, the unit in the name: `heldBytesPeak`. */
  readonly key: string;
  /** Heading in a terminal; a line break may split it. */
  readonly title: string;
  readonly unit: Unit;
  /** One sentence: what the value is. */
  readonly doc: string;
  /** Only in JSON and CSV. */
  readonly isDetail?: true;
  readonly value: (row: Row) => Cell;
}

/** Columns that answer one question together. */
export interface Section<Row> {
  readonly key: string;
  readonly title: string;
  readonly columns: readonly Column<Row>[];
}

/** A printed value, in parts that a table lines up: digits, fraction, unit. */
export interface CellText {
  readonly whole: string;
  readonly fraction: string;
  readonly suffix: string;
}

/** Groups the digits of a non-negative integer by thousands. */
export function countText(value: number): string {
  return Math.round(value)
    .toString()
    .replace(/\B(?=(\d{3})+$)/g, ",");
}

const nsUnits = [
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "us"],
] as const;

/**
 * Prints a duration in the largest unit that keeps it at least 1.
 *
 * @param ns - nanoseconds, not negative
 * @example
 * durationText(12_500_000); // "12.5 ms"
 */
export function durationText(ns: number): string {
  for (const [size, name] of nsUnits) {
    if (ns >= size) return `${shortNumber(ns / size)} ${name}`;
  }
  return `${shortNumber(ns)} ns`;
}

/** Prints with three significant digits, without a fraction from 100 on. */
function shortNumber(value: number): string {
  if (Number.isInteger(value)) return value.toString();
  const digits = value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return value.toFixed(digits).replace(/\.0+$/, "");
}

/** Prints one value for people; for numbers see {@link Unit}. */
export function cellText(value: Cell, unit: Unit): string {
  if (value === null) return "-";
  if (typeof value === "boolean") return value ? "yes" : "no";
  if (typeof value === "string") return value;
  assert(!Number.isNaN(value), "a result is a number or null");
  switch (unit) {
    case "text":
    case "count":
      return countText(value);
    case "bytes":
      return sizeText(Math.round(value)).replace(/([\d.])([A-Z])/, "$1 $2");
    case "ns":
      return durationText(value);
    case "ratio":
      return value >= 1000 ? countText(value) : value.toFixed(2);
    case "share":
      return `${(value * 100).toFixed(1)} %`;
  }
}

/** Splits a printed value where a table lines it up. */
export function cellParts(text: string): CellText {
  const match = /^([\d,]+)(\.\d+)?( .*)?$/.exec(text);
  if (match === null) return { whole: text, fraction: "", suffix: "" };
  return { whole: match[1]!, fraction: match[2] ?? "", suffix: match[3] ?? "" };
}
