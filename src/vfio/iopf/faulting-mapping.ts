/**
 * What faults have mapped of one mapping: a bit for each page that is in the domains.
 *
 * Source: RFC v3 of 2021, patch 2 of 8, iopf_mapped_bitmap of struct vfio_dma.
 */
import { alignDown, alignUp } from "../../units.ts";
import type { ProcessMemory } from "../process/process-memory.ts";
import type { DmaMapping } from "../type1/mapping.ts";
import { BLOCK_PAGES, type FaultDomains } from "./fault-domains.ts";
import { PageBitmap } from "./page-bitmap.ts";

/** A mapping. Pages are counted from its start. */
export class FaultingMapping {
  readonly mapping: DmaMapping;
  readonly mapped: PageBitmap;
  /** Where its memory lay when its first page was mapped; meaningless while no page is. */
  vpn = 0;
  memory: ProcessMemory | null = null;
  /** Blocks mapped as one leaf, counted from the one that the mapping starts in. */
  #blocks: PageBitmap | null = null;

  constructor(mapping: DmaMapping) {
    this.mapping = mapping;
    this.mapped = new PageBitmap(mapping.pages);
  }

  get pages(): number {
    return this.mapping.pages;
  }

  /** Whether a block can be one leaf: it lies in the mapping as a whole, aligned like its frames. */
  fitsBlock(page: number, pfn: number, pages: number): boolean {
    const iovaPfn = this.mapping.iovaPfn + page;
    return pages >= BLOCK_PAGES && iovaPfn % BLOCK_PAGES === 0 && pfn % BLOCK_PAGES === 0;
  }

  /** Notes that a block is one leaf now. */
  addBlock(page: number): void {
    this.#blocks ??= new PageBitmap(Math.ceil(this.pages / BLOCK_PAGES) + 1);
    this.#blocks.addRun(this.#blockOf(page), 1);
    this.mapped.addRun(page, BLOCK_PAGES);
  }

  /**
   * Takes pages first … end − 1 out of the domains, and with them the rest of leaves that cannot be
   * split. The caller syncs.
   *
   * @returns pages taken out
   */
  remove(domains: FaultDomains, first: number, end: number): number {
    const { mapped } = this;
    const { iovaPfn } = this.mapping;
    const start = this.#hasBlock(first) ? alignDown(iovaPfn + first, BLOCK_PAGES) - iovaPfn : first;
    const stop = this.#hasBlock(end - 1) ? alignUp(iovaPfn + end, BLOCK_PAGES) - iovaPfn : end;
    const before = mapped.count;
    for (let page = mapped.next(start); page >= 0 && page < stop; ) {
      const runEnd = mapped.runEnd(page, stop);
      domains.unmap(iovaPfn + page, runEnd - page);
      page = mapped.next(runEnd);
    }
    if (mapped.next(start) >= 0) this.#forget(start, stop);
    return before - mapped.count;
  }

  /** Forgets everything, after the domains are gone. */
  clear(): void {
    this.#forget(0, this.pages);
  }

  /** Calls back for each contiguous run of frames that is mapped. @returns the first errno */
  forEachRun(domains: FaultDomains, visit: (page: number, pfn: number, pages: number) => number) {
    const { mapped } = this;
    const { iovaPfn } = this.mapping;
    const source = domains.first;
    if (source === null) return 0;
    for (let page = mapped.next(0); page >= 0; ) {
      const end = mapped.runEnd(page, this.pages);
      const pfn = source.iovaToPhys(iovaPfn + page);
      let next = page + 1;
      while (next < end && source.iovaToPhys(iovaPfn + next) === pfn + next - page) next += 1;
      const errno = visit(page, pfn, next - page);
      if (errno !== 0) return errno;
      page = mapped.next(next);
    }
    return 0;
  }

  #forget(first: number, end: number): void {
    this.mapped.removeRun(first, end - first);
    const blocks = this.#blocks;
    if (blocks === null) return;
    const from = this.#blockOf(first);
    blocks.removeRun(from, this.#blockOf(end - 1) - from + 1);
    if (blocks.count === 0) this.#blocks = null;
  }

  #blockOf(page: number): number {
    const { iovaPfn } = this.mapping;
    return Math.floor((iovaPfn + page) / BLOCK_PAGES) - Math.floor(iovaPfn / BLOCK_PAGES);
  }

  #hasBlock(page: number): boolean {
    return this.#blocks?.has(this.#blockOf(page)) ?? false;
  }
}
