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
  }

  #read(): void {
    const domain = this.#domain;
    const startPfn = this.#mapping.iovaPfn + this.page;
    const left = this.#mapping.mappedPages - this.page;
    this.pfn = domain.iovaToPhys(startPfn);
    this.pages = 1;
    let lookups = 1;
    if (this.pfn >= 0) {
      let pages = this.#leafPages();
      while (pages < left) {
        lookups += 1;
        if (domain.iovaToPhys(startPfn + pages) !== this.pfn + pages) break;
        pages += this.#leafPages();
      }
      this.pages = Math.min(pages, left);
    }
    this.#meter.step(Step.physLookup, lookups, 0);
  }

  #leafPages(): number {
    return this.#isStepwise ? 1 : this.#domain.foundPages;
  }
}
