/**
 * The DMA API of one device: single buffers and scatterlists, through an IOMMU or directly.
 *
 * Source: drivers/iommu/dma-iommu.c: iommu_dma_map_phys, iommu_dma_unmap_phys, __iommu_dma_map,
 * __iommu_dma_unmap, iommu_dma_map_sg, iommu_dma_unmap_sg, iommu_dma_map_sg_swiotlb,
 * iommu_setup_dma_ops; kernel/dma/direct.h:dma_direct_map_phys. Addresses are frames of 4 KiB with
 * an offset; the offset of an IOVA in its frame is that of the buffer.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { PAGE_BYTES, PFN_LAST } from "../units.ts";
import { type BouncePool, type BounceRules, mayBounce, needsBounce } from "./bounce.ts";
import type { DmaDirection } from "./direction.ts";
import { protOf } from "./direction.ts";
import type { DmaDomain } from "./dma-domain.ts";
import { DeviceIova } from "./iova-limits.ts";
import { NO_IOVA } from "./iova-tree.ts";
import { finalise, layOut, type ScatterList, type SegmentRules } from "./scatterlist.ts";

/** Returned instead of a frame where a mapping cannot be had: DMA_MAPPING_ERROR. */
export const DMA_ERROR = -1;

/** What the DMA API must know of a device. */
export interface DmaDeviceOptions {
  /** Last frame that the device can address; 2^52 − 1 by default. */
  readonly maskPfn?: number;
  /** Last frame for coherent memory; as `maskPfn` by default. */
  readonly coherentMaskPfn?: number;
  /** Last frame below a limit of the bus; no limit by default. */
  readonly busLimitPfn?: number;
  /** A PCI device tries addresses below 4 GiB first, and has a segment boundary of 4 GiB. */
  readonly isPci?: boolean;
  /** iommu.forcedac=1: does not try addresses below 4 GiB first. */
  readonly forceDac?: boolean;
  /** Whether DMA is cache coherent; it is by default. */
  readonly coherent?: boolean;
  readonly segments?: Partial<SegmentRules>;
  readonly bounce?: Partial<BounceRules>;
  readonly bouncePool?: BouncePool;
}

/** A device that maps memory for DMA. */
export class DmaDevice {
  /** Null when DMA goes to physical addresses. */
  readonly dma: DmaDomain | null;
  readonly coherent: boolean;
  readonly maskPfn: number;
  readonly coherentMaskPfn: number;
  readonly iova: DeviceIova | null;
  readonly segments: SegmentRules;
  readonly granuleFrames: number;
  readonly #bounce: BounceRules;
  readonly #bouncePool: BouncePool | null;

  /** @param dma - the device's domain; null for an identity domain or none */
  constructor(dma: DmaDomain | null, options: DmaDeviceOptions = {}) {
    const isPci = options.isPci ?? true;
    this.dma = dma;
    this.coherent = options.coherent ?? true;
    this.maskPfn = options.maskPfn ?? PFN_LAST;
    this.coherentMaskPfn = options.coherentMaskPfn ?? this.maskPfn;
    this.granuleFrames = dma?.granuleFrames ?? 1;
    this.segments = { boundaryBytes: isPci ? 2 ** 32 : 2 ** 64, maxBytes: 65_536 };
    Object.assign(this.segments, options.segments);
    this.#bounce = {
      untrusted: false,
      coherent: this.coherent,
      swiotlb: true,
      cacheLineBytes: 0,
      ...options.bounce,
    };
    this.#bouncePool = options.bouncePool ?? null;
    this.iova = null;
    if (dma === null) return;
    const driver = dma.domain.driver!;
    this.iova = new DeviceIova(dma.iova, {
      try32First: isPci && options.forceDac !== true,
      ...(options.busLimitPfn === undefined ? {} : { busLimitPfn: options.busLimitPfn }),
      ...(driver.forceAperture ? { apertureLastPfn: driver.apertureLastPfn } : {}),
    });
  }

  /**
   * Maps one buffer.
   *
   * @param offset - bytes into the first frame
   * @param attrs - bits of `DmaAttr`
   * @returns the first frame of the IOVA, or {@link DMA_ERROR}
   */
  mapPage(
    physPfn: number,
    offset: number,
    bytes: number,
    direction: DmaDirection,
    cpu: number,
    nowMs: number,
    attrs = 0,
  ): number {
    assert(bytes >= 1, "a mapping has a length");
    const { dma } = this;
    if (dma === null) return this.#mapDirect(physPfn, offset, bytes);
    let pfn = physPfn;
    const bounced = this.needsBounce(physPfn, offset, bytes, direction, attrs);
    if (bounced) {
      pfn = this.#bouncePool?.take(physPfn, offset, bytes) ?? DMA_ERROR;
      if (pfn === DMA_ERROR) return DMA_ERROR;
    }
    const prot = protOf(direction, this.coherent, attrs);
    const iova = this.mapRange(pfn, offset, bytes, prot, this.maskPfn, cpu, nowMs);
    if (iova === DMA_ERROR && bounced) this.#bouncePool?.giveBack(pfn);
    return iova;
  }

  /** Unmaps what {@link mapPage} mapped, with the same offset and length. */
  unmapPage(iovaPfn: number, offset: number, bytes: number, cpu: number, nowMs: number): void {
    const { dma } = this;
    if (dma === null) return;
    const physPfn = this.#bouncePool === null ? -1 : dma.domain.iovaToPhys(iovaPfn);
    const start = iovaPfn - (iovaPfn % this.granuleFrames);
    dma.unmapAndFree(start, this.framesOf(iovaPfn, offset, bytes), cpu, nowMs);
    if (physPfn >= 0) this.#bouncePool?.giveBack(physPfn);
  }

  /**
   * Maps a scatterlist into one block of IOVA space, all or nothing.
   *
   * @returns an errno, 0 on success: ENOMEM (no IOVA), EREMOTEIO (a segment out of reach), EIO
   *   (segment by segment: no bounce buffer, or out of the device's reach), else EINVAL
   */
  mapSg(list: ScatterList, direction: DmaDirection, cpu: number, nowMs: number, attrs = 0): number {
    const { dma, iova } = this;
    list.mapped.length = 0;
    // One segment that must be bounced sends the whole list through single mappings.
    list.isBounced =
      dma !== null && list.segments.some(({ bytes }) => mayBounce(this.#bounce, bytes, direction));
    if (dma === null || iova === null || list.isBounced)
      return this.#mapEach(list, direction, cpu, nowMs, attrs);

    const granuleBytes = this.granuleFrames * PAGE_BYTES;
    const layout = layOut(list.segments, granuleBytes, this.segments.boundaryBytes);
    if (layout === null) return Errno.EREMOTEIO;
    const { totalBytes, spans, runs } = layout;
    let start = 0;
    if (totalBytes > 0) {
      start = this.#take(totalBytes / PAGE_BYTES, this.maskPfn, cpu);
      if (start === NO_IOVA) return Errno.ENOMEM;
      const errno = dma.domain.mapRuns(start, runs, protOf(direction, this.coherent, attrs));
      if (errno !== Errno.OK) {
        dma.freeIova(start, totalBytes / PAGE_BYTES, cpu, nowMs);
        return errno === Errno.ENOMEM ? Errno.ENOMEM : Errno.EINVAL;
      }
    }
    finalise(list, start, spans, granuleBytes, this.segments);
    return Errno.OK;
  }

  /** Unmaps what {@link mapSg} mapped: all of it in one piece. */
  unmapSg(list: ScatterList, cpu: number, nowMs: number): void {
    const { dma } = this;
    const mapped = list.mapped.splice(0);
    if (dma === null) return;
    const segments = mapped.filter((segment) => !segment.isBus);
    if (list.isBounced) {
      for (const { pfn, offset, bytes } of segments) this.unmapPage(pfn, offset, bytes, cpu, nowMs);
      return;
    }
    const first = segments[0];
    const last = segments.at(-1);
    if (first === undefined || last === undefined) return;
    const start = first.pfn - (first.pfn % this.granuleFrames);
    const end = last.pfn - (last.pfn % this.granuleFrames);
    const frames = end - start + this.framesOf(last.pfn, last.offset, last.bytes);
    dma.unmapAndFree(start, frames, cpu, nowMs);
  }

  /** Whether one buffer goes through a bounce buffer. */
  needsBounce(
    physPfn: number,
    offset: number,
    bytes: number,
    direction: DmaDirection,
    attrs: number,
  ): boolean {
    const inGranule = (physPfn % this.granuleFrames) * PAGE_BYTES + offset;
    const granuleBytes = this.granuleFrames * PAGE_BYTES;
    return needsBounce(this.#bounce, inGranule, bytes, granuleBytes, direction, attrs);
  }

  /** Maps a physically contiguous range. @returns the first frame of the IOVA, or DMA_ERROR */
  mapRange(
    physPfn: number,
    offset: number,
    bytes: number,
    prot: number,
    maskPfn: number,
    cpu: number,
    nowMs: number,
  ): number {
    const dma = this.dma!;
    const inGranule = physPfn % this.granuleFrames;
    const frames = this.framesOf(physPfn, offset, bytes);
    const start = this.#take(frames, maskPfn, cpu);
    if (start === NO_IOVA) return DMA_ERROR;
    if (dma.domain.map(start, physPfn - inGranule, frames, prot) !== Errno.OK) {
      dma.freeIova(start, frames, cpu, nowMs);
      return DMA_ERROR;
    }
    return start + inGranule;
  }

  /** Frames of the granules that a range touches. */
  framesOf(pfn: number, offset: number, bytes: number): number {
    const granule = this.granuleFrames;
    const inGranule = (pfn % granule) * PAGE_BYTES + offset;
    return Math.ceil((inGranule + bytes) / (granule * PAGE_BYTES)) * granule;
  }

  /** Takes IOVA space. @returns its first frame, or NO_IOVA */
  #take(frames: number, maskPfn: number, cpu: number): number {
    return this.iova!.alloc(frames / this.granuleFrames, maskPfn, cpu) * this.granuleFrames;
  }

  #mapDirect(physPfn: number, offset: number, bytes: number): number {
    const lastPfn = physPfn + Math.ceil((offset + bytes) / PAGE_BYTES) - 1;
    return lastPfn <= this.maskPfn ? physPfn : DMA_ERROR;
  }

  #mapEach(
    list: ScatterList,
    direction: DmaDirection,
    cpu: number,
    nowMs: number,
    attrs: number,
  ): number {
    for (const { pfn, offset, bytes } of list.segments) {
      const iovaPfn = this.mapPage(pfn, offset, bytes, direction, cpu, nowMs, attrs);
      if (iovaPfn === DMA_ERROR) {
        this.unmapSg(list, cpu, nowMs);
        return Errno.EIO;
      }
      list.mapped.push({ pfn: iovaPfn, offset, bytes, isBus: false });
    }
    return Errno.OK;
  }
}
