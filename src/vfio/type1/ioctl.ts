/**
 * The ioctls of a type1 container with their raw structures, as a process hands them in.
 *
 * The bytes given are what lies at the argument's address. Reading past their end is EFAULT; what
 * the kernel writes may reach up to `argsz`, so the bytes that come back can be longer.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_ioctl and the functions it calls, up to
 * where the structures are taken apart.
 */
import { Errno } from "../../errno.ts";
import { Step } from "../../meter.ts";
import { viewOf } from "../../wire/layout.ts";
import type { UserProcess } from "../process/user-process.ts";
import { chainBytes, encodeChain } from "../uapi/capability-chain.ts";
import {
  Bitmap,
  DirtyBitmapGet,
  DirtyFlag,
  DirtyPages,
  DmaMap,
  DmaUnmap,
  InfoFlag,
  Type1Info,
  Type1Request,
  UnmapFlag,
} from "../uapi/type1.ts";
import type { UserMemory } from "../uapi/user-memory.ts";
import { readDirty, switchDirtyTracking, type UserBitmap } from "./dirty.ts";
import { capabilitiesOf } from "./info.ts";
import { mapDma } from "./map.ts";
import type { Type1 } from "./type1.ts";
import { isKnownUnmap, type UnmapRequest, unmapDma } from "./unmap.ts";

/** What an ioctl gave. */
export interface Type1Result {
  /** 0 on success. */
  readonly errno: number;
  /** The structure as the kernel leaves it; null when nothing was written back. */
  readonly bytes: Uint8Array | null;
}

/** Who calls. */
export interface Type1Caller {
  readonly process: UserProcess;
  /** What pointers in structures lead to. */
  readonly user: UserMemory;
}

/** Bytes of GET_INFO's structure that every kernel has known. */
const INFO_BYTES_MIN = 16;

/** Serves a request on a container whose back end is type1. */
export function type1Ioctl(
  type1: Type1,
  caller: Type1Caller,
  request: number,
  bytes: Uint8Array,
): Type1Result {
  type1.meter.step(Step.userCall, 1, 0);
  switch (request) {
    case Type1Request.GET_INFO:
      return getInfo(type1, bytes);
    case Type1Request.MAP_DMA:
      return failed(map(type1, caller, bytes));
    case Type1Request.UNMAP_DMA:
      return unmap(type1, caller, bytes);
    case Type1Request.DIRTY_PAGES:
      return failed(dirtyPages(type1, caller, bytes));
    case Type1Request.ENABLE_IOPF:
      return failed(type1.faulting?.enable(type1, caller.process) ?? Errno.ENOTTY);
    default:
      return failed(Errno.ENOTTY);
  }
}

/** A result that writes nothing back. */
function failed(errno: number): Type1Result {
  return { errno, bytes: null };
}

function getInfo(type1: Type1, bytes: Uint8Array): Type1Result {
  if (bytes.length < INFO_BYTES_MIN) return failed(Errno.EFAULT);
  const argsz = Type1Info.get.argsz(viewOf(bytes), 0);
  if (argsz < INFO_BYTES_MIN) return failed(Errno.EINVAL);
  const capabilities = capabilitiesOf(type1);
  const needed = Type1Info.bytes + chainBytes(capabilities);
  const hasRoom = argsz >= needed;
  const info = Type1Info.bytesOf({
    argsz: hasRoom ? argsz : needed,
    flags: InfoFlag.PGSIZES | InfoFlag.CAPS,
    iovaPgsizes: type1.pageSizes,
    capOffset: hasRoom ? Type1Info.bytes : 0,
    pad: 0,
  });
  const head = info.subarray(0, Math.min(argsz, Type1Info.bytes));
  const out = new Uint8Array(Math.max(bytes.length, hasRoom ? needed : head.length));
  out.set(bytes);
  out.set(head);
  if (hasRoom) out.set(encodeChain(capabilities, Type1Info.bytes), Type1Info.bytes);
  return { errno: Errno.OK, bytes: out };
}

/** A structure's view; or EFAULT when its bytes are not there, EINVAL when it says it is shorter. */
function viewChecked(bytes: Uint8Array, shape: { readonly bytes: number }): DataView | number {
  if (bytes.length < shape.bytes) return Errno.EFAULT;
  const view = viewOf(bytes);
  return view.getUint32(0, true) < shape.bytes ? Errno.EINVAL : view;
}

function map(type1: Type1, caller: Type1Caller, bytes: Uint8Array): number {
  const view = viewChecked(bytes, DmaMap);
  if (typeof view === "number") return view;
  return mapDma(type1, caller.process, {
    flags: DmaMap.get.flags(view, 0),
    vpn: DmaMap.pfn.vaddr(view, 0),
    vaddrOffset: DmaMap.pageOffset.vaddr(view, 0),
    iovaPfn: DmaMap.pfn.iova(view, 0),
    iovaOffset: DmaMap.pageOffset.iova(view, 0),
    pages: DmaMap.pfn.size(view, 0),
    sizeOffset: DmaMap.pageOffset.size(view, 0),
  });
}

function unmap(type1: Type1, caller: Type1Caller, bytes: Uint8Array): Type1Result {
  const view = viewChecked(bytes, DmaUnmap);
  if (typeof view === "number") return failed(view);
  const flags = DmaUnmap.get.flags(view, 0);
  if (!isKnownUnmap(flags)) return failed(Errno.EINVAL);
  let bitmap: UserBitmap | null = null;
  if ((flags & UnmapFlag.GET_DIRTY_BITMAP) !== 0) {
    if (DmaUnmap.get.argsz(view, 0) < DmaUnmap.bytes + Bitmap.bytes) return failed(Errno.EINVAL);
    if ((flags & (UnmapFlag.ALL | UnmapFlag.VADDR)) !== 0) return failed(Errno.EINVAL);
    if (bytes.length < DmaUnmap.bytes + Bitmap.bytes) return failed(Errno.EFAULT);
    bitmap = bitmapAt(view, DmaUnmap.bytes);
  }
  const request: UnmapRequest = {
    flags,
    iovaPfn: DmaUnmap.pfn.iova(view, 0),
    iovaOffset: DmaUnmap.pageOffset.iova(view, 0),
    pages: DmaUnmap.pfn.size(view, 0),
    sizeOffset: DmaUnmap.pageOffset.size(view, 0),
    bitmap,
    unmappedPages: 0,
  };
  const errno = unmapDma(type1, request, caller.user);
  if (errno !== Errno.OK) return failed(errno);
  const out = bytes.slice();
  DmaUnmap.setAddress.size(viewOf(out), 0, request.unmappedPages, 0);
  return { errno, bytes: out };
}

function bitmapAt(view: DataView, at: number): UserBitmap {
  return {
    pgsize: Bitmap.get.pgsize(view, at),
    size: Bitmap.get.size(view, at),
    address: Bitmap.get.data(view, at),
  };
}

function dirtyPages(type1: Type1, caller: Type1Caller, bytes: Uint8Array): number {
  if (!type1.isV2) return Errno.EACCES;
  const view = viewChecked(bytes, DirtyPages);
  if (typeof view === "number") return view;
  const flags = DirtyPages.get.flags(view, 0);
  if (flags !== DirtyFlag.GET_BITMAP) return switchDirtyTracking(type1, flags);
  const at = DirtyPages.bytes;
  if (DirtyPages.get.argsz(view, 0) < at + DirtyBitmapGet.bytes) return Errno.EINVAL;
  if (bytes.length < at + DirtyBitmapGet.bytes) return Errno.EFAULT;
  const iova = DirtyBitmapGet.get.iova(view, at);
  const size = DirtyBitmapGet.get.size(view, at);
  const bitmap = bitmapAt(view, at + DirtyBitmapGet.at.bitmap);
  return readDirty(type1, iova, size, bitmap, caller.user);
}
