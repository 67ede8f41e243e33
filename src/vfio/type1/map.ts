/**
 * VFIO_IOMMU_MAP_DMA: the checks in the kernel's order, then the memory pinned and mapped run by
 * run.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_map_dma, vfio_dma_do_map,
 * vfio_pin_map_dma, vfio_iommu_map, vfio_change_dma_owner; include/uapi/linux/vfio.h.
 */
import { Errno } from "../../errno.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { Prot } from "../../iommu/prot.ts";
import { isAligned, offsetOf, PFN_LAST, pfnOf } from "../../units.ts";
import type { UserProcess } from "../process/user-process.ts";
import { MapFlag } from "../uapi/type1.ts";
import { trackMapping } from "./dirty.ts";
import { Extents } from "./extents.ts";
import type { DmaMapping } from "./mapping.ts";
import { pinNextRun, unpinNewRun, unpinRun } from "./pin.ts";
import type { Type1 } from "./type1.ts";
import { removeMapping } from "./unmap-unpin.ts";

/** What is asked for: addresses and length as frames and bytes in the last one. */
export interface MapRequest {
  /** Bits of `MapFlag`. */
  flags: number;
  vpn: number;
  vaddrOffset: number;
  iovaPfn: number;
  iovaOffset: number;
  pages: number;
  sizeOffset: number;
}

/** A request by addresses and length in bytes, each below 2^64. */
export function mapRequest(flags: number, vaddr: bigint, iova: bigint, size: bigint): MapRequest {
  return {
    flags,
    vpn: pfnOf(vaddr),
    vaddrOffset: offsetOf(vaddr),
    iovaPfn: pfnOf(iova),
    iovaOffset: offsetOf(iova),
    pages: pfnOf(size),
    sizeOffset: offsetOf(size),
  };
}

/** Memory that a mapping takes for itself: struct vfio_dma. */
const MAPPING_BYTES = 192;

/** @returns an errno; after an error the container is as it was */
export function mapDma(type1: Type1, process: UserProcess, request: MapRequest): number {
  const errno = checkRequest(type1, request);
  if (errno !== Errno.OK) return errno;
  const { iovaPfn, pages, flags } = request;
  const lastPfn = iovaPfn + pages - 1;
  const overlapping = type1.mappings.firstIn(iovaPfn, lastPfn);
  if ((flags & MapFlag.VADDR) !== 0) return updateVaddr(type1, process, overlapping, request);
  if (overlapping !== null) return Errno.EEXIST;
  if (type1.dmaAvail === 0) return Errno.ENOSPC;
  if (!type1.allowed.contains(iovaPfn, lastPfn)) return Errno.EINVAL;
  if (!type1.allow(MAPPING_BYTES)) return Errno.ENOMEM;
  const mapping = createMapping(process, request);
  if (!type1.mappings.insert(mapping)) return Errno.ENOMEM;
  type1.dmaAvail -= 1;
  const failure = fill(type1, mapping);
  if (failure !== Errno.OK) removeMapping(type1, mapping);
  return failure;
}

/**
 * Maps a run into every domain, or into none.
 *
 * @param prot - READ and WRITE; memory and device registers alike are mapped as cache coherent
 * @returns the errno of the domain that refused
 */
export function mapRun(
  type1: Type1,
  iovaPfn: number,
  pfn: number,
  pages: number,
  prot: number,
): number {
  const { domains } = type1;
  for (let index = 0; index < domains.length; index += 1) {
    const errno = mapInto(domains[index]!.domain, iovaPfn, pfn, pages, prot);
    if (errno === Errno.OK) continue;
    while (index > 0) {
      index -= 1;
      domains[index]!.domain.unmap(iovaPfn, pages);
    }
    return errno;
  }
  return Errno.OK;
}

/** Maps a run into one domain, as {@link mapRun} does. */
export function mapInto(
  domain: IommuDomain,
  iovaPfn: number,
  pfn: number,
  pages: number,
  prot: number,
): number {
  return domain.map(iovaPfn, pfn, pages, prot | Prot.CACHE);
}

function checkRequest(type1: Type1, request: MapRequest): number {
  const { flags, vpn, vaddrOffset, iovaPfn, iovaOffset, pages, sizeOffset } = request;
  const known = type1.hasMmioDontPin ? MapFlag.ALL_WITH_PROPOSALS : MapFlag.ALL;
  if ((flags & known) !== flags) return Errno.EINVAL;
  if (pages === 0 && sizeOffset === 0) return Errno.EINVAL;
  if (wraps(iovaPfn, iovaOffset, pages, sizeOffset)) return Errno.EOVERFLOW;
  if (wraps(vpn, vaddrOffset, pages, sizeOffset)) return Errno.EOVERFLOW;
  const hasRights = (flags & (MapFlag.READ | MapFlag.WRITE)) !== 0;
  const isUpdate = (flags & MapFlag.VADDR) !== 0;
  if (hasRights === isUpdate) return Errno.EINVAL;
  const { pageFrames } = type1;
  const isWhole = (vaddrOffset | iovaOffset | sizeOffset) === 0;
  if (!isWhole || !isAligned(pages, pageFrames)) return Errno.EINVAL;
  if (!isAligned(iovaPfn, pageFrames) || !isAligned(vpn, pageFrames)) return Errno.EINVAL;
  return Errno.OK;
}

/** Whether the last byte of a range lies beyond 64 bits. */
export function wraps(pfn: number, offset: number, pages: number, sizeOffset: number): boolean {
  return pfn + pages + Math.floor((offset + sizeOffset - 1) / 4096) > PFN_LAST;
}

/** The memory behind a mapping has moved: says where it is now, and whose. */
function updateVaddr(
  type1: Type1,
  process: UserProcess,
  mapping: DmaMapping | null,
  request: MapRequest,
): number {
  if (mapping === null) return Errno.ENOENT;
  const isSame = mapping.iovaPfn === request.iovaPfn && mapping.pages === request.pages;
  if (!mapping.isVaddrInvalid || !isSame) return Errno.EINVAL;
  if (process.memory !== mapping.process.memory) {
    const errno = process.charge(mapping.lockedPages, process.canLock);
    if (errno !== Errno.OK) return errno;
    mapping.process.charge(-mapping.lockedPages, mapping.canLock);
    mapping.process = process;
    mapping.canLock = process.canLock;
  }
  mapping.vpn = request.vpn;
  mapping.isVaddrInvalid = false;
  type1.vaddrInvalidCount -= 1;
  if (type1.isFaulting) type1.faulting!.vaddrUpdated(mapping);
  return Errno.OK;
}

function createMapping(process: UserProcess, request: MapRequest): DmaMapping {
  return {
    iovaPfn: request.iovaPfn,
    vpn: request.vpn,
    pages: request.pages,
    // The uAPI's bits of READ and WRITE are those of Prot.
    prot: request.flags & (Prot.READ | Prot.WRITE),
    mappedPages: 0,
    process,
    pinnedIn: null,
    canLock: process.canLock,
    lockedPages: 0,
    isMapped: false,
    isMmioDirect: (request.flags & MapFlag.MMIO_DONT_PIN) !== 0,
    isVaddrInvalid: false,
    extents: new Extents(),
    pins: null,
    dirty: null,
  };
}

/** Gives a new mapping its memory, unless that is left to faults or to drivers that pin. */
function fill(type1: Type1, mapping: DmaMapping): number {
  let errno: number = Errno.OK;
  if (type1.isFaulting) {
    mapping.mappedPages = mapping.pages;
    mapping.isMapped = true;
    errno = type1.faulting!.mappingAdded(mapping);
  } else if (type1.domains.length > 0) {
    errno = pinAndMap(type1, mapping);
  }
  if (errno === Errno.OK && type1.isTrackingDirty) errno = trackMapping(type1, mapping);
  return errno;
}

function pinAndMap(type1: Type1, mapping: DmaMapping): number {
  const { run } = type1;
  mapping.isMapped = true;
  while (mapping.mappedPages < mapping.pages) {
    const page = mapping.mappedPages;
    const errno = pinNextRun(type1, mapping, page, run);
    if (errno !== Errno.OK) return errno;
    const isScattered = run.pages === 1 && !run.isReserved && page + 1 < mapping.pages;
    const failure =
      isScattered && type1.domains.length === 1
        ? mapScattered(type1, mapping)
        : mapPinned(type1, mapping);
    if (failure !== Errno.OK) return failure;
  }
  return Errno.OK;
}

/** Maps the run that was pinned last. */
function mapPinned(type1: Type1, mapping: DmaMapping): number {
  const { run } = type1;
  const { pfn, pages } = run;
  const page = mapping.mappedPages;
  const errno = mapRun(type1, mapping.iovaPfn + page, pfn, pages, mapping.prot);
  if (errno !== Errno.OK) {
    unpinNewRun(mapping, page, run);
    return errno;
  }
  mapping.extents.append(pfn, pages, run.isReserved);
  mapping.mappedPages += pages;
  return Errno.OK;
}

/**
 * Maps the page that was pinned last and those that follow, as long as each lies apart: pinned
 * first, then mapped together. What comes out is the same, as nothing hears of pins.
 */
function mapScattered(type1: Type1, mapping: DmaMapping): number {
  const { run, frames } = type1;
  const first = mapping.mappedPages;
  const limit = Math.min(frames.length, mapping.pages - first);
  let count = 0;
  let pinErrno: number = Errno.OK;
  while (pinErrno === Errno.OK && run.pages === 1 && !run.isReserved) {
    frames[count] = run.pfn;
    count += 1;
    if (count === limit) break;
    pinErrno = pinNextRun(type1, mapping, first + count, run);
  }
  const isRunLeft = count < limit && pinErrno === Errno.OK;
  const { domain } = type1.domains[0]!;
  const errno = domain.mapEach(mapping.iovaPfn + first, frames, count, mapping.prot | Prot.CACHE);
  const mapped = domain.mappedPages;
  for (let at = 0; at < mapped; at += 1) mapping.extents.append(frames[at]!, 1, false);
  mapping.mappedPages += mapped;
  if (errno === Errno.OK) return isRunLeft ? mapPinned(type1, mapping) : pinErrno;
  if (isRunLeft) unpinNewRun(mapping, first + count, run);
  for (let at = mapped; at < count; at += 1) unpinRun(mapping, first + at, frames[at]!, 1);
  return errno;
}
