/**
 * Pinning the memory behind a mapping run by run, and charging it to the process.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_pin_pages_remote, vfio_unpin_pages_remote,
 * vfio_lock_acct, put_pfn. Pages are counted from the start of the mapping. Memory of devices is
 * neither pinned nor charged; pages that a mediated device's driver pinned before are charged
 * already.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Prot } from "../../iommu/prot.ts";
import type { PinRun, ProcessMemory } from "../process/process-memory.ts";
import type { DmaMapping } from "./mapping.ts";
import type { Type1 } from "./type1.ts";

/** Pages that one call of GUP is asked for: what a page of page pointers holds. */
export const BATCH_PAGES = 512;

/**
 * Pins and charges the longest contiguous run of a mapping from a page on.
 *
 * @param out - receives the run; it may join physically with the one before
 * @returns ENODEV without memory, ENOMEM at the limit of locked memory, EFAULT and what else GUP
 *   gives; then nothing of the run stays pinned or charged
 */
export function pinNextRun(type1: Type1, mapping: DmaMapping, page: number, out: PinRun): number {
  const { memory } = mapping.process;
  if (memory === null) return Errno.ENODEV;
  const errno = findRun(type1, mapping, memory, page, out);
  if (errno !== Errno.OK) return errno;
  assert(out.pages >= 1, "a run has a page");
  assert(out.pages <= mapping.pages - page, "a run stays in its mapping");
  const charged = chargedPages(mapping, page, out);
  const refusal = mapping.process.charge(charged, mapping.canLock);
  // The limit is looked at while the run grows; what ends it with an error comes after that.
  const failure = refusal === Errno.OK ? out.nextErrno : refusal;
  if (failure !== Errno.OK) {
    if (refusal === Errno.OK) mapping.process.charge(-charged, true);
    if (!out.isReserved) memory.unpin(out.pfn, out.pages, isWritable(mapping));
    return failure;
  }
  assert(page === 0 || mapping.pinnedIn === memory, "a mapping is pinned in one memory");
  mapping.pinnedIn = memory;
  mapping.lockedPages += charged;
  return Errno.OK;
}

/** Undoes {@link pinNextRun} for a run that no domain has. */
export function unpinNewRun(mapping: DmaMapping, page: number, run: PinRun): void {
  giveBack(mapping, chargedPages(mapping, page, run));
  if (!run.isReserved) mapping.pinnedIn!.unpin(run.pfn, run.pages, isWritable(mapping));
}

/** Unpins a run of frames of a mapping, and charges the process less for it. */
export function unpinRun(mapping: DmaMapping, page: number, pfn: number, pages: number): void {
  const unpinned = unpin(mapping, page, pfn, pages);
  giveBack(mapping, unpinned - heldPages(mapping, page, pages));
}

/** @returns pages unpinned: device memory is not */
function unpin(mapping: DmaMapping, page: number, pfn: number, pages: number): number {
  const memory = mapping.pinnedIn!;
  const isDirty = isWritable(mapping);
  if (!mapping.extents.hasReserved) {
    memory.unpin(pfn, pages, isDirty);
    return pages;
  }
  let unpinned = 0;
  let done = 0;
  while (done < pages) {
    const isReserved = mapping.extents.isReserved(page + done);
    const end = mapping.extents.kindEnd(page + done, page + pages) - page;
    if (!isReserved) {
      memory.unpin(pfn + done, end - done, isDirty);
      unpinned += end - done;
    }
    done = end;
  }
  return unpinned;
}

/** Charges the process for fewer pages of a mapping. */
export function giveBack(mapping: DmaMapping, pages: number): void {
  // Without a limit: what is accounted for later cannot be refused any more.
  mapping.process.charge(-pages, true);
  mapping.lockedPages -= pages;
}

function findRun(
  type1: Type1,
  mapping: DmaMapping,
  memory: ProcessMemory,
  page: number,
  out: PinRun,
): number {
  const vpn = mapping.vpn + page;
  const left = mapping.pages - page;
  const isWrite = isWritable(mapping);
  if (mapping.isMmioDirect && (memory.dontPinRun?.(vpn, left, out) ?? false)) return Errno.OK;
  return type1.parameters.disableHugepages
    ? memory.pinRun(vpn, 1, isWrite, 1, out)
    : memory.pinRun(vpn, left, isWrite, BATCH_PAGES, out);
}

function chargedPages(mapping: DmaMapping, page: number, run: PinRun): number {
  return run.isReserved ? 0 : run.pages - heldPages(mapping, page, run.pages);
}

/** Pages of a run that drivers of mediated devices hold, and that are charged for that. */
function heldPages(mapping: DmaMapping, page: number, pages: number): number {
  return mapping.pins === null ? 0 : mapping.pins.countIn(mapping.iovaPfn + page, pages);
}

function isWritable(mapping: DmaMapping): boolean {
  return (mapping.prot & Prot.WRITE) !== 0;
}
