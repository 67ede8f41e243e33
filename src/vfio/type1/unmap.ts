/**
 * VFIO_IOMMU_UNMAP_DMA: whole mappings of a range, all of them, or only their virtual addresses.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_unmap_dma, vfio_dma_do_unmap,
 * vfio_notify_dma_unmap.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { isAligned, offsetOf, PFN_LAST, pfnOf } from "../../units.ts";
import { UnmapFlag } from "../uapi/type1.ts";
import { NO_USER_MEMORY, type UserMemory } from "../uapi/user-memory.ts";
import { checkBitmap, hasSmallestPages, type UserBitmap, writeDirty } from "./dirty.ts";
import { wraps } from "./map.ts";
import type { DmaMapping } from "./mapping.ts";
import type { Type1 } from "./type1.ts";
import { removeMapping } from "./unmap-unpin.ts";

/** What is asked for: address and length as frames and bytes in the last one. */
export interface UnmapRequest {
  /** Bits of `UnmapFlag`. */
  flags: number;
  iovaPfn: number;
  iovaOffset: number;
  pages: number;
  sizeOffset: number;
  /** Where the dirty pages go, with GET_DIRTY_BITMAP. */
  bitmap: UserBitmap | null;
  /** Pages unmapped; meaningful after a success. */
  unmappedPages: number;
}

/** A request by address and length in bytes, each below 2^64. */
export function unmapRequest(
  flags: number,
  iova: bigint,
  size: bigint,
  bitmap: UserBitmap | null = null,
): UnmapRequest {
  return {
    flags,
    iovaPfn: pfnOf(iova),
    iovaOffset: offsetOf(iova),
    pages: pfnOf(size),
    sizeOffset: offsetOf(size),
    bitmap,
    unmappedPages: 0,
  };
}

const ALL_FLAGS = UnmapFlag.GET_DIRTY_BITMAP | UnmapFlag.ALL | UnmapFlag.VADDR;

/** Whether flags are 32 bits of which Linux knows each. */
export function isKnownUnmap(flags: number): boolean {
  return (flags & ALL_FLAGS) === flags;
}

/** Times that drivers are asked to let go of the same mapping. */
const NOTIFY_ROUNDS_MAX = 10;

/**
 * @param user - the memory that the bitmap goes to; null without any, and EFAULT with a bitmap
 * @returns an errno; after an error the container is as it was
 */
export function unmapDma(type1: Type1, request: UnmapRequest, user: UserMemory | null): number {
  request.unmappedPages = 0;
  const errno = checkRequest(type1, request);
  if (errno !== Errno.OK) return errno;
  const { iovaPfn, flags } = request;
  const isAll = (flags & UnmapFlag.ALL) !== 0;
  const lastPfn = isAll ? PFN_LAST : iovaPfn + request.pages - 1;
  if (type1.isV2 && !isAll && type1.mappings.isCut(iovaPfn, lastPfn)) return Errno.EINVAL;
  if ((flags & UnmapFlag.VADDR) !== 0) return invalidateVaddrs(type1, request, lastPfn);
  if ((flags & UnmapFlag.GET_DIRTY_BITMAP) !== 0) {
    const failure = writeBitmaps(type1, request, lastPfn, user ?? NO_USER_MEMORY);
    if (failure !== Errno.OK) return failure;
  }
  let mapping = firstOf(type1, request, lastPfn);
  while (mapping !== null) {
    letDriversGo(type1, mapping);
    request.unmappedPages += mapping.pages;
    removeMapping(type1, mapping);
    const isLast = mapping.iovaPfn + mapping.pages > lastPfn;
    mapping = isLast ? null : firstOf(type1, request, lastPfn);
  }
  return Errno.OK;
}

function checkRequest(type1: Type1, request: UnmapRequest): number {
  const { flags, iovaPfn, iovaOffset, pages, sizeOffset } = request;
  if (!isKnownUnmap(flags)) return Errno.EINVAL;
  // As bytes behind the structure, a bitmap is looked at only when its flag is set.
  const wantsBitmap = (flags & UnmapFlag.GET_DIRTY_BITMAP) !== 0;
  const bitmap = wantsBitmap ? request.bitmap : null;
  if (wantsBitmap) {
    if ((flags & (UnmapFlag.ALL | UnmapFlag.VADDR)) !== 0) return Errno.EINVAL;
    if (bitmap === null) return Errno.EFAULT;
    const size = (BigInt(pages) << 12n) + BigInt(sizeOffset);
    const errno = checkBitmap(size, bitmap);
    if (errno !== Errno.OK) return errno;
  }
  const isVaddr = (flags & UnmapFlag.VADDR) !== 0;
  if (isVaddr && type1.emulatedGroups.length > 0) return Errno.EBUSY;
  const { pageFrames } = type1;
  if (iovaOffset !== 0 || !isAligned(iovaPfn, pageFrames)) return Errno.EINVAL;
  const isEmpty = pages === 0 && sizeOffset === 0;
  if ((flags & UnmapFlag.ALL) !== 0) return isEmpty && iovaPfn === 0 ? Errno.OK : Errno.EINVAL;
  if (isEmpty || sizeOffset !== 0 || !isAligned(pages, pageFrames)) return Errno.EINVAL;
  if (wraps(iovaPfn, 0, pages, 0)) return Errno.EOVERFLOW;
  if (bitmap === null) return Errno.OK;
  return type1.isTrackingDirty && hasSmallestPages(type1, bitmap) ? Errno.OK : Errno.EINVAL;
}

/**
 * The first mapping that goes. A container of the first version takes mappings of which the first
 * byte is asked for, whole, and does nothing for a range that begins inside one.
 */
function firstOf(type1: Type1, request: UnmapRequest, lastPfn: number): DmaMapping | null {
  const mapping = type1.mappings.firstIn(request.iovaPfn, lastPfn);
  return mapping !== null && mapping.iovaPfn < request.iovaPfn ? null : mapping;
}

/** Tells drivers until they hold nothing of a mapping any more. */
function letDriversGo(type1: Type1, mapping: DmaMapping): void {
  for (let round = 0; mapping.pins !== null; round += 1) {
    assert(round <= NOTIFY_ROUNDS_MAX, "drivers unpin what they are told is unmapped");
    for (const device of [...type1.devices]) device.dmaUnmap(mapping.iovaPfn, mapping.pages);
  }
}

/**
 * Gives out all dirty pages before the first mapping goes. (The kernel does so mapping by mapping,
 * and with a bitmap that faults half-way leaves some of them gone.)
 */
function writeBitmaps(
  type1: Type1,
  request: UnmapRequest,
  lastPfn: number,
  user: UserMemory,
): number {
  const { address } = request.bitmap!;
  let mapping = firstOf(type1, request, lastPfn);
  while (mapping !== null) {
    letDriversGo(type1, mapping);
    const errno = writeDirty(type1, mapping, request.iovaPfn, address, user);
    if (errno !== Errno.OK) return errno;
    const nextPfn = mapping.iovaPfn + mapping.pages;
    mapping = nextPfn > lastPfn ? null : type1.mappings.firstIn(nextPfn, lastPfn);
  }
  return Errno.OK;
}

/** The memory behind the mappings is going to move; devices go on using what is mapped. */
function invalidateVaddrs(type1: Type1, request: UnmapRequest, lastPfn: number): number {
  const mappings: DmaMapping[] = [];
  let mapping = firstOf(type1, request, lastPfn);
  while (mapping !== null) {
    // One that is moving already takes back what this call has marked.
    if (mapping.isVaddrInvalid) return Errno.EINVAL;
    mappings.push(mapping);
    const nextPfn = mapping.iovaPfn + mapping.pages;
    mapping = nextPfn > lastPfn ? null : type1.mappings.firstIn(nextPfn, lastPfn);
  }
  for (const each of mappings) {
    each.isVaddrInvalid = true;
    request.unmappedPages += each.pages;
  }
  type1.vaddrInvalidCount += mappings.length;
  return Errno.OK;
}
