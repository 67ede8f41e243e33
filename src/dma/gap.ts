/**
 * Arithmetic of free gaps: which size-aligned ranges a gap can hold, as one number.
 *
 * A start must be a multiple of the size rounded up to a power of two. Every size up to the largest
 * that fits then fits too, so that largest size, the gap's room, answers every question:
 *
 *   gap [start, end)   block = largest power of two with an aligned block in the gap
 *                      room  = max(block, end − (start rounded up to 2 × block))
 *
 * A size above twice the block would need an aligned block larger than the largest there is.
 * Source for the alignment: drivers/iommu/iova.c:__alloc_and_insert_iova_range, size_aligned.
 */
import { alignUp, log2Ceil, log2Floor } from "../units.ts";

const powersOfTwo = Float64Array.from({ length: 54 }, (_, order) => 2 ** order);

/** A size (1 … 2^53) rounded up to a power of two, which a size-aligned start is a multiple of. */
export function alignmentOf(pages: number): number {
  return powersOfTwo[log2Ceil(pages)]!;
}

/** The largest size that the gap [start, end) holds at a start aligned to the size; 0 for none. */
export function roomOf(start: number, end: number): number {
  const length = end - start;
  if (length <= 0) return 0;
  let block = powersOfTwo[log2Floor(length)]!;
  if (alignUp(start, block) + block > end) block /= 2;
  const tail = end - alignUp(start, block * 2);
  return Math.max(tail, block);
}
