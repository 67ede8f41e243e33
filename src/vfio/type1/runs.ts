/**
 * The physically contiguous runs of a mapping that is in a domain, read back: to unpin them, or to
 * map them into another domain.
 *
 * From the runs that were kept this takes a step for each run, from the domain's page table one for
 * each leaf, and the kernel's way one for each 4 KiB. All three find the same runs.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_unmap_unpin, vfio_iommu_replay.
 */
import type { IommuDomain } from "../../iommu/domain.ts";
import { type Meter, Step } from "../../meter.ts";
import type { DmaMapping } from "./mapping.ts";
import type { Type1 } from "./type1.ts";

/** Reads the runs of one mapping one after the other. Pages are counted from its start. */
export class RunReader {
  /** First page of the run found. */
  page = 0;
  /** Its first frame; −1 for a page that the domain does not have. */
  pfn = -1;
  /** Its length. */
  pages = 0;
  readonly #mapping: DmaMapping;
  readonly #domain: IommuDomain;
  readonly #meter: Meter;
  readonly #isStepwise: boolean;
  #index: number;
  /** The page looked up last, −1 for none: its frame, and the length of its leaf from there. */
  #aheadPage = -1;
  #aheadPfn = -1;
  #aheadPages = 0;

  /** @param domain - one that the mapping is in */
  constructor(type1: Type1, mapping: DmaMapping, domain: IommuDomain) {
    this.#mapping = mapping;
    this.#domain = domain;
    this.#meter = type1.meter;
    this.#isStepwise = type1.unmapMode === "kernel";
    this.#index = this.#isStepwise || !mapping.extents.isComplete ? -1 : 0;
  }

  /** Goes to the next run. @returns false when there is none */
  next(): boolean {
    const mapping = this.#mapping;
    this.page += this.pages;
    if (this.page >= mapping.mappedPages) return false;
    if (this.#index < 0) {
      this.#read();
    } else {
      this.pages = mapping.extents.pagesAt(this.#index);
      this.pfn = mapping.extents.pfnAt(this.#index);
      this.#index += 1;
    }
    return true;
  }

  /**
   * Says that only some pages of the run found were dealt with: the next run begins behind them,
   * and from now on the domain's table is read.
   */
  resumeAfter(pages: number): void {
    this.pages = pages;
    this.#index = -1;
    this.#aheadPage = -1;
  }

  #read(): void {
    const startPfn = this.#mapping.iovaPfn + this.page;
    const left = this.#mapping.mappedPages - this.page;
    let lookups = 0;
    if (this.#aheadPage !== this.page) {
      this.#look(startPfn, this.page);
      lookups = 1;
    }
    this.pfn = this.#aheadPfn;
    let pages = this.#aheadPages;
    while (this.pfn >= 0 && pages < left) {
      this.#look(startPfn + pages, this.page + pages);
      lookups += 1;
      if (this.#aheadPfn !== this.pfn + pages) break;
      pages += this.#aheadPages;
    }
    this.pages = Math.min(pages, left);
    // The kernel looks anew at where a run ended.
    if (this.#isStepwise) this.#aheadPage = -1;
    this.#meter.step(Step.physLookup, lookups, 0);
  }

  /** Looks a frame up: where it lies, and how many surely follow. */
  #look(iovaPfn: number, page: number): void {
    const domain = this.#domain;
    const pfn = domain.iovaToPhys(iovaPfn);
    this.#aheadPage = page;
    this.#aheadPfn = pfn;
    this.#aheadPages = pfn < 0 || this.#isStepwise ? 1 : domain.foundPages;
  }
}
