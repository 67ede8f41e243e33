/**
 * Coherent memory: pages of mixed sizes under one IOVA where the caller may wait, one contiguous
 * piece where it may not.
 *
 * Source: drivers/iommu/dma-iommu.c: iommu_dma_alloc, __iommu_dma_alloc_noncontiguous,
 * __iommu_dma_alloc_pages, iommu_dma_free; kernel/dma/direct.c:dma_direct_alloc.
 */
import { Errno } from "../errno.ts";
import type { PhysicalRun } from "../iommu/domain.ts";
import { alignUp, log2Ceil, log2Floor, PAGE_BYTES, PAGE_SHIFT } from "../units.ts";
import { DmaAttr, DmaDirection, protOf } from "./direction.ts";
import { DMA_ERROR, type DmaDevice } from "./dma-device.ts";
import { NO_IOVA } from "./iova-tree.ts";

/** Memory near a device. */
export interface CoherentMemory {
  /** log2 of the frames of the largest block that can be had. */
  readonly orderMax: number;
  /** Takes 2^order zeroed frames, aligned to their size. @returns the first one, or −1 */
  allocate(order: number): number;
  /** Gives a block back by its first frame. */
  free(pfn: number): void;
}

/** Memory that a device and the CPU share for long. */
export interface CoherentBuffer {
  /** First frame that the device is given. */
  readonly pfn: number;
  readonly bytes: number;
  /** The blocks that it is made of, in order. */
  readonly blocks: readonly PhysicalRun[];
}

/** How an allocation may be made. */
export interface CoherentOptions {
  /** Whether the caller may wait; it may by default. */
  readonly mayBlock?: boolean;
  /** Bits of `DmaAttr`. */
  readonly attrs?: number;
}

/**
 * Takes coherent memory and maps it for reading and writing.
 *
 * @param bytes - at least 1
 * @returns null when memory or IOVA space is short; nothing stays allocated then
 */
export function allocCoherent(
  device: DmaDevice,
  memory: CoherentMemory,
  bytes: number,
  cpu: number,
  nowMs: number,
  options: CoherentOptions = {},
): CoherentBuffer | null {
  const attrs = options.attrs ?? 0;
  const inPieces = (options.mayBlock ?? true) && (attrs & DmaAttr.FORCE_CONTIGUOUS) === 0;
  if (device.dma !== null && inPieces) return allocPieces(device, memory, bytes, cpu, nowMs, attrs);
  const frames = alignUp(Math.ceil(bytes / PAGE_BYTES), device.granuleFrames);
  const order = log2Ceil(frames);
  const pfn = order <= memory.orderMax ? memory.allocate(order) : -1;
  if (pfn < 0) return null;
  const blocks = [{ pfn, pages: 2 ** order }];
  const prot = protOf(DmaDirection.BIDIRECTIONAL, device.coherent, attrs);
  const mask = device.coherentMaskPfn;
  let address = pfn + frames - 1 <= mask ? pfn : DMA_ERROR;
  if (device.dma !== null)
    address = device.mapRange(pfn, 0, frames * PAGE_BYTES, prot, mask, cpu, nowMs);
  if (address === DMA_ERROR) {
    memory.free(pfn);
    return null;
  }
  return { pfn: address, bytes, blocks };
}

/** Unmaps coherent memory and gives it back; in lazy mode that is before the flush. */
export function freeCoherent(
  device: DmaDevice,
  memory: CoherentMemory,
  buffer: CoherentBuffer,
  cpu: number,
  nowMs: number,
): void {
  device.unmapPage(buffer.pfn, 0, buffer.bytes, cpu, nowMs);
  for (const { pfn } of buffer.blocks) memory.free(pfn);
}

function allocPieces(
  device: DmaDevice,
  memory: CoherentMemory,
  bytes: number,
  cpu: number,
  nowMs: number,
  attrs: number,
): CoherentBuffer | null {
  const dma = device.dma!;
  const granule = device.granuleFrames;
  const frames = alignUp(Math.ceil(bytes / PAGE_BYTES), granule);
  const { pageShifts } = dma.domain.driver!;
  const single = (attrs & DmaAttr.ALLOC_SINGLE_PAGES) !== 0;
  const orders = (single ? pageShifts.slice(0, 1) : pageShifts).map((shift) => shift - PAGE_SHIFT);
  const blocks = takeBlocks(memory, frames, orders);
  if (blocks === null) return null;
  const page = device.iova!.alloc(frames / granule, device.coherentMaskPfn, cpu);
  if (page !== NO_IOVA) {
    const prot = protOf(DmaDirection.BIDIRECTIONAL, device.coherent, attrs);
    const pfn = page * granule;
    if (dma.domain.mapRuns(pfn, blocks, prot) === Errno.OK) return { pfn, bytes, blocks };
    dma.freeIova(pfn, frames, cpu, nowMs);
  }
  for (const { pfn } of blocks) memory.free(pfn);
  return null;
}

/**
 * Takes blocks until there are enough frames, each as large as allowed and needed. A size that
 * could not be had once is not tried again.
 *
 * @param orders - log2 of the frames of the allowed sizes, ascending
 * @returns null when not even the smallest size can be had
 */
export function takeBlocks(
  memory: CoherentMemory,
  frames: number,
  orders: readonly number[],
): PhysicalRun[] | null {
  const allowed = orders.filter((order) => order <= memory.orderMax);
  const blocks: PhysicalRun[] = [];
  let left = frames;
  while (left > 0) {
    const orderMax = log2Floor(left);
    while (allowed.length > 0 && allowed.at(-1)! > orderMax) allowed.pop();
    let pfn = -1;
    while (allowed.length > 0 && pfn < 0) {
      pfn = memory.allocate(allowed.at(-1)!);
      if (pfn < 0) allowed.pop();
    }
    if (pfn < 0) {
      for (const block of blocks) memory.free(block.pfn);
      return null;
    }
    const pages = 2 ** allowed.at(-1)!;
    blocks.push({ pfn, pages });
    left -= pages;
  }
  return blocks;
}
