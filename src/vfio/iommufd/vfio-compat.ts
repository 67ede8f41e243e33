/**
 * VFIO's container ioctls on an IOAS, for programs that know type1 only.
 *
 * Where it differs from type1 is listed in docs/iommufd.md. Source:
 * drivers/iommu/iommufd/vfio_compat.c: iommufd_vfio_ioctl, iommufd_vfio_set_iommu,
 * iommufd_vfio_check_extension, iommufd_vfio_iommu_get_info, iommufd_vfio_map_dma,
 * iommufd_vfio_unmap_dma.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../../iommu/prot.ts";
import { viewOf } from "../../wire/layout.ts";
import { type Capability, chainBytes, encodeChain } from "../uapi/capability-chain.ts";
import {
  CapabilityId,
  DmaAvailCapability,
  DmaMap,
  DmaUnmap,
  InfoFlag,
  IovaRangeCapability,
  IovaRangeEntry,
  MapFlag,
  Type1Info,
  Type1Request,
  UnmapFlag,
} from "../uapi/type1.ts";
import type { Ioas } from "./ioas.ts";
import type { Iommufd } from "./iommufd.ts";
import { mapMemory } from "./map.ts";

const BASE = 0x3b64;
const GET_API_VERSION = BASE;
const CHECK_EXTENSION = BASE + 1;
const SET_IOMMU = BASE + 2;
/** Extensions, and types for SET_IOMMU. */
const Extension = { TYPE1: 1, TYPE1_V2: 3, DMA_CC: 4, UNMAP_ALL: 9 } as const;
const INFO_BYTES_MIN = 16;
/** dma_avail: there is no such limit, and some users look whether it is large. */
const DMA_AVAIL = 0xffff_ffff;

/** What a call gives; `value` is what ioctl(2) returns when it succeeds. */
export interface CompatResult {
  readonly errno: number;
  readonly value: number;
  readonly bytes: Uint8Array | null;
}

/**
 * Serves a container's request.
 *
 * @param argument - a number, or what lies at the argument's address
 * @returns ENOTTY for what iommufd does not imitate (DIRTY_PAGES), ENODEV without a VFIO IOAS
 */
export function compatIoctl(
  iommufd: Iommufd,
  request: number,
  argument: number | Uint8Array,
): CompatResult {
  const bytes = typeof argument === "number" ? new Uint8Array(0) : argument;
  const number = typeof argument === "number" ? argument : -1;
  switch (request) {
    case GET_API_VERSION:
      return done(Errno.OK);
    case CHECK_EXTENSION:
      return checkExtension(iommufd, number);
    case SET_IOMMU:
      return done(setIommu(iommufd, number));
    case Type1Request.GET_INFO:
      return getInfo(iommufd, bytes);
    case Type1Request.MAP_DMA:
      return done(mapDma(iommufd, bytes));
    case Type1Request.UNMAP_DMA:
      return unmapDma(iommufd, bytes);
    default:
      return done(Errno.ENOTTY);
  }
}

function done(errno: number, value = 0, bytes: Uint8Array | null = null): CompatResult {
  return { errno, value, bytes };
}

function checkExtension(iommufd: Iommufd, extension: number): CompatResult {
  switch (extension) {
    case Extension.TYPE1:
    case Extension.TYPE1_V2:
    case Extension.UNMAP_ALL:
      return done(Errno.OK, 1);
    case Extension.DMA_CC: {
      if (iommufd.vfioIoas === null) return done(Errno.ENODEV);
      return done(
        Errno.OK,
        iommufd.vfioIoas.tables.every((each) => each.enforcesCoherency) ? 1 : 0,
      );
    }
    default:
      // UPDATE_VADDR and dirty tracking of containers are not imitated.
      return done(Errno.OK, 0);
  }
}

function setIommu(iommufd: Iommufd, type: number): number {
  if (type !== Extension.TYPE1 && type !== Extension.TYPE1_V2) return Errno.EINVAL;
  if (iommufd.vfioIoas === null) return Errno.ENODEV;
  // Type1 may unmap a part of a mapping, which takes tables whose entries are single pages.
  return type === Extension.TYPE1 ? iommufd.vfioIoas.ioas.disableLargePages() : Errno.OK;
}

function mapDma(iommufd: Iommufd, bytes: Uint8Array): number {
  if (bytes.length < DmaMap.bytes) return Errno.EFAULT;
  const { argsz, flags, vaddr, iova, size } = DmaMap.decode(viewOf(bytes));
  const isUnknown = (flags & ~(MapFlag.READ | MapFlag.WRITE)) !== 0;
  if (argsz < DmaMap.bytes || isUnknown) return Errno.EINVAL;
  if (iommufd.vfioIoas === null) return Errno.ENODEV;
  const readable = (flags & MapFlag.READ) === 0 ? 0 : Prot.READ;
  const prot = Prot.CACHE | readable | ((flags & MapFlag.WRITE) === 0 ? 0 : Prot.WRITE);
  return mapMemory({ ioas: iommufd.vfioIoas.ioas, iova, prot }, iommufd.payer, vaddr, size).errno;
}

function unmapDma(iommufd: Iommufd, bytes: Uint8Array): CompatResult {
  if (bytes.length < DmaUnmap.bytes) return done(Errno.EFAULT);
  const out = bytes.slice();
  const view = viewOf(out);
  const { argsz, flags, iova, size } = DmaUnmap.decode(view);
  if (argsz < DmaUnmap.bytes || (flags & ~UnmapFlag.ALL) !== 0) return done(Errno.EINVAL);
  if (iommufd.vfioIoas === null) return done(Errno.ENODEV);
  const { ioas } = iommufd.vfioIoas;
  const isAll = (flags & UnmapFlag.ALL) !== 0;
  if (isAll && (iova !== 0n || size !== 0n)) return done(Errno.EINVAL);
  if (!isAll && !ioas.hasLargePages) {
    const errno = cutEnds(ioas, iova, size);
    if (errno !== Errno.OK) return done(errno);
  }
  const reply = isAll ? ioas.unmapAll() : ioas.unmap(iova, size);
  // Unlike type1, the size is written back after an error as well.
  DmaUnmap.set.size(view, 0, reply.length);
  return done(reply.errno, 0, out);
}

/** Cuts what would stick out of a range. Addresses wrap as the kernel's do. */
function cutEnds(ioas: Ioas, iova: bigint, size: bigint): number {
  const errno = ioas.cutBehind(BigInt.asUintN(64, iova + size - 1n));
  if (errno !== Errno.OK || iova === 0n) return errno;
  return ioas.cutBehind(iova - 1n);
}

function getInfo(iommufd: Iommufd, bytes: Uint8Array): CompatResult {
  if (bytes.length < INFO_BYTES_MIN) return done(Errno.EFAULT);
  const argsz = Type1Info.get.argsz(viewOf(bytes), 0);
  if (argsz < INFO_BYTES_MIN) return done(Errno.EINVAL);
  if (iommufd.vfioIoas === null) return done(Errno.ENODEV);
  const { ioas } = iommufd.vfioIoas;
  const capabilities = [dmaAvail(), iovaRanges(ioas)];
  const needed = Type1Info.bytes + chainBytes(capabilities);
  const info = Type1Info.bytesOf({
    argsz: needed,
    flags: InfoFlag.PGSIZES | InfoFlag.CAPS,
    iovaPgsizes: ioas.pageSizes,
    capOffset: argsz >= needed ? Type1Info.bytes : 0,
    pad: 0,
  });
  const head = info.subarray(0, Math.min(argsz, Type1Info.bytes));
  const chain = encodeChain(capabilities, Type1Info.bytes);
  // Of a chain that does not fit, the capabilities that do are there.
  const room = argsz >= needed ? needed : wholeCapabilities(capabilities, argsz);
  const out = new Uint8Array(Math.max(bytes.length, room, head.length));
  out.set(bytes);
  out.set(head);
  if (room > Type1Info.bytes) out.set(chain.subarray(0, room - Type1Info.bytes), Type1Info.bytes);
  return done(Errno.OK, 0, out);
}

/** End of the last capability that lies wholly below `argsz`. */
function wholeCapabilities(capabilities: readonly Capability[], argsz: number): number {
  let end: number = Type1Info.bytes;
  for (const each of capabilities) {
    const next = end + chainBytes([each]);
    if (next > argsz) break;
    end = next;
  }
  return end;
}

function dmaAvail(): Capability {
  const bytes = DmaAvailCapability.bytesOf({ avail: DMA_AVAIL });
  return { id: CapabilityId.DMA_AVAIL, version: 1, bytes };
}

function iovaRanges(ioas: Ioas): Capability {
  const holes = ioas.space.holes();
  const bytes = new Uint8Array(IovaRangeCapability.bytes + holes.length * IovaRangeEntry.bytes);
  const view = viewOf(bytes);
  IovaRangeCapability.encode({ nrIovas: holes.length, pad: 0 }, view);
  for (const [index, { start, last }] of holes.entries()) {
    const at = IovaRangeCapability.bytes + index * IovaRangeEntry.bytes;
    IovaRangeEntry.encode({ start, end: last }, view, at);
  }
  return { id: CapabilityId.IOVA_RANGE, version: 1, bytes };
}
