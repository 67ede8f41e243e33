/**
 * What mmap is asked for, and the mapping that it makes.
 *
 * Source: mm/mmap.c:do_mmap; mm/hugetlb.c:hugetlbfs_file_mmap; drivers/vfio/pci/vfio_pci_core.c:
 * vfio_pci_core_mmap.
 */
import { Errno } from "../../errno.ts";
import { isAligned, PFN_LAST, powerOfTwo } from "../../units.ts";
import { DeviceEntries } from "./device-mapping.ts";
import { type Backing, Vma } from "./vma.ts";

/** What mmap is asked for; the range is taken as it is, and what was there goes (MAP_FIXED). */
export interface MapRequest {
  readonly vpn: number;
  readonly pages: number;
  readonly backing: Backing;
  /** PROT_READ, on by default. */
  readonly isReadable?: boolean;
  /** PROT_WRITE, on by default. */
  readonly isWritable?: boolean;
  /** Preferred NUMA node, as mbind sets it. */
  readonly node?: number;
}

/** Makes a mapping that is nowhere yet. @returns the mapping, or an errno */
export function createMapping(request: MapRequest): Vma | number {
  const { vpn, pages, backing } = request;
  const isReadable = request.isReadable ?? true;
  const isWritable = request.isWritable ?? true;
  let fileDelta = 0;
  let pfnDelta = 0;
  switch (backing.kind) {
    case "anonymous":
    case "io":
      break;
    case "hugetlb":
      if (!isHugeRange(vpn, pages, backing.order)) return Errno.EINVAL;
      break;
    case "file":
      if (!isCount(backing.filePage)) return Errno.EOVERFLOW;
      if (backing.isShared && isWritable && backing.file.isReadOnly) return Errno.EACCES;
      fileDelta = backing.filePage - vpn;
      break;
    case "device": {
      if (!isCount(backing.filePage)) return Errno.EOVERFLOW;
      const out = { pfn: 0 };
      const errno = backing.device.mapPages(backing.filePage, pages, true, out);
      if (errno !== Errno.OK) return errno;
      fileDelta = backing.filePage - vpn;
      pfnDelta = out.pfn - vpn;
      break;
    }
  }
  const range = { start: vpn, last: vpn + pages - 1 };
  const entries = backing.kind === "device" ? new DeviceEntries(vpn) : null;
  const node = request.node ?? -1;
  return new Vma(range, { isReadable, isWritable }, backing, {
    node,
    fileDelta,
    pfnDelta,
    entries,
  });
}

/** Whether a number counts or numbers pages of a 64-bit space. */
export function isCount(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= PFN_LAST + 1;
}

function isHugeRange(vpn: number, pages: number, order: number): boolean {
  return isAligned(vpn, powerOfTwo(order)) && isAligned(pages, powerOfTwo(order));
}
