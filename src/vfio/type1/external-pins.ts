/**
 * Pages that drivers of mediated devices pin by I/O virtual address: vfio_pin_pages.
 *
 * Source: drivers/vfio/vfio_main.c: vfio_pin_pages, vfio_unpin_pages;
 * drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_pin_pages, vfio_iommu_type1_unpin_pages,
 * vfio_pin_page_external, vfio_unpin_page_external, vfio_iommu_type1_register_device.
 */
import { Errno } from "../../errno.ts";
import { Prot } from "../../iommu/prot.ts";
import { markDirty } from "./dirty.ts";
import type { DmaMapping } from "./mapping.ts";
import { giveBack } from "./pin.ts";
import { PinnedPages } from "./pinned-pages.ts";
import type { PinningDevice, Type1, Type1Group } from "./type1.ts";

/** Most pages of a call: one page of frame numbers. */
export const PIN_PAGES_MAX = 512;

/** Memory that the note of a pinned page takes: struct vfio_pfn. */
const PINNED_PAGE_BYTES = 48;

/** A device that may pin is opened. */
export function registerDevice(type1: Type1, device: PinningDevice): void {
  type1.devices.push(device);
}

/** A device is closed, which has unpinned everything. */
export function unregisterDevice(type1: Type1, device: PinningDevice): void {
  const index = type1.devices.indexOf(device);
  if (index >= 0) type1.devices.splice(index, 1);
}

/**
 * Pins pages for a driver, all or none. Its group counts from now on as one that writes only to
 * pages pinned.
 *
 * @param prot - bits of `Prot` that the driver needs
 * @param out - receives the frames
 * @returns E2BIG, EACCES (v1), EBUSY (memory is moving), EINVAL (no device registered, nothing
 *   mapped, memory without pages), EPERM (rights), ENOMEM, EFAULT
 */
export function pinPages(
  type1: Type1,
  group: Type1Group,
  iovaPfn: number,
  pages: number,
  prot: number,
  out: Float64Array,
): number {
  if (pages < 1 || out.length < pages) return Errno.EINVAL;
  if (pages > PIN_PAGES_MAX) return Errno.E2BIG;
  if (!type1.isV2) return Errno.EACCES;
  if (type1.vaddrInvalidCount > 0) return Errno.EBUSY;
  if (type1.devices.length === 0) return Errno.EINVAL;
  for (let index = 0; index < pages; index += 1) {
    const errno = pinPage(type1, iovaPfn + index, prot, index, out);
    if (errno === Errno.OK) continue;
    unpinPages(type1, iovaPfn, index);
    return errno;
  }
  // Only now: pages of a call that failed were nobody's to write.
  for (let index = 0; index < pages; index += 1) {
    const mapping = type1.mappings.find(iovaPfn + index)!;
    markDirty(type1, mapping, iovaPfn + index - mapping.iovaPfn, 1);
  }
  if (!group.isPinnedScope) {
    group.isPinnedScope = true;
    type1.nonPinnedGroups -= 1;
  }
  return Errno.OK;
}

/** Takes a driver's pins off pages. @returns how many lay in mappings, from the first on */
export function unpinPages(type1: Type1, iovaPfn: number, pages: number): number {
  for (let index = 0; index < pages; index += 1) {
    const mapping = type1.mappings.find(iovaPfn + index);
    if (mapping === null) return index;
    unpinPage(type1, mapping, iovaPfn + index);
  }
  return pages;
}

/** With domains, and without faults, every mapping is charged as a whole already. */
function isCharged(type1: Type1): boolean {
  return type1.domains.length === 0 || type1.isFaulting;
}

function pinPage(
  type1: Type1,
  iovaPfn: number,
  prot: number,
  index: number,
  out: Float64Array,
): number {
  const mapping = type1.mappings.find(iovaPfn);
  if (mapping === null) return Errno.EINVAL;
  if ((mapping.prot & prot) !== prot) return Errno.EPERM;
  const shared = mapping.pins?.share(iovaPfn) ?? -1;
  if (shared >= 0) {
    out[index] = shared;
    return Errno.OK;
  }
  const errno = pinNew(type1, mapping, iovaPfn - mapping.iovaPfn);
  if (errno !== Errno.OK) return errno;
  mapping.pins ??= new PinnedPages();
  mapping.pins.add(iovaPfn, type1.run.pfn, mapping.process.memory!);
  out[index] = type1.run.pfn;
  return Errno.OK;
}

/** Pins a page and charges it. The frame is in the container's run record. */
function pinNew(type1: Type1, mapping: DmaMapping, page: number): number {
  const { memory } = mapping.process;
  const { run } = type1;
  if (memory === null) return Errno.ENODEV;
  const isWrite = (mapping.prot & Prot.WRITE) !== 0;
  const errno = memory.pinRun(mapping.vpn + page, 1, isWrite, 1, run);
  if (errno !== Errno.OK) return errno;
  if (run.isReserved) return Errno.EINVAL;
  let failure: number = Errno.OK;
  if (isCharged(type1)) failure = mapping.process.charge(1, mapping.canLock);
  if (failure === Errno.OK) {
    if (isCharged(type1)) mapping.lockedPages += 1;
    if (type1.allow(PINNED_PAGE_BYTES)) return Errno.OK;
    if (isCharged(type1)) giveBack(mapping, 1);
    failure = Errno.ENOMEM;
  }
  memory.unpin(run.pfn, 1, isWrite);
  return failure;
}

function unpinPage(type1: Type1, mapping: DmaMapping, iovaPfn: number): void {
  const pinned = mapping.pins?.release(iovaPfn) ?? null;
  if (pinned === null) return;
  pinned.memory.unpin(pinned.pfn, 1, (mapping.prot & Prot.WRITE) !== 0);
  if (isCharged(type1)) giveBack(mapping, 1);
  if (mapping.pins!.count === 0) mapping.pins = null;
}
