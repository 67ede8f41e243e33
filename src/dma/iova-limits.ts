/**
 * Which IOVAs one device may get: its mask, its bus, the domain's aperture, and 32 bits first.
 *
 * Source: drivers/iommu/dma-iommu.c:iommu_dma_alloc_iova; dev_iommu.pci_32bit_workaround, which
 * iommu.forcedac=1 leaves off.
 */
import { PAGE_SHIFT, PFN_LAST } from "../units.ts";
import type { IovaDomain } from "./iova-domain.ts";
import { NO_IOVA } from "./iova-tree.ts";

/** Settings of a device. Frames count 4 KiB. */
export interface IovaLimitOptions {
  /** Last frame below a limit of the bus; no limit by default. */
  readonly busLimitPfn?: number;
  /** Last frame of the domain's aperture where it is forced; no limit by default. */
  readonly apertureLastPfn?: number;
  /** Whether addresses below 4 GiB are tried first: on for PCI devices without forcedac. */
  readonly try32First: boolean;
}

/** Allocates IOVAs for one device. */
export class DeviceIova {
  readonly domain: IovaDomain;
  readonly #limitPfn: number;
  readonly #granule: number;
  #try32First: boolean;

  constructor(domain: IovaDomain, options: IovaLimitOptions) {
    this.domain = domain;
    this.#limitPfn = Math.min(options.busLimitPfn ?? PFN_LAST, options.apertureLastPfn ?? PFN_LAST);
    this.#granule = 2 ** (domain.granuleShift - PAGE_SHIFT);
    this.#try32First = options.try32First;
  }

  /** Whether addresses below 4 GiB are still tried first. Off for good after the first failure. */
  get try32First(): boolean {
    return this.#try32First;
  }

  /**
   * Takes `pages` granules.
   *
   * @param maskPfn - last 4 KiB frame that the device's DMA mask reaches
   * @returns the first granule, or {@link NO_IOVA}
   */
  alloc(pages: number, maskPfn: number, cpu: number): number {
    const limitPfn = Math.floor(Math.min(maskPfn, this.#limitPfn) / this.#granule);
    const last32 = this.domain.tree.limit32Pfn - 1;
    if (limitPfn > last32 && this.#try32First) {
      const pfn = this.domain.alloc(pages, last32, false, cpu);
      if (pfn !== NO_IOVA) return pfn;
      this.#try32First = false;
    }
    return this.domain.alloc(pages, limitPfn, true, cpu);
  }
}
