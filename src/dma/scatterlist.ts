/**
 * Scatterlists: how segments are laid out in one block of IOVA space, and which of them come out as
 * one.
 *
 * Source: drivers/iommu/dma-iommu.c: iommu_dma_map_sg, __finalise_sg; drivers/pci/p2pdma.c.
 */
import { assert } from "../errors.ts";
import type { PhysicalRun } from "../iommu/domain.ts";
import { PAGE_BYTES } from "../units.ts";

/** How a device reaches the memory of another PCI device. */
export type PeerRoute =
  /** Directly, by its address on the bus; no IOVA is needed. */
  | { readonly kind: "bus"; readonly pfn: number }
  /** Through the host bridge, as any memory. */
  | { readonly kind: "host-bridge" }
  /** Not at all. */
  | { readonly kind: "none" };

/** A stretch of physically contiguous memory: first frame, bytes into it, length in bytes. */
export interface ScatterSegment {
  readonly pfn: number;
  readonly offset: number;
  readonly bytes: number;
  /** Set for memory of another PCI device. */
  readonly peer?: PeerRoute;
}

/** What a device is given: an address as frame and offset, and a length in bytes. */
export interface DmaSegment {
  readonly pfn: number;
  readonly offset: number;
  bytes: number;
  /** An address on the PCI bus instead of an IOVA. */
  readonly isBus: boolean;
}

/** A list of segments and, once it is mapped, what the device is given. */
export class ScatterList {
  readonly segments: readonly ScatterSegment[];
  readonly mapped: DmaSegment[] = [];
  /** Whether each segment was mapped by itself, through bounce buffers where needed. */
  isBounced = false;

  /** @param segments - each of 1 … 2^32 − 1 bytes and with an offset below 4096 */
  constructor(segments: readonly ScatterSegment[]) {
    for (const { offset, bytes } of segments) {
      assert(offset >= 0 && offset < PAGE_BYTES, "an offset lies in its frame");
      assert(bytes >= 1 && bytes < 2 ** 32, "a segment has a length of 32 bits");
    }
    this.segments = segments;
  }
}

/** A device's rules for scatterlists. */
export interface SegmentRules {
  /** Bytes of a block that no segment may reach beyond, a power of two; 2^64 for no limit. */
  readonly boundaryBytes: number;
  /** Bytes of the longest segment that the device can take. */
  readonly maxBytes: number;
}

/** Where segments lie in their block of IOVA space. */
export interface ScatterLayout {
  /** Bytes of IOVA space in all, whole granules; 0 when no segment needs any. */
  readonly totalBytes: number;
  /** Bytes that each segment takes, whole granules and padding included; 0 for bus addresses. */
  readonly spans: readonly number[];
  /** What is mapped side by side; a run without pages keeps its neighbours apart. */
  readonly runs: readonly PhysicalRun[];
}

/**
 * Lays a list out in one block. A segment that would reach beyond a boundary starts at it: the gap
 * is added to the segment before. The block's own alignment makes offsets in it as good as
 * addresses.
 *
 * @returns null when a segment cannot be reached by the device (EREMOTEIO)
 */
export function layOut(
  segments: readonly ScatterSegment[],
  granuleBytes: number,
  boundaryBytes: number,
): ScatterLayout | null {
  const spans: number[] = [];
  const runs: { pfn: number; pages: number }[] = [];
  const granuleFrames = granuleBytes / PAGE_BYTES;
  let totalBytes = 0;
  let previous = -1;
  for (const [index, { pfn, offset, bytes, peer }] of segments.entries()) {
    if (peer?.kind === "none") return null;
    if (peer?.kind === "bus") {
      spans.push(0);
      runs.push({ pfn: -1, pages: 0 });
      continue;
    }
    const inGranule = (pfn % granuleFrames) * PAGE_BYTES + offset;
    const span = Math.ceil((inGranule + bytes) / granuleBytes) * granuleBytes;
    const past = totalBytes % boundaryBytes;
    const pad = past === 0 ? 0 : boundaryBytes - past;
    if (pad > 0 && pad < span - 1) {
      spans[previous]! += pad;
      runs[previous]!.pages += pad / PAGE_BYTES;
      totalBytes += pad;
    }
    spans.push(span);
    runs.push({ pfn: pfn - (pfn % granuleFrames), pages: span / PAGE_BYTES });
    totalBytes += span;
    previous = index;
  }
  return { totalBytes, spans, runs };
}

/**
 * Fills in what the device is given: one output for several segments where they follow each other
 * without a gap, do not meet at a boundary, and are not too long together.
 *
 * @param startFrame - first frame of the block
 */
export function finalise(
  list: ScatterList,
  startFrame: number,
  spans: readonly number[],
  granuleBytes: number,
  rules: SegmentRules,
): void {
  const granuleFrames = granuleBytes / PAGE_BYTES;
  const boundaryFrames = Math.max(1, rules.boundaryBytes / PAGE_BYTES);
  let frame = startFrame;
  let current: DmaSegment | null = null;
  list.mapped.length = 0;
  for (const [index, { pfn, offset, bytes, peer }] of list.segments.entries()) {
    if (peer?.kind === "bus") {
      list.mapped.push({ pfn: peer.pfn, offset, bytes, isBus: true });
      current = null;
      continue;
    }
    const inGranule = (pfn % granuleFrames) * PAGE_BYTES + offset;
    // Unsigned, as in C: an output that is too long already takes whatever follows.
    const left: number = current === null ? 0 : (rules.maxBytes - current.bytes) >>> 0;
    if (current !== null && inGranule === 0 && frame % boundaryFrames !== 0 && left >= bytes) {
      current.bytes += bytes;
    } else {
      current = { pfn: frame + (pfn % granuleFrames), offset, bytes, isBus: false };
      list.mapped.push(current);
    }
    const span = spans[index]!;
    frame += span / PAGE_BYTES;
    if (inGranule + bytes < span) current = null;
  }
}
