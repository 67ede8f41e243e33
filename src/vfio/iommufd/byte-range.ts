/**
 * Ranges of bytes in a 64-bit space as frames and offsets: an IOAS without a page table takes
 * mappings of any alignment, so frames alone do not do.
 */
import { addressOf, offsetOf, pfnOf } from "../../units.ts";

/** Bytes from start to last, both inclusive. */
export interface ByteRange {
  readonly startPfn: number;
  readonly startOffset: number;
  readonly lastPfn: number;
  readonly lastOffset: number;
}

/** The range from `start` on; null when it leaves the 64-bit space. @param length - at least 1 */
export function byteRange(start: bigint, length: bigint): ByteRange | null {
  const startPfn = pfnOf(start);
  const startOffset = offsetOf(start);
  const end = startOffset + offsetOf(length) - 1;
  // Of the offsets' sum, −1 … 8189, what belongs to frames is carried over.
  const carry = Math.floor(end / 4096);
  const lastPfn = startPfn + pfnOf(length) + carry;
  if (lastPfn > 2 ** 52 - 1) return null;
  return { startPfn, startOffset, lastPfn, lastOffset: end - carry * 4096 };
}

/** The range between two addresses. */
export function rangeBetween(start: bigint, last: bigint): ByteRange {
  return {
    startPfn: pfnOf(start),
    startOffset: offsetOf(start),
    lastPfn: pfnOf(last),
    lastOffset: offsetOf(last),
  };
}

/** First address of a range. */
export function startOf(range: ByteRange): bigint {
  return addressOf(range.startPfn, range.startOffset);
}

/** Last address of a range. */
export function lastOf(range: ByteRange): bigint {
  return addressOf(range.lastPfn, range.lastOffset);
}

/** Length of a range in bytes. */
export function lengthOf(range: ByteRange): bigint {
  return lastOf(range) - startOf(range) + 1n;
}

/** Whether two ranges share a byte. */
export function overlap(a: ByteRange, b: ByteRange): boolean {
  return (
    isBelow(a.startPfn, a.startOffset, b.lastPfn, b.lastOffset) &&
    isBelow(b.startPfn, b.startOffset, a.lastPfn, a.lastOffset)
  );
}

/** Whether `inner` lies in `outer`. */
export function contains(outer: ByteRange, inner: ByteRange): boolean {
  return (
    isBelow(outer.startPfn, outer.startOffset, inner.startPfn, inner.startOffset) &&
    isBelow(inner.lastPfn, inner.lastOffset, outer.lastPfn, outer.lastOffset)
  );
}

/** Whether one address is at or below another. */
export function isBelow(pfn: number, offset: number, otherPfn: number, otherOffset: number) {
  return pfn < otherPfn || (pfn === otherPfn && offset <= otherOffset);
}
