/**
 * Guest-physical memory as a device and a driver see it: regions of bytes, range-checked on every
 * access. An access outside memory is a value (`false` or −1), because the addresses come from a
 * guest that may be hostile.
 *
 * A region is either sparse (chunks appear when they are written, up to a bound; what was never
 * written reads as zero) or backed by a buffer somebody else owns, such as a mapping shared with a
 * virtual machine. Byte addresses are numbers below 2^53; an address above that is not memory.
 * Speed: see bench/virtqueue.bench.ts.
 */
import { assert } from "../errors.ts";
import type { DeviceMemory, SegmentCollector } from "./device-memory.ts";
import {
  CHUNK_BYTES,
  CHUNK_SHIFT,
  GuestRegion,
  type RegionInfo,
  SparseBudget,
  ZEROS,
} from "./guest-region.ts";
import { copyBetween, type MemoryView } from "./memory-view.ts";
import { RegionList } from "./region-list.ts";

export type { RegionInfo };

const SPARSE_BYTES_DEFAULT = 2 ** 30;
/** Views found last are remembered by address bits 16 … 23. */
const RECENT_COUNT = 256;
/** What is remembered, in 32-bit words; the first is address bits 16 … 31, −1 for nothing. */
const Recent = {
  /** Address bits 32 … 63. */
  HIGH: 1,
  /** Bits 0 … 31 of the view's start. */
  START: 2,
  /** Bytes of the view that belong to the region. */
  BYTES: 3,
  WORDS: 4,
} as const;
/** Largest contiguous window: more than the largest part of a virtqueue needs. */
export const WINDOW_BYTES_MAX = 2 ** 24;
const TWO_32 = 2 ** 32;
const ADDRESS_END = 2 ** 53;

/** What became of an {@link GuestMemory.addRegion}. */
export type RegionResult = "added" | "misaligned" | "overlap" | "outside-address-space";

/** The two halves of a 64-bit value. */
export interface Halves {
  low: number;
  high: number;
}

/** A byte address from its halves, or −1 when it is 2^53 or more and so no memory. */
export function addressOfHalves(low: number, high: number): number {
  const top = high >>> 0;
  return top < 0x20_0000 ? top * TWO_32 + (low >>> 0) : -1;
}

/** Guest-physical memory: regions by address. */
export class GuestMemory implements DeviceMemory {
  readonly isTranslated = false;
  /**
   * Changes whenever a {@link MemoryView} handed out before may no longer show memory: holders of
   * one compare it before use and fetch a new view.
   */
  generation = 0;
  /** Offset into the view that {@link locate} returned last. */
  at = 0;
  /**
   * Asked about a byte that is no memory, by who brings memory in when it is missed.
   *
   * @returns whether a region that holds the byte was added
   */
  onMiss: ((address: number) => boolean) | null = null;
  readonly #regions = new RegionList();
  readonly #budget: SparseBudget;
  #last: GuestRegion | null = null;
  readonly #recent = new Int32Array(RECENT_COUNT * Recent.WORDS).fill(-1);
  readonly #recentViews: MemoryView[] = new Array(RECENT_COUNT).fill(ZEROS);

  /**
   * @param sparseBytesMax - bound on what sparse regions may occupy together; writes that would
   *   pass it fail as if outside memory
   */
  constructor(sparseBytesMax = SPARSE_BYTES_DEFAULT) {
    this.#budget = new SparseBudget(sparseBytesMax);
  }

  /** Bytes that sparse chunks occupy. */
  get sparseBytes(): number {
    return this.#budget.bytes;
  }

  /** The regions there are, by address. */
  get regions(): readonly RegionInfo[] {
    return this.#regions.all().map((region) => ({
      start: region.start,
      bytes: region.end - region.start,
      ...(region.backing === null ? {} : { backing: region.backing }),
      ...(region.isReadOnly ? { isReadOnly: true } : {}),
    }));
  }

  /** Adds a region; one that overlaps another, or is misaligned, is refused. */
  addRegion(info: RegionInfo): RegionResult {
    const { start, bytes, backing = null } = info;
    const end = start + bytes;
    if (!Number.isSafeInteger(start) || !Number.isSafeInteger(bytes) || start < 0 || bytes < 8)
      return "outside-address-space";
    if (!Number.isSafeInteger(end)) return "outside-address-space";
    if (start % 8 !== 0 || bytes % 8 !== 0) return "misaligned";
    if (backing !== null) {
      if (backing.byteOffset % 8 !== 0) return "misaligned";
      if (backing.byteOffset + bytes > backing.buffer.byteLength) return "outside-address-space";
    }
    const region = new GuestRegion(info, this.#budget);
    if (!this.#regions.insert(region)) return "overlap";
    this.#changed();
    return "added";
  }

  /** Takes the region that starts at `start` away. @returns false when there is none */
  removeRegion(start: number): boolean {
    const region = this.#regions.remove(start);
    if (region === null) return false;
    region.dispose();
    this.#last = null;
    this.#changed();
    return true;
  }

  /** Whether every byte of `[address, address + length)` is memory; a length of 0 always is. */
  contains(address: number, length: number, forWrite = false): boolean {
    return this.#reaches(address, length, forWrite);
  }

  /**
   * Finds the view that holds `[address, address + length)` in one piece and puts the offset into
   * {@link at}. The view is good until the next call of any method.
   *
   * @param forWrite - allocates a sparse chunk that was never written
   * @returns null when the range is not memory or crosses a chunk: use the copying methods then
   */
  locate(address: number, length: number, forWrite: boolean): MemoryView | null {
    if (!(address >= 0 && address < ADDRESS_END)) return null;
    return this.locateHalves(address >>> 0, Math.floor(address / TWO_32), length, forWrite);
  }

  /** As {@link locate}, for an address as its 32-bit halves: the form it has in a ring. */
  locateHalves(low: number, high: number, length: number, forWrite: boolean): MemoryView | null {
    const recent = this.#recent;
    const page = low >>> CHUNK_SHIFT;
    const slot = page & (RECENT_COUNT - 1);
    const entry = slot * Recent.WORDS;
    if (recent[entry] === page && recent[entry + Recent.HIGH] === (high | 0)) {
      const at = (low - recent[entry + Recent.START]!) | 0;
      if (at >= 0 && at + length <= recent[entry + Recent.BYTES]!) {
        this.at = at;
        return this.#recentViews[slot]!;
      }
    }
    return this.#locateAnew(addressOfHalves(low, high), length, forWrite);
  }

  /**
   * A view of `[address, address + bytes)` in one piece that stays valid while {@link generation}
   * stays. Sparse chunks are allocated and, where needed, joined; that changes the generation.
   *
   * @param bytes - 1 … {@link WINDOW_BYTES_MAX}
   * @returns the view with {@link at} set, or null when the range is not memory of one region
   */
  window(address: number, bytes: number, forWrite = true): MemoryView | null {
    assert(bytes <= WINDOW_BYTES_MAX, "a window is bounded");
    const region = this.#regionOf(address, bytes);
    if (region === null) return null;
    if (region.isReadOnly) return forWrite ? null : this.locate(address, bytes, false);
    if (region.backing === null) {
      const first = Math.floor((address - region.start) / CHUNK_BYTES);
      const last = Math.floor((address + bytes - 1 - region.start) / CHUNK_BYTES);
      const outcome = region.join(first, last);
      if (outcome === "refused") return null;
      if (outcome === "moved") this.#changed();
    }
    return this.locate(address, bytes, true);
  }

  /** Whether the byte lies in a backed region, which others may access at the same time. */
  isShared(address: number): boolean {
    const region = this.#regionAt(address);
    return region !== null && region.backing !== null;
  }

  /** @returns the byte, or −1 outside memory */
  readU8(address: number): number {
    const view = this.locate(address, 1, false);
    return view === null ? -1 : view.u8[this.at]!;
  }

  /** @returns the 16-bit value, or −1 outside memory */
  readU16(address: number): number {
    const view = this.locate(address, 2, false);
    if (view !== null && (this.at & 1) === 0) return view.u16[this.at >> 1]!;
    if (!this.contains(address, 2)) return -1;
    return this.readU8(address) + this.readU8(address + 1) * 256;
  }

  /** @returns the 32-bit value, or −1 outside memory */
  readU32(address: number): number {
    const view = this.locate(address, 4, false);
    if (view !== null && (this.at & 3) === 0) return view.u32[this.at >> 2]!;
    if (!this.contains(address, 4)) return -1;
    return this.readU16(address) + this.readU16(address + 2) * 65_536;
  }

  /** Reads a 64-bit value as halves. @returns false outside memory, `out` is untouched then */
  readU64(address: number, out: Halves): boolean {
    if (!this.contains(address, 8)) return false;
    out.low = this.readU32(address);
    out.high = this.readU32(address + 4);
    return true;
  }

  /** @returns false outside memory */
  writeU8(address: number, value: number): boolean {
    const view = this.locate(address, 1, true);
    if (view === null) return false;
    view.u8[this.at] = value;
    return true;
  }

  /** Writes with one store where the address is even. @returns false outside memory */
  writeU16(address: number, value: number): boolean {
    const view = this.locate(address, 2, true);
    if (view !== null && (this.at & 1) === 0) {
      view.u16[this.at >> 1] = value;
      return true;
    }
    if (!this.#reaches(address, 2, true)) return false;
    return this.writeU8(address, value & 0xff) && this.writeU8(address + 1, (value >>> 8) & 0xff);
  }

  /** Writes with one store where the address is aligned. @returns false outside memory */
  writeU32(address: number, value: number): boolean {
    const view = this.locate(address, 4, true);
    if (view !== null && (this.at & 3) === 0) {
      view.u32[this.at >> 2] = value;
      return true;
    }
    if (!this.#reaches(address, 4, true)) return false;
    return this.writeU16(address, value & 0xffff) && this.writeU16(address + 2, value >>> 16);
  }

  /** Writes a 64-bit value given as halves. @returns false outside memory */
  writeU64(address: number, low: number, high: number): boolean {
    if (!this.#reaches(address, 8, true)) return false;
    return this.writeU32(address, low) && this.writeU32(address + 4, high);
  }

  /**
   * Copies `length` bytes out of memory into `target` from `targetAt` on.
   *
   * @returns false when any byte is outside memory; nothing is copied then
   */
  copyOut(address: number, target: MemoryView, targetAt: number, length: number): boolean {
    assert(targetAt + length <= target.u8.length, "the target holds what is copied");
    const view = this.locate(address, length, false);
    if (view === null) return this.#copyOutPieces(address, target, targetAt, length);
    copyBetween(view, this.at, target, targetAt, length);
    return true;
  }

  /** As {@link copyOut}, for an address as its halves. */
  copyOutHalves(
    low: number,
    high: number,
    target: MemoryView,
    targetAt: number,
    length: number,
  ): boolean {
    const view = this.locateHalves(low, high, length, false);
    if (view === null) return this.copyOut(addressOfHalves(low, high), target, targetAt, length);
    copyBetween(view, this.at, target, targetAt, length);
    return true;
  }

  /**
   * Copies `length` bytes of `source` from `sourceAt` on into memory.
   *
   * @returns false when any byte is outside memory (nothing is copied then), or when sparse memory
   *   is used up (a part may be copied then)
   */
  copyIn(address: number, source: MemoryView, sourceAt: number, length: number): boolean {
    assert(sourceAt + length <= source.u8.length, "the source holds what is copied");
    const view = this.locate(address, length, true);
    if (view === null) return this.#copyInPieces(address, source, sourceAt, length);
    copyBetween(source, sourceAt, view, this.at, length);
    return true;
  }

  /** As {@link copyIn}, for an address as its halves. */
  copyInHalves(
    low: number,
    high: number,
    source: MemoryView,
    sourceAt: number,
    length: number,
  ): boolean {
    const view = this.locateHalves(low, high, length, true);
    if (view === null) return this.copyIn(addressOfHalves(low, high), source, sourceAt, length);
    copyBetween(source, sourceAt, view, this.at, length);
    return true;
  }

  /**
   * Appends the pieces of a range to a list, for a transfer without a copy.
   *
   * @param forWrite - allocates sparse chunks that were never written
   * @returns false when any byte is outside memory, or sparse memory is used up; the list is as it
   *   was then
   */
  collect(
    low: number,
    high: number,
    length: number,
    forWrite: boolean,
    into: SegmentCollector,
  ): boolean {
    const view = this.locateHalves(low, high, length, forWrite);
    if (view !== null) {
      into.add(view, this.at, length);
      return true;
    }
    const address = addressOfHalves(low, high);
    if (!this.#reaches(address, length, forWrite)) return false;
    const before = into.bytes;
    for (let done = 0; done < length; ) {
      const count = this.#pieceAt(address + done, length - done);
      const piece = this.locate(address + done, count, forWrite);
      if (piece === null) {
        into.truncate(before);
        return false;
      }
      into.add(piece, this.at, count);
      done += count;
    }
    return true;
  }

  #copyOutPieces(address: number, target: MemoryView, targetAt: number, length: number): boolean {
    if (!this.contains(address, length)) return false;
    for (let done = 0; done < length; ) {
      const count = this.#pieceAt(address + done, length - done);
      const piece = this.locate(address + done, count, false)!;
      copyBetween(piece, this.at, target, targetAt + done, count);
      done += count;
    }
    return true;
  }

  #copyInPieces(address: number, source: MemoryView, sourceAt: number, length: number): boolean {
    if (!this.#reaches(address, length, true)) return false;
    for (let done = 0; done < length; ) {
      const count = this.#pieceAt(address + done, length - done);
      const piece = this.locate(address + done, count, true);
      if (piece === null) return false;
      copyBetween(source, sourceAt + done, piece, this.at, count);
      done += count;
    }
    return true;
  }

  #changed(): void {
    this.generation += 1;
    this.#recent.fill(-1);
  }

  #locateAnew(address: number, length: number, forWrite: boolean): MemoryView | null {
    const region = this.#regionOf(address, length);
    if (region === null) return null;
    if (forWrite && region.isReadOnly) return null;
    const offset = address - region.start;
    const index = Math.floor(offset / region.stride);
    const chunk = region.viewAt(index, forWrite);
    if (chunk === null) return null;
    const start = region.start + index * region.stride;
    const bytes = Math.min(chunk.u8.length, region.end - start);
    if (address - start + length > bytes) return null;
    this.at = address - start;
    // What is remembered is found again for reading and writing alike.
    if (chunk === ZEROS || region.isReadOnly) return chunk;
    const page = (address >>> 0) >>> CHUNK_SHIFT;
    const slot = page & (RECENT_COUNT - 1);
    const entry = slot * Recent.WORDS;
    this.#recentViews[slot] = chunk;
    this.#recent[entry] = page;
    this.#recent[entry + Recent.HIGH] = Math.floor(address / TWO_32);
    this.#recent[entry + Recent.START] = start >>> 0;
    this.#recent[entry + Recent.BYTES] = bytes;
    return chunk;
  }

  /** Whether every byte of a range is memory, that may be written if that is asked for. */
  #reaches(address: number, length: number, forWrite: boolean): boolean {
    if (length === 0) return true;
    let from = address;
    const end = address + length;
    for (;;) {
      const region = this.#regionAt(from);
      if (region === null || (forWrite && region.isReadOnly)) return false;
      if (region.end >= end) return true;
      from = region.end;
    }
  }

  /** The region that holds the byte, or null. */
  #regionAt(address: number): GuestRegion | null {
    const last = this.#last;
    if (last !== null && address >= last.start && address < last.end) return last;
    let region = this.#regions.find(address);
    if (region === null && this.onMiss?.(address) === true) region = this.#regions.find(address);
    if (region !== null) this.#last = region;
    return region;
  }

  /** The region that holds a whole range, or null. */
  #regionOf(address: number, length: number): GuestRegion | null {
    let region = this.#regionAt(address);
    while (region !== null && address + length > region.end) {
      // What is brought in behind a region may make that longer.
      if (this.onMiss?.(region.end) !== true) return null;
      region = this.#regionAt(address);
    }
    return region;
  }

  /** How many bytes from `address` on, `most` at most, lie in one view. The byte is memory. */
  #pieceAt(address: number, most: number): number {
    const region = this.#regionAt(address)!;
    const offset = address - region.start;
    const index = Math.floor(offset / region.stride);
    return Math.min(most, (index + 1) * region.stride - offset, region.end - address);
  }
}
