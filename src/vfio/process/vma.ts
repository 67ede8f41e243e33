/**
 * The mappings of a process (VMAs): ordered, apart, split and merged as mmap, munmap and mprotect
 * need it.
 *
 * Source: include/linux/mm_types.h, struct vm_area_struct; mm/vma.c: can_vma_merge_before,
 * split_vma, is_mergeable_vma (VM_SPECIAL mappings never merge).
 */
import { assert } from "../../errors.ts";
import type { DeviceEntries } from "./device-mapping.ts";
import type { MappableDevice } from "./mappable-device.ts";
import type { MemoryFile } from "./memory-file.ts";

/** What lies behind a mapping. */
export type Backing =
  /** Private memory of the process; `isHuge` where transparent huge pages are allowed. */
  | { readonly kind: "anonymous"; readonly isHuge: boolean }
  /** Private memory in pages of 2^order frames out of the hugetlb pool. */
  | { readonly kind: "hugetlb"; readonly order: number }
  /** A file from one of its pages on, shared or private. */
  | {
      readonly kind: "file";
      readonly file: MemoryFile;
      readonly filePage: number;
      readonly isShared: boolean;
    }
  /** Memory of a device (VM_IO | VM_PFNMAP) from a page of its file on. */
  | { readonly kind: "device"; readonly device: MappableDevice; readonly filePage: number }
  /** Memory that nothing but the CPU reaches (VM_IO without VM_PFNMAP). */
  | { readonly kind: "io" };

/** A mapping. Virtual pages are `vpn`s; `last` is inclusive. */
export class Vma {
  start: number;
  last: number;
  isReadable: boolean;
  isWritable: boolean;
  readonly backing: Backing;
  /** Preferred NUMA node, as mbind sets it; −1 for none. */
  readonly node: number;
  /** Page of the file, less the virtual page that shows it. */
  readonly fileDelta: number;
  /** Frame, less the virtual page that shows it; only of a device. */
  readonly pfnDelta: number;
  /** Which pages have an entry in the page table; null but for a device. */
  readonly entries: DeviceEntries | null;

  constructor(
    range: { readonly start: number; readonly last: number },
    rights: { readonly isReadable: boolean; readonly isWritable: boolean },
    backing: Backing,
    placement: {
      readonly node: number;
      readonly fileDelta: number;
      readonly pfnDelta: number;
      readonly entries: DeviceEntries | null;
    },
  ) {
    assert(range.start <= range.last, "a mapping has a page");
    this.start = range.start;
    this.last = range.last;
    this.isReadable = rights.isReadable;
    this.isWritable = rights.isWritable;
    this.backing = backing;
    this.node = placement.node;
    this.fileDelta = placement.fileDelta;
    this.pfnDelta = placement.pfnDelta;
    this.entries = placement.entries;
  }

  get pages(): number {
    return this.last - this.start + 1;
  }

  /** Page of the file that the mapping starts at (vm_pgoff). */
  get pageOffset(): number {
    return this.start + this.fileDelta;
  }

  /** Splits the mapping. @returns the part from `vpn` on */
  cutAt(vpn: number): Vma {
    assert(vpn > this.start && vpn <= this.last, "a mapping is cut inside");
    const upper = new Vma({ start: vpn, last: this.last }, this, this.backing, this);
    this.last = vpn - 1;
    return upper;
  }

  /** Whether another mapping right above is the same but for its place. */
  continuesWith(above: Vma): boolean {
    if (above.start !== this.last + 1) return false;
    if (above.isReadable !== this.isReadable || above.isWritable !== this.isWritable) return false;
    if (above.node !== this.node) return false;
    const a = this.backing;
    const b = above.backing;
    if (a.kind === "anonymous" && b.kind === "anonymous") return a.isHuge === b.isHuge;
    if (a.kind === "file" && b.kind === "file")
      return a.file === b.file && a.isShared === b.isShared && this.fileDelta === above.fileDelta;
    return false;
  }
}

/** Most mappings that a process may have before it adds one (vm.max_map_count). */
export const VMAS_MAX = 65_530;

/** The ordered mappings. */
export class VmaList {
  readonly #vmas: Vma[] = [];

  get count(): number {
    return this.#vmas.length;
  }

  /** The mapping at a position, in ascending order. */
  at(index: number): Vma | undefined {
    return this.#vmas[index];
  }

  /** Position of the first mapping that ends at or above a page; `count` when none does. */
  indexFrom(vpn: number): number {
    let low = 0;
    let high = this.#vmas.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#vmas[middle]!.last < vpn) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** The mapping that holds a page, or null. */
  find(vpn: number): Vma | null {
    const vma = this.#vmas[this.indexFrom(vpn)];
    return vma !== undefined && vma.start <= vpn ? vma : null;
  }

  /** Whether a page of a range is mapped. */
  overlaps(first: number, last: number): boolean {
    const vma = this.#vmas[this.indexFrom(first)];
    return vma !== undefined && vma.start <= last;
  }

  /** How many mappings more a range with borders of its own takes. */
  cutsAt(first: number, last: number): number {
    let cuts = 0;
    for (const border of [first, last + 1]) {
      const vma = this.find(border);
      if (vma !== null && vma.start < border) cuts += 1;
    }
    return cuts;
  }

  /** Has mappings end before and start at a page. */
  cutAt(vpn: number): void {
    const index = this.indexFrom(vpn);
    const vma = this.#vmas[index];
    if (vma === undefined || vma.start >= vpn) return;
    this.#vmas.splice(index + 1, 0, vma.cutAt(vpn));
  }

  /** Adds a mapping where nothing is mapped. */
  insert(vma: Vma): void {
    assert(!this.overlaps(vma.start, vma.last), "mappings lie apart");
    this.#vmas.splice(this.indexFrom(vma.start), 0, vma);
    this.mergeAround(vma.start, vma.last);
  }

  /** Removes the mappings of a range, at whose borders all mappings end. */
  remove(first: number, last: number): void {
    const from = this.indexFrom(first);
    let end = from;
    while (end < this.#vmas.length && this.#vmas[end]!.start <= last) {
      assert(this.#vmas[end]!.start >= first && this.#vmas[end]!.last <= last, "cut before");
      end += 1;
    }
    this.#vmas.splice(from, end - from);
  }

  /** Joins what has become alike at the borders of and inside a range. */
  mergeAround(first: number, last: number): void {
    let index = Math.max(1, this.indexFrom(first));
    while (index < this.#vmas.length && this.#vmas[index]!.start <= last + 1) {
      const below = this.#vmas[index - 1]!;
      const above = this.#vmas[index]!;
      if (below.continuesWith(above)) {
        below.last = above.last;
        this.#vmas.splice(index, 1);
      } else {
        index += 1;
      }
    }
  }
}
