/**
 * Addresses, page-frame arithmetic and sizes: how this stack represents a 64-bit space exactly.
 *
 * An address is a page-frame number (PFN) of 4 KiB pages, a `number` exact to 2^52, plus an offset
 * below 4096. `bigint` stands only at the public edge. Ranges are inclusive at both ends
 * (`start`, `last`), because the top of a 64-bit space has no exclusive end; counts are counts.
 *
 * PFNs pass 2^32, so none of JavaScript's 32-bit operators may touch them: the helpers here use
 * division by powers of two, which doubles perform exactly.
 */
import { assert } from "./errors.ts";

declare const brand: unique symbol;
type Brand<T, Name extends string> = T & { readonly [brand]: Name };

/** I/O virtual address in bytes, 0 … 2^64 − 1. */
export type Iova = Brand<bigint, "Iova">;
/** Guest-physical address in bytes, 0 … 2^64 − 1. */
export type Gpa = Brand<bigint, "Gpa">;
/** Host-physical address in bytes, 0 … 2^64 − 1. */
export type Hpa = Brand<bigint, "Hpa">;

/** log2 of the size of a page frame in bytes. */
export const PAGE_SHIFT = 12;
/** Size of a page frame in bytes. */
export const PAGE_BYTES = 4096;
/** Number of the last page frame of a 64-bit space: 2^52 − 1. */
export const PFN_LAST = 2 ** 52 - 1;
/** Number of the last page frame below 4 GiB. */
export const PFN_LAST_32BIT = 0xf_ffff;
/** Last address of a 64-bit space. */
export const ADDRESS_LAST = 0xffff_ffff_ffff_ffffn;

const TWO_32 = 2 ** 32;

const powersOfTwo = Float64Array.from({ length: 64 }, (_, exponent) => 2 ** exponent);

/**
 * 2^exponent by table: the operator `**` with a variable costs some 50 ns.
 *
 * @param exponent - 0 … 63
 */
export function powerOfTwo(exponent: number): number {
  return powersOfTwo[exponent]!;
}

/** What is left of `value` (0 … 2^53 − 1) by `count` (a power of two); faster than `%`. */
export function modulo(value: number, count: number): number {
  return value - Math.floor(value / count) * count;
}

/**
 * The frame that an address lies in.
 *
 * @param address - bytes, 0 … 2^64 − 1
 * @throws AssertionError when the address lies outside the 64-bit space
 */
export function pfnOf(address: bigint): number {
  assert(address >= 0n, "an address is not negative");
  assert(address <= ADDRESS_LAST, "an address fits 64 bits");
  return Number(address >> 12n);
}

/** Offset of an address in its page frame, 0 … 4095. */
export function offsetOf(address: bigint): number {
  return Number(address & 0xfffn);
}

/** Address of byte `offset` (0 … 4095) of frame `pfn` (0 … 2^52 − 1). */
export function addressOf(pfn: number, offset = 0): bigint {
  assert(pfn >= 0 && pfn <= PFN_LAST, "a frame number lies in 0 … 2^52 - 1");
  return (BigInt(pfn) << 12n) + BigInt(offset);
}

/** Frame of the address whose 32-bit halves are given, as they stand on the wire. */
export function pfnOfHalves(low: number, high: number): number {
  return (high >>> 0) * 2 ** 20 + (low >>> 12);
}

/** Bits 31 … 0 of the byte address of a frame. */
export function lowHalfOf(pfn: number): number {
  return (pfn << 12) >>> 0;
}

/** Bits 63 … 32 of the byte address of a frame. */
export function highHalfOf(pfn: number): number {
  return Math.floor(pfn / 2 ** 20) >>> 0;
}

/** Number of page frames that `bytes` (a non-negative integer up to 2^53) fill, rounded up. */
export function pagesOf(bytes: number): number {
  return Math.ceil(bytes / PAGE_BYTES);
}

/** The largest multiple of `count` (a power of two) that is at most `value` (0 … 2^53 − 1). */
export function alignDown(value: number, count: number): number {
  return Math.floor(value / count) * count;
}

/** The smallest multiple of `count` (a power of two) that is at least `value` (0 … 2^53 − 1). */
export function alignUp(value: number, count: number): number {
  return Math.ceil(value / count) * count;
}

/** Whether `value` (0 … 2^53 − 1) is a multiple of `count` (a power of two). */
export function isAligned(value: number, count: number): boolean {
  const quotient = value / count;
  return Math.floor(quotient) === quotient;
}

/**
 * log2 of the largest power of two that divides `value`.
 *
 * @param value - 0 … 2^53 − 1
 * @returns 0 … 52, and 53 for 0, which every power of two divides
 */
export function trailingZeros(value: number): number {
  const low = value >>> 0;
  if (low !== 0) return 31 - Math.clz32(low & -low);
  const high = Math.floor(value / TWO_32) >>> 0;
  if (high !== 0) return 63 - Math.clz32(high & -high);
  return 53;
}

/**
 * log2 of a number, rounded down.
 *
 * @param value - 1 … 2^53 − 1
 */
export function log2Floor(value: number): number {
  return value < TWO_32 ? 31 - Math.clz32(value) : 63 - Math.clz32(Math.floor(value / TWO_32));
}

/**
 * log2 of a number, rounded up.
 *
 * @param value - 1 … 2^53 − 1
 */
export function log2Ceil(value: number): number {
  return value <= 1 ? 0 : log2Floor(value - 1) + 1;
}

/** Whether `value` (0 … 2^53 − 1) is a power of two. */
export function isPowerOfTwo(value: number): boolean {
  return value > 0 && powerOfTwo(log2Floor(value)) === value;
}

/** Prints a number or bigint as lower-case hexadecimal with `0x`, padded to `digits`. */
export function hex(value: number | bigint, digits = 0): string {
  return `0x${value.toString(16).padStart(digits, "0")}`;
}

const sizeUnits = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] as const;

/**
 * Prints a size in the largest binary unit that keeps it short.
 *
 * @param bytes - a non-negative integer
 * @example
 * sizeText(4096); // "4KiB"
 * sizeText(1536); // "1.5KiB"
 */
export function sizeText(bytes: number | bigint): string {
  let value = Number(bytes);
  let unit = 0;
  while (value >= 1024 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit += 1;
  }
  const digits = Number.isInteger(value) ? value.toString() : value.toFixed(value < 10 ? 2 : 1);
  return `${digits.replace(/(\.\d*?)0+$/, "$1").replace(/\.$/, "")}${sizeUnits[unit]}`;
}

const unitShift = new Map<string, bigint>([
  ["", 0n],
  ["b", 0n],
  ...["k", "m", "g", "t", "p", "e"].flatMap((letter, index): [string, bigint][] => {
    const shift = BigInt(10 * (index + 1));
    return [
      [letter, shift],
      [`${letter}b`, shift],
      [`${letter}ib`, shift],
    ];
  }),
]);

/**
 * Reads a size or an address: decimal or `0x` hexadecimal, with an optional binary unit
 * (`K`, `KiB`, `kb` all mean 1024; digits may be grouped with `_`).
 *
 * @returns the number of bytes, or `null` when the text is neither or does not fit 64 bits
 * @example
 * parseSize("192GiB"); // 206158430208n
 * parseSize("0xfee0_0000"); // 4276092928n
 */
export function parseSize(text: string): bigint | null {
  const match = /^(0x[0-9a-f][0-9a-f_]*|[0-9][0-9_]*)\s*([a-z]*)$/i.exec(text.trim());
  if (match === null) return null;
  const [, digits = "", unit = ""] = match;
  if (digits.length > 32) return null;
  const isHex = /^0x/i.test(digits);
  const shift = unitShift.get(unit.toLowerCase());
  if (shift === undefined || (isHex && unit !== "")) return null;
  const value = BigInt(digits.replaceAll("_", "")) << shift;
  return value > ADDRESS_LAST ? null : value;
}
