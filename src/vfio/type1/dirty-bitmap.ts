/**
 * Which pages of a mapping were written: a bit for each page of the smallest size, of which only
 * the parts with a bit set take memory.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_dma_bitmap_alloc, DIRTY_BITMAP_PAGES_MAX.
 */
import { assert } from "../../errors.ts";

/** Most bits: what a signed 32-bit length reaches. */
export const DIRTY_PAGES_MAX = 2 ** 31 - 1;

/** Bytes of a bitmap as it is given to the user: whole words of 64 bits. */
export function dirtyBytes(bits: number): number {
  return Math.ceil(bits / 64) * 8;
}

const CHUNK_BITS = 2 ** 15;

/** Bits behind the last one: the rest of its word, and the word that the kernel adds for shifting. */
const LEFTOVERS_MAX = 127;
const NO_LEFTOVERS = new Uint8Array(0);

/** The bits. */
export class DirtyBitmap {
  readonly bits: number;
  readonly #chunks = new Map<number, Uint32Array>();
  #isFull = false;
  #leftovers: Uint8Array = NO_LEFTOVERS;
  #nextLeftovers: Uint8Array = NO_LEFTOVERS;

  constructor(bits: number) {
    assert(bits > 0 && bits <= DIRTY_PAGES_MAX, "a bitmap has 1 … 2^31 - 1 bits");
    this.bits = bits;
  }

  /** Sets bits. */
  set(first: number, count: number): void {
    assert(first >= 0 && first + count <= this.bits, "bits set exist");
    if (this.#isFull) return;
    for (let bit = first; bit < first + count; bit += 1) {
      const index = Math.floor(bit / CHUNK_BITS);
      let chunk = this.#chunks.get(index);
      if (chunk === undefined) {
        chunk = new Uint32Array(CHUNK_BITS / 32);
        this.#chunks.set(index, chunk);
      }
      const inChunk = bit % CHUNK_BITS;
      chunk[inChunk >>> 5]! |= 1 << (inChunk & 31);
    }
  }

  /** Sets all bits, at no cost. */
  fill(): void {
    this.#chunks.clear();
    this.#isFull = true;
  }

  /** Whether all bits are set because of {@link fill}. */
  get isFull(): boolean {
    return this.#isFull;
  }

  /** Whether a bit is set. */
  has(bit: number): boolean {
    if (this.#isFull) return true;
    const chunk = this.#chunks.get(Math.floor(bit / CHUNK_BITS));
    if (chunk === undefined) return false;
    const inChunk = bit % CHUNK_BITS;
    return ((chunk[inChunk >>> 5]! >>> (inChunk & 31)) & 1) !== 0;
  }

  /**
   * Whether a bit behind the last one is set, counted from there. The kernel shifts its bitmap to
   * where it belongs in the user's and clears only the pages' own bits afterwards, so the ones that
   * were shifted out stay, and are told the next time (update_user_bitmap, vfio_iova_dirty_bitmap).
   */
  hasLeftover(index: number): boolean {
    return this.#leftovers[index] === 1;
  }

  /**
   * Notes what a shift leaves behind the last bit; it counts from the next {@link clear} on.
   *
   * @param count - leftovers that the shift reached; those behind them stay
   */
  leaveBehind(count: number, isSet: (index: number) => boolean): void {
    const leftovers = new Uint8Array(LEFTOVERS_MAX);
    leftovers.set(this.#leftovers);
    for (let index = 0; index < count; index += 1) leftovers[index] = isSet(index) ? 1 : 0;
    this.#nextLeftovers = leftovers;
  }

  /** Calls `visit` for every bit set from `first` up to, not including, `end`. */
  forEachSet(first: number, end: number, visit: (bit: number) => void): void {
    let bit = Math.max(first, 0);
    const limit = Math.min(end, this.bits);
    while (bit < limit) {
      const index = Math.floor(bit / CHUNK_BITS);
      const chunkEnd = Math.min(limit, (index + 1) * CHUNK_BITS);
      const chunk = this.#chunks.get(index);
      if (this.#isFull) {
        for (let each = bit; each < chunkEnd; each += 1) visit(each);
      } else if (chunk !== undefined) {
        for (let each = bit; each < chunkEnd; each += 1) {
          const inChunk = each - index * CHUNK_BITS;
          if (((chunk[inChunk >>> 5]! >>> (inChunk & 31)) & 1) !== 0) visit(each);
        }
      }
      bit = chunkEnd;
    }
  }

  /** Clears all bits, but not those behind the last one, and gives the memory back. */
  clear(): void {
    this.#leftovers = this.#nextLeftovers;
    this.#chunks.clear();
    this.#isFull = false;
  }
}
