/**
 * The calls that map: memory of a process, files, parts of another IOAS.
 *
 * Source: drivers/iommu/iommufd/ioas.c: iommufd_ioas_map, iommufd_ioas_map_file,
 * iommufd_ioas_copy; io_pagetable.c: iopt_map_user_pages, iopt_map_file_pages, iopt_map_common.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../../iommu/prot.ts";
import { ADDRESS_LAST, offsetOf, PAGE_BYTES, pfnOf } from "../../units.ts";
import type { ProcessMemory } from "../process/process-memory.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { Ioas, IovaReply, PagesPart } from "./ioas.ts";
import type { LockedUser } from "./locked-user.ts";
import { type AccountMode, type DeviceBuffer, IoPages, type PagesSource } from "./pages.ts";
import { MapFlag } from "./uapi.ts";

/** What can be mapped of an open file. */
export type MappableFile =
  /** A memfd: page `n` of `memory` is page `n` of the file. */
  | { readonly kind: "memory"; readonly memory: ProcessMemory | null; readonly pages: number }
  | { readonly kind: "dma-buf"; readonly buffer: DeviceBuffer };

/** Who is charged for what is mapped. */
export interface Payer {
  readonly process: UserProcess;
  readonly user: LockedUser;
  /** How the file as a whole charges: the user by default, or the process as VFIO does. */
  readonly isChargingProcess: boolean;
}

/** Where to, and with which rights. */
export interface MapTarget {
  readonly ioas: Ioas;
  /** Null for a place of the kernel's choice. */
  readonly iova: bigint | null;
  /** Bits of `Prot`. */
  readonly prot: number;
}

/** What IOAS_MAP_FILE finds in a file of any other kind: nothing that it could pin (EINVAL). */
export const NOTHING_MAPPABLE: MappableFile = { kind: "memory", memory: null, pages: 0 };

const FLAGS_ALL = MapFlag.FIXED_IOVA | MapFlag.WRITEABLE | MapFlag.READABLE;
/** Runs of a device's memory have counts of 32 bits. */
const DEVICE_PAGES_MAX = 2 ** 32 - 1;

/** Rights that flags ask for; DMA is always coherent. */
export function protOf(flags: number): number {
  const readable = (flags & MapFlag.READABLE) === 0 ? 0 : Prot.READ;
  return Prot.CACHE | readable | ((flags & MapFlag.WRITEABLE) === 0 ? 0 : Prot.WRITE);
}

/** The checks that all calls that map begin with. @returns EOPNOTSUPP, EOVERFLOW, EINVAL, 0 */
export function checkMap(flags: number, reserved: number, iova: bigint, length: bigint): number {
  if ((flags & ~FLAGS_ALL) !== 0 || reserved !== 0) return Errno.EOPNOTSUPP;
  if (iova >= ADDRESS_LAST || length >= ADDRESS_LAST) return Errno.EOVERFLOW;
  return (flags & (MapFlag.WRITEABLE | MapFlag.READABLE)) === 0 ? Errno.EINVAL : Errno.OK;
}

/** Maps memory of the payer's process. */
export function mapMemory(
  target: MapTarget,
  payer: Payer,
  userVa: bigint,
  length: bigint,
): IovaReply {
  if (userVa + length > ADDRESS_LAST) return failed(Errno.EOVERFLOW);
  const { memory } = payer.process;
  return mapSource(target, payer, userVa, length, (firstPage) => {
    return { kind: "user", memory, firstPage, lastPage: null };
  });
}

/** Maps a part of a file. */
export function mapFile(
  target: MapTarget,
  payer: Payer,
  file: MappableFile,
  start: bigint,
  length: bigint,
): IovaReply {
  if (length === 0n) return failed(Errno.EINVAL);
  const last = start + length - 1n;
  if (last > ADDRESS_LAST) return failed(Errno.EOVERFLOW);
  if (file.kind === "memory") {
    return mapSource(target, payer, start, length, (firstPage) => {
      return { kind: "file", memory: file.memory, firstPage, lastPage: file.pages - 1 };
    });
  }
  const { buffer } = file;
  if (pfnOf(last) >= buffer.pages || pfnOf(length) >= DEVICE_PAGES_MAX) return failed(Errno.EINVAL);
  return mapSource(target, payer, start, length, (firstPage) => {
    return { kind: "dma-buf", buffer, firstPage };
  });
}

/** Maps parts that an IOAS has. */
export function copyRange(
  target: MapTarget,
  parts: readonly PagesPart[],
  length: bigint,
): IovaReply {
  return target.ioas.map(parts, length, target.iova, target.prot);
}

function mapSource(
  target: MapTarget,
  payer: Payer,
  start: bigint,
  length: bigint,
  sourceAt: (firstPage: number) => PagesSource,
): IovaReply {
  const { ioas, iova, prot } = target;
  if (length === 0n || length > ADDRESS_LAST - BigInt(PAGE_BYTES)) return failed(Errno.EINVAL);
  const startByte = BigInt(offsetOf(start));
  const pages = new IoPages({
    source: sourceAt(pfnOf(start)),
    count: Number((startByte + length + BigInt(PAGE_BYTES - 1)) / BigInt(PAGE_BYTES)),
    isWritable: (prot & Prot.WRITE) !== 0,
    process: payer.process,
    user: payer.user,
    accountMode: accountModeOf(payer),
  });
  const errno = pages.attach();
  if (errno !== Errno.OK) return failed(errno);
  const reply = ioas.map([{ pages, startByte, length }], length, iova, prot);
  pages.put();
  return reply;
}

/** Whoever may lock as much as he likes is charged nothing. */
function accountModeOf({ process, isChargingProcess }: Payer): AccountMode {
  if (process.canLock) return "none";
  return isChargingProcess ? "mm" : "user";
}

function failed(errno: number): IovaReply {
  return { errno, iova: 0n };
}
