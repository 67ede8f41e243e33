/**
 * When a mapping goes through a bounce buffer instead of the memory that was asked for.
 *
 * Source: drivers/iommu/dma-iommu.c: dev_use_swiotlb, dev_use_sg_swiotlb, iova_unaligned,
 * iommu_dma_map_phys, iommu_dma_max_mapping_size; include/linux/dma-map-ops.h:
 * dma_kmalloc_safe, dma_kmalloc_size_aligned.
 */
import { DmaAttr, DmaDirection } from "./direction.ts";

/** What decides about bouncing, of a device and its platform. */
export interface BounceRules {
  /** An external PCI device that must not see what shares a granule with its buffer. */
  readonly untrusted: boolean;
  /** Whether the device's DMA is cache coherent. */
  readonly coherent: boolean;
  /** Whether the kernel has bounce buffers at all: CONFIG_SWIOTLB. */
  readonly swiotlb: boolean;
  /**
   * Bytes of a cache line that a buffer must not share with others; 0 when small allocations are
   * aligned for DMA anyway, as without CONFIG_DMA_BOUNCE_UNALIGNED_KMALLOC.
   */
  readonly cacheLineBytes: number;
}

/** Bounce buffers. */
export interface BouncePool {
  /**
   * Takes a buffer that lies at the same offset in its granule.
   *
   * @returns the buffer's first frame, or −1 when there is none
   */
  take(physPfn: number, offset: number, bytes: number): number;
  /** Gives the buffer in a frame back, if it is one. */
  giveBack(physPfn: number): void;
}

const kmallocSizes = [8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192];

/** Bytes that kmalloc really takes for a request. */
export function kmallocBytes(bytes: number): number {
  for (const size of kmallocSizes) if (bytes <= size) return size;
  return 2 ** Math.ceil(Math.log2(bytes));
}

/**
 * Whether a device needs bouncing for a size and direction, if the buffer is unaligned. For a
 * scatterlist that alone decides: one such segment, and each is mapped by itself.
 */
export function mayBounce(rules: BounceRules, bytes: number, direction: DmaDirection): boolean {
  if (!rules.swiotlb) return false;
  if (rules.untrusted) return true;
  const line = rules.cacheLineBytes;
  if (line === 0 || rules.coherent || direction === DmaDirection.TO_DEVICE) return false;
  const alone = bytes % (2 * line) === 0 || kmallocBytes(bytes) % line === 0;
  return !alone;
}

/**
 * Whether one buffer is bounced.
 *
 * @param offset - of the buffer in its granule, bytes
 * @param granuleBytes - the smallest mapping, bytes
 */
export function needsBounce(
  rules: BounceRules,
  offset: number,
  bytes: number,
  granuleBytes: number,
  direction: DmaDirection,
  attrs: number,
): boolean {
  if ((attrs & DmaAttr.MMIO) !== 0) return false;
  const unaligned = offset % granuleBytes !== 0 || bytes % granuleBytes !== 0;
  return unaligned && mayBounce(rules, bytes, direction);
}
