/**
 * What a policy's run needs of a DMA stack: buffers mapped and unmapped as drivers do, timers run,
 * counters read. Frames are 4 KiB; an IOVA of −1 means that there was none.
 */
import type { FlushCounts, InvalidationCounts, TableCounts } from "./result.ts";

/** A stack under one policy: DMA API, IOVA allocator, flush queue, IOMMU. */
export interface PolicyStack {
  /** Maps a buffer of one piece. @returns its first frame, or −1 */
  map(physPfn: number, pages: number, cpu: number): number;
  /** Takes address space for a buffer of several pieces. @returns its first frame, or −1 */
  begin(pages: number, cpu: number): number;
  /** Maps one piece at a frame of that space, without waiting. @returns false when it failed */
  link(iovaPfn: number, physPfn: number, pages: number): boolean;
  /** Waits until the pieces mapped in a space are visible. @returns false when it failed */
  commit(iovaPfn: number, pages: number): boolean;
  /** Unmaps a buffer and gives its space back, at once or by the flush queue. */
  unmap(iovaPfn: number, pages: number, cpu: number): void;
  /** Unmaps one piece at once and keeps the space. */
  unlink(iovaPfn: number, pages: number): void;
  /** Gives space back in which nothing is mapped. */
  release(iovaPfn: number, pages: number, cpu: number): void;
  /** When a timer expires next; infinity while none is armed. */
  readonly dueNs: number;
  /** Tells the time, and runs the timers that have expired by then. */
  advance(nowNs: number): void;
  /** UNMAP requests, or stale IOTLB entries, have not yet been dealt with by the device. */
  readonly hasReach: boolean;
  /** MAP and UNMAP commands to the IOMMU so far. */
  mapCommands(): number;
  unmapCommands(): number;
  /** Most frames below 4 GiB that were live, cached or queued at once. */
  below4GiBPeakPages(): number;
  flushCounts(): FlushCounts | null;
  invalidationCounts(): InvalidationCounts | null;
  tableCounts(): TableCounts | null;
}
