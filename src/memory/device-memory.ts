/**
 * Bytes as a device's DMA reaches them: guest-physical memory itself, or I/O virtual addresses that
 * an IOMMU translates on the way there (virtio/iommu/translated-memory.ts). A device is written
 * once, against this.
 *
 * Every address comes from a driver that may be hostile, so a refused access is a value. Behind an
 * IOMMU the copying methods, `collect` and `window` have then told the IOMMU, which reports the
 * fault to its own driver; the device fails the request and goes on.
 */
import type { MemoryView } from "./memory-view.ts";

/** A stretch of bytes in one piece. */
export interface Segment {
  readonly view: MemoryView;
  /** Offset of the first byte in the view. */
  readonly at: number;
  readonly bytes: number;
}

/** What a device sees as memory. Addresses and lengths are bytes; `low` and `high` are the halves. */
export interface DeviceMemory {
  /** Whether an IOMMU translates: addresses next to each other need not be neighbours in memory. */
  readonly isTranslated: boolean;
  /** Views of {@link window} are void once this changes. */
  readonly generation: number;
  /** Offset into the view that {@link locate} or {@link window} returned last. */
  readonly at: number;

  /**
   * The view that holds a range in one piece, good until the next call of any method.
   *
   * @returns null when the range is in several pieces, refused, or not known to be neither: copy,
   *   or collect, which find out. Nothing is reported
   */
  locate(address: number, length: number, forWrite: boolean): MemoryView | null;
  /** As {@link locate}, for an address as its halves. */
  locateHalves(low: number, high: number, length: number, forWrite: boolean): MemoryView | null;

  /**
   * A view of a range that stays valid while {@link generation} stays.
   *
   * @param bytes - within one 4 KiB page when the memory is translated
   * @returns null when the range is refused or not in one piece
   */
  window(address: number, bytes: number, forWrite: boolean): MemoryView | null;

  /** Whether a range can be reached; asking reports nothing. A length of 0 always can. */
  contains(address: number, length: number): boolean;

  /** Copies out of memory. @returns false, and nothing is copied, when a byte is refused */
  copyOut(address: number, target: MemoryView, targetAt: number, length: number): boolean;
  /** Copies into memory. @returns false when a byte is refused; nothing is copied then */
  copyIn(address: number, source: MemoryView, sourceAt: number, length: number): boolean;
  /** As {@link copyOut}, for an address as its halves. */
  copyOutHalves(
    low: number,
    high: number,
    target: MemoryView,
    targetAt: number,
    length: number,
  ): boolean;
  /** As {@link copyIn}, for an address as its halves. */
  copyInHalves(
    low: number,
    high: number,
    source: MemoryView,
    sourceAt: number,
    length: number,
  ): boolean;

  /**
   * Appends the pieces of a range to a list, in order, for a transfer without a copy. They are good
   * until the device returns to its caller: no mapping goes away while it is at work.
   *
   * @param forWrite - whether the device will write them
   * @returns false when a byte is refused; the list is as it was then
   */
  collect(
    low: number,
    high: number,
    length: number,
    forWrite: boolean,
    into: SegmentCollector,
  ): boolean;

  /** Whether others may access the byte at the same time, so that indexes need atomic access. */
  isShared(address: number): boolean;
}

interface MutableSegment {
  view: MemoryView;
  at: number;
  bytes: number;
}

/** A list of segments that is filled again and again: its objects are kept and reused. */
export class SegmentCollector {
  /** The segments. Overwritten by the next fill. */
  readonly segments: Segment[] = [];
  /** Sum of their bytes. */
  bytes = 0;
  readonly #pool: MutableSegment[] = [];

  /** Empties the list. */
  clear(): void {
    this.segments.length = 0;
    this.bytes = 0;
  }

  /** Appends a piece; one that follows the last without a gap makes that longer. */
  add(view: MemoryView, at: number, bytes: number): void {
    const count = this.segments.length;
    this.bytes += bytes;
    if (count > 0) {
      const last = this.#pool[count - 1]!;
      if (last.view === view && last.at + last.bytes === at) {
        last.bytes += bytes;
        return;
      }
    }
    let segment = this.#pool[count];
    if (segment === undefined) {
      segment = { view, at, bytes };
      this.#pool.push(segment);
    } else {
      segment.view = view;
      segment.at = at;
      segment.bytes = bytes;
    }
    this.segments.push(segment);
  }

  /** Takes the list back to `bytes` bytes; what was appended since then is forgotten. */
  truncate(bytes: number): void {
    while (this.bytes > bytes) {
      const last = this.#pool[this.segments.length - 1]!;
      const over = this.bytes - bytes;
      if (last.bytes > over) {
        last.bytes -= over;
        this.bytes = bytes;
        return;
      }
      this.bytes -= last.bytes;
      this.segments.length -= 1;
    }
  }
}
