/**
 * The IOVA-based DMA API: one range is taken, physical segments are linked into it one by one, one
 * sync makes them visible, and one unmap ends it.
 *
 * Source: drivers/iommu/dma-iommu.c: dma_iova_try_alloc, dma_iova_free, dma_iova_link,
 * dma_iova_sync, dma_iova_unlink, dma_iova_destroy, __iommu_dma_iova_unlink. Positions count bytes
 * from the start of the range. Segments that need bouncing are refused here.
 */
import { Errno } from "../errno.ts";
import { PAGE_BYTES } from "../units.ts";
import { DmaAttr, type DmaDirection, protOf } from "./direction.ts";
import type { DmaDevice } from "./dma-device.ts";
import type { DmaDomain } from "./dma-domain.ts";
import { NO_IOVA } from "./iova-tree.ts";

/** A range of IOVA space that segments are linked into. */
export class DmaIovaRange {
  readonly #device: DmaDevice;
  readonly #dma: DmaDomain;
  /** First frame of the first granule. */
  readonly #startFrame: number;
  /** Bytes between the start of the first granule and the range. */
  readonly #pad: number;
  /** Length in bytes. */
  readonly bytes: number;

  private constructor(
    device: DmaDevice,
    dma: DmaDomain,
    startFrame: number,
    pad: number,
    bytes: number,
  ) {
    this.#device = device;
    this.#dma = dma;
    this.#startFrame = startFrame;
    this.#pad = pad;
    this.bytes = bytes;
  }

  /**
   * Takes a range.
   *
   * @param physPfn - first frame of the memory that will be linked first
   * @param offset - bytes into that frame
   * @param bytes - length of the whole range
   * @returns null when there is no IOMMU, no space, or a length that is none
   */
  static tryAlloc(
    device: DmaDevice,
    physPfn: number,
    offset: number,
    bytes: number,
    cpu: number,
  ): DmaIovaRange | null {
    const { dma, iova, granuleFrames } = device;
    if (dma === null || iova === null) return null;
    if (!Number.isSafeInteger(bytes) || bytes <= 0) return null;
    const frames = device.framesOf(physPfn, offset, bytes);
    const page = iova.alloc(frames / granuleFrames, device.maskPfn, cpu);
    if (page === NO_IOVA) return null;
    const pad = (physPfn % granuleFrames) * PAGE_BYTES + offset;
    return new DmaIovaRange(device, dma, page * granuleFrames, pad, bytes);
  }

  /** First frame of the address that the device is given. */
  get pfn(): number {
    return this.#startFrame + Math.floor(this.#pad / PAGE_BYTES);
  }

  /** Bytes of that address into its frame. */
  get offset(): number {
    return this.#pad % PAGE_BYTES;
  }

  /**
   * Maps a segment at a position, without making it visible.
   *
   * @returns an errno, 0 on success: EIO (only the first segment may start inside a granule), EPERM
   *   (the segment would have to be bounced), EINVAL, or what the domain's map gives
   */
  link(
    at: number,
    physPfn: number,
    offset: number,
    bytes: number,
    direction: DmaDirection,
    attrs = 0,
  ): number {
    const device = this.#device;
    const inGranule = (physPfn % device.granuleFrames) * PAGE_BYTES + offset;
    if (inGranule > 0 && at > 0) return Errno.EIO;
    const aligned = attrs & ~DmaAttr.MMIO;
    if (device.needsBounce(physPfn, offset, bytes, direction, aligned)) return Errno.EPERM;
    const position = this.#pad + at - inGranule;
    if (position % PAGE_BYTES !== 0) return Errno.EINVAL;
    return this.#dma.domain.mapNoSync(
      this.#startFrame + position / PAGE_BYTES,
      physPfn - (physPfn % device.granuleFrames),
      device.framesOf(physPfn, offset, bytes),
      protOf(direction, device.coherent, attrs),
    );
  }

  /** Makes what was linked visible to the device. @returns an errno, 0 on success */
  sync(at: number, bytes: number): number {
    return this.#dma.domain.syncMap(this.#frameAt(at), this.#framesAt(at, bytes));
  }

  /** Unmaps part of the range and waits for the invalidation, also in lazy mode. */
  unlink(at: number, bytes: number): void {
    this.#dma.unmapOnly(this.#frameAt(at), this.#framesAt(at, bytes));
  }

  /**
   * Ends the range: unmaps what was mapped from its start on and gives the IOVA back, through the
   * flush queue in lazy mode. As in Linux the IOVA is freed with the mapped length: a range that
   * was mapped in part goes to the cache of the smaller size.
   */
  destroy(mappedBytes: number, cpu: number, nowMs: number): void {
    if (mappedBytes === 0) {
      this.free(cpu, nowMs);
      return;
    }
    this.#dma.unmapAndFree(this.#startFrame, this.#framesAt(0, mappedBytes), cpu, nowMs);
  }

  /** Gives a range back that nothing was linked into, or all was unlinked from. */
  free(cpu: number, nowMs: number): void {
    this.#dma.freeIova(this.#startFrame, this.#framesAt(0, this.bytes), cpu, nowMs);
  }

  #granuleOf(at: number): number {
    return Math.floor((this.#pad + at) / (this.#device.granuleFrames * PAGE_BYTES));
  }

  #frameAt(at: number): number {
    return this.#startFrame + this.#granuleOf(at) * this.#device.granuleFrames;
  }

  #framesAt(at: number, bytes: number): number {
    const granule = this.#device.granuleFrames;
    const end = Math.ceil((this.#pad + at + bytes) / (granule * PAGE_BYTES));
    return (end - this.#granuleOf(at)) * granule;
  }
}
