/**
 * One region of guest memory: sparse chunks that appear when they are written, or a window of a
 * buffer somebody else owns. Either way it is seen through views at multiples of a stride.
 */
import { type MemoryView, newView, viewOf } from "./memory-view.ts";

/** log2 of the size of a sparse chunk. */
export const CHUNK_SHIFT = 16;
/** Size of a sparse chunk. */
export const CHUNK_BYTES = 2 ** CHUNK_SHIFT;
/** Backed regions are seen through views of twice this size that overlap, so none is ever crossed. */
const BACKED_STRIDE = 2 ** 29;

/** A window of a buffer that a region shows. */
export interface RegionBacking {
  readonly buffer: ArrayBufferLike;
  /** A multiple of 8. */
  readonly byteOffset: number;
}

/** Where a region lies and what is behind it. */
export interface RegionInfo {
  /** First guest-physical byte; a multiple of 8. */
  readonly start: number;
  /** A multiple of 8, at least 8. */
  readonly bytes: number;
  /** Memory that exists already; sparse memory when absent. */
  readonly backing?: RegionBacking;
  /** Whether writes are refused, as by a ROM. */
  readonly isReadOnly?: boolean;
}

/** What untouched sparse memory reads as. Never written. */
export const ZEROS: MemoryView = newView(CHUNK_BYTES);

/** What sparse regions occupy together, and may. */
export class SparseBudget {
  bytes = 0;
  readonly bytesMax: number;

  constructor(bytesMax: number) {
    this.bytesMax = bytesMax;
  }

  /** Accounts for `bytes` more. @returns false, and accounts nothing, when they do not fit */
  take(bytes: number): boolean {
    if (this.bytes + bytes > this.bytesMax) return false;
    this.bytes += bytes;
    return true;
  }
}

/** Stands for the views of every region without any. Never written. */
const NO_VIEWS: Map<number, MemoryView> = new Map();

/** A region. */
export class GuestRegion {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  /** Distance of two views' starts. */
  readonly stride: number;
  readonly backing: RegionBacking | null;
  readonly isReadOnly: boolean;
  readonly #budget: SparseBudget;
  /** Views by `floor(offset / stride)`. */
  #views = NO_VIEWS;

  constructor(info: RegionInfo, budget: SparseBudget) {
    const { start, bytes, backing = null, isReadOnly = false } = info;
    this.start = start;
    this.end = start + bytes;
    this.stride = backing === null ? CHUNK_BYTES : BACKED_STRIDE;
    this.backing = backing;
    this.isReadOnly = isReadOnly;
    this.#budget = budget;
  }

  /**
   * The view that starts at `index * stride`; it may be longer than the stride and than the region.
   *
   * @param forWrite - allocates a sparse chunk that was never written, which else reads as zero
   * @returns null when the budget does not allow the chunk
   */
  viewAt(index: number, forWrite: boolean): MemoryView | null {
    let view = this.#views.get(index);
    if (view !== undefined) return view;
    if (this.backing !== null) {
      const from = index * BACKED_STRIDE;
      const bytes = Math.min(2 * BACKED_STRIDE, this.end - this.start - from);
      view = viewOf(this.backing.buffer, this.backing.byteOffset + from, bytes);
      // A view takes more memory than all else of a region; those of small ones are made again.
      if (bytes <= CHUNK_BYTES) return view;
    } else {
      if (!forWrite) return ZEROS;
      if (!this.#budget.take(CHUNK_BYTES)) return null;
      view = newView(CHUNK_BYTES);
    }
    this.#own().set(index, view);
    return view;
  }

  /**
   * Makes sparse chunks `first` to `last` exist, side by side in one buffer.
   *
   * @returns "moved" when views handed out before are void now, "refused" for lack of budget
   */
  join(first: number, last: number): "kept" | "moved" | "refused" {
    const head = this.#views.get(first);
    if (head !== undefined && head.u8.length >= (last - first + 1) * CHUNK_BYTES) return "kept";
    if (first === last) return this.viewAt(first, true) === null ? "refused" : "kept";
    return this.#joinAnew(first, last) ? "moved" : "refused";
  }

  /** Gives the budget back. The region must not be used any more. */
  dispose(): void {
    if (this.backing === null) this.#budget.bytes -= bytesOf(this.#views.values());
    this.#views = NO_VIEWS;
  }

  /** Most of a million regions are never looked at: those have no map of their own. */
  #own(): Map<number, MemoryView> {
    if (this.#views === NO_VIEWS) this.#views = new Map();
    return this.#views;
  }

  #joinAnew(first: number, last: number): boolean {
    // Chunks that were joined before bring their whole buffer along: it stays in one piece.
    let from = first;
    let to = last;
    for (let index = first; index <= last; index += 1) {
      const view = this.#views.get(index);
      if (view === undefined) continue;
      const inBuffer = view.u8.byteOffset / CHUNK_BYTES;
      from = Math.min(from, index - inBuffer);
      to = Math.max(to, index - inBuffer + view.u8.buffer.byteLength / CHUNK_BYTES - 1);
    }
    const old: MemoryView[] = [];
    for (let index = from; index <= to; index += 1) {
      const view = this.#views.get(index);
      if (view !== undefined) old.push(view);
    }
    const bytes = (to - from + 1) * CHUNK_BYTES;
    if (!this.#budget.take(bytes - bytesOf(old))) return false;

    const joined = newView(bytes);
    for (let index = from; index <= to; index += 1) {
      const at = (index - from) * CHUNK_BYTES;
      const view = this.#views.get(index);
      if (view !== undefined) joined.u8.set(view.u8.subarray(0, CHUNK_BYTES), at);
      this.#own().set(index, viewOf(joined.u8.buffer, at, bytes - at));
    }
    return true;
  }
}

/** Bytes of the buffers behind views, each counted once. */
function bytesOf(views: Iterable<MemoryView>): number {
  const buffers = new Set<ArrayBufferLike>();
  for (const view of views) buffers.add(view.u8.buffer);
  let bytes = 0;
  for (const buffer of buffers) bytes += buffer.byteLength;
  return bytes;
}
