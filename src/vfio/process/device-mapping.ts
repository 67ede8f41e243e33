/**
 * Device memory in a process: which sizes its page-table entries have, and how many lookups find
 * the frames of a range.
 *
 * Such memory has no pages behind it: GUP refuses it, and who wants the frames follows the page
 * table, whose entries are filled in on a fault. An entry of 2 MiB or 1 GiB needs the aligned block
 * to lie inside the mapping and virtual and physical address to be congruent. Source:
 * drivers/vfio/pci/vfio_pci_core.c: vfio_pci_mmap_huge_fault, is_aligned_for_order;
 * mm/memory.c:follow_pfnmap_start; drivers/vfio/vfio_iommu_type1.c: follow_fault_pfn,
 * vaddr_get_pfns.
 */
import { alignDown, alignUp, isAligned, powerOfTwo } from "../../units.ts";
import { StateTable } from "./state-table.ts";

/** Which pages of a mapping of device memory have an entry in the page table. */
export class DeviceEntries {
  readonly #states = new StateTable();
  readonly #origin: number;

  /** @param origin - no page below it is asked for */
  constructor(origin: number) {
    this.#origin = origin;
  }

  fill(first: number, last: number): void {
    this.#states.update(first - this.#origin, last - first + 1, () => 1);
  }

  clear(first: number, last: number): void {
    this.#states.update(first - this.#origin, last - first + 1, () => 0);
  }

  has(vpn: number): boolean {
    return this.#states.get(vpn - this.#origin) !== 0;
  }

  /** Calls a function for each stretch of a range, as long as can be, that has no entries. */
  visitMissing(first: number, last: number, visitor: (first: number, last: number) => void): void {
    let from = -1;
    this.#states.visit(first - this.#origin, last - first + 1, (state, page) => {
      const vpn = page + this.#origin;
      if (state === 0 && from < 0) from = vpn;
      if (state === 0 || from < 0) return;
      visitor(from, vpn - 1);
      from = -1;
    });
    if (from >= 0) visitor(from, last);
  }
}

/** What entries of a device mapping depend on. */
export interface DeviceRange {
  readonly start: number;
  readonly last: number;
  /** Frame, less the virtual page that shows it. */
  readonly pfnDelta: number;
}

/** log2 of the pages of the entry that shows a page. */
export function entryOrderAt(vma: DeviceRange, vpn: number, orders: readonly number[]): number {
  for (const order of orders) {
    const size = powerOfTwo(order);
    if (!isAligned(Math.abs(vma.pfnDelta), size)) continue;
    const block = alignDown(vpn, size);
    if (block >= vma.start && block + size - 1 <= vma.last) return order;
  }
  return 0;
}

/** How many entries show some part of a range inside the mapping. */
export function countEntries(
  vma: DeviceRange,
  first: number,
  last: number,
  orders: readonly number[],
  from = 0,
): number {
  const order = orders[from] ?? 0;
  if (order === 0) return last - first + 1;
  const size = powerOfTwo(order);
  // Blocks of this size fill the middle of the mapping; smaller ones fill both ends.
  const low = alignUp(vma.start, size);
  const high = alignDown(vma.last + 1, size);
  if (low >= high || !isAligned(Math.abs(vma.pfnDelta), size))
    return countEntries(vma, first, last, orders, from + 1);
  let count = 0;
  if (first < low) count += countEntries(vma, first, Math.min(last, low - 1), orders, from + 1);
  const a = Math.max(first, low);
  const b = Math.min(last, high - 1);
  if (a <= b) count += Math.floor(b / size) - Math.floor(a / size) + 1;
  if (last >= high) count += countEntries(vma, Math.max(first, high), last, orders, from + 1);
  return count;
}
