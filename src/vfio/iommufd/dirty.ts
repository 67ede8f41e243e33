/**
 * Dirty tracking of a hardware page table: which pages devices wrote to, as a bitmap.
 *
 * Source: drivers/iommu/iommufd/io_pagetable.c: iommufd_check_iova_range, iopt_set_dirty_tracking,
 * iopt_read_and_clear_dirty_data, __iommu_read_and_clear_dirty; drivers/iommu/intel/iommu.c:
 * intel_iommu_read_and_clear_dirty (EINVAL while it is off).
 */
import { Errno } from "../../errno.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import { offsetOf, PAGE_BYTES, pfnOf } from "../../units.ts";
import { byteRange, lengthOf } from "./byte-range.ts";
import type { Hwpt } from "./hwpt.ts";

/** Switches tracking on, with all pages clean, or off. @returns EOPNOTSUPP without support */
export function setDirtyTracking(table: Hwpt, isOn: boolean): number {
  const { driver } = table.domain;
  if (!table.canTrackDirty || driver!.readDirty === undefined) return Errno.EOPNOTSUPP;
  if (isOn) {
    const gather = new IotlbGather();
    for (const area of table.ioas.ioas.space.areas) {
      const pages = area.lastIndex - area.firstIndex + 1;
      const errno = driver!.readDirty(area.startPfn, pages, true, (iovaPfn, count) => {
        gather.addRange(iovaPfn, count);
      });
      if (errno !== Errno.OK) return errno;
    }
    table.domain.iotlbSync(gather);
  }
  table.isTrackingDirty = isOn;
  return Errno.OK;
}

/** What is asked for. */
export interface DirtyQuery {
  readonly iova: bigint;
  readonly length: bigint;
  /** Bytes that a bit stands for. */
  readonly pageSize: bigint;
  /** Whether what is reported becomes clean. */
  readonly isCleaning: boolean;
}

/** Where the bits go: sets `count` bits from `first` on. */
export type BitSetter = (first: bigint, count: bigint) => void;

/**
 * Sets the bits of the pages that were written.
 *
 * @param hasBitmap - whether there is memory for the bits; asked after the checks
 * @returns EOVERFLOW, EINVAL (misaligned, not all mapped, tracking off), EOPNOTSUPP, EFAULT (no
 *   bitmap); then nothing became clean
 */
export function readDirtyBitmap(
  table: Hwpt,
  query: DirtyQuery,
  setBits: BitSetter,
  hasBitmap: () => boolean,
): number {
  const { ioas } = table.ioas;
  const errno = checkQuery(query, BigInt(ioas.space.alignment));
  if (errno !== Errno.OK) return errno;
  const { driver } = table.domain;
  if (!table.canTrackDirty || driver!.readDirty === undefined) return Errno.EOPNOTSUPP;
  if (!table.isTrackingDirty) return Errno.EINVAL;
  const range = byteRange(query.iova, query.length)!;
  if (!hasBitmap()) return Errno.EFAULT;
  if (ioas.forEachContiguous(range, () => Errno.OK) !== Errno.OK) return Errno.EINVAL;
  // The lowest bit of the page size counts, whatever else is set.
  const shift = BigInt((query.pageSize & -query.pageSize).toString(2).length - 1);
  const gather = new IotlbGather();
  const visitErrno = ioas.forEachContiguous(range, (_area, start, last) => {
    const pages = Number((last - start + 1n) / BigInt(PAGE_BYTES));
    return driver!.readDirty!(pfnOf(start), pages, query.isCleaning, (iovaPfn, count) => {
      gather.addRange(iovaPfn, count);
      const first = (BigInt(iovaPfn) * BigInt(PAGE_BYTES) - query.iova) >> shift;
      const end = (BigInt(iovaPfn + count) * BigInt(PAGE_BYTES) - 1n - query.iova) >> shift;
      setBits(first, end - first + 1n);
    });
  });
  if (query.isCleaning) table.domain.iotlbSync(gather);
  return visitErrno;
}

function checkQuery({ iova, length, pageSize }: DirtyQuery, alignment: bigint): number {
  if (length === 0n) return iova === 0n ? Errno.EINVAL : Errno.EOVERFLOW;
  const range = byteRange(iova, length);
  if (range === null) return Errno.EOVERFLOW;
  const end = iova + lengthOf(range);
  if (((iova | end) & (alignment - 1n)) !== 0n) return Errno.EINVAL;
  if (pageSize === 0n || ((iova | end) & (pageSize - 1n)) !== 0n) return Errno.EINVAL;
  return offsetOf(iova) === 0 ? Errno.OK : Errno.EINVAL;
}
