/**
 * The IOTLB in front of a virtio-iommu device: translations that its endpoints used, by domain and
 * page, forgotten before a driver is told that they are gone (V87, V88).
 *
 * Entries are of 4 KiB. A device whose mappings may end inside of a page caches nothing here.
 */
import { Iotlb } from "../../iommu/iotlb.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { PAGE_SHIFT } from "../../units.ts";
import type { VirtioIommuDevice } from "./device.ts";
import { granuleOf } from "./device-config.ts";
import type { IommuListener } from "./device-listener.ts";

/** 4096 entries: as many as hardware has, and what the slots of a few busy queues touch. */
const GEOMETRY = {
  sets: 1024,
  ways: 4,
  replacement: "fifo",
  pageShifts: [PAGE_SHIFT],
} as const;
const NOT_THERE = -1;

/** The cache; one belongs to a device and serves all of its endpoints. */
export class IommuTlb implements IommuListener {
  readonly device: VirtioIommuDevice;
  /** Whether every mapping consists of whole pages. */
  readonly isPageGranular: boolean;
  readonly #iotlb: Iotlb;
  readonly #meter: Meter;

  /** @param meter - hears of hits, misses and displaced entries */
  constructor(device: VirtioIommuDevice, meter: Meter = NULL_METER) {
    this.device = device;
    this.#meter = meter;
    this.#iotlb = new Iotlb(GEOMETRY, meter);
    const { pageSizeMask, quirks } = device.config;
    this.isPageGranular = granuleOf(pageSizeMask) >= 4096n && quirks.length === 0;
    device.addListener(this);
  }

  /**
   * The frame that a frame translates to, if that is cached with the rights.
   *
   * @param counts - whether not finding it is a miss; else only a hit is counted
   * @returns a frame, or −1
   */
  find(domain: number, pfn: number, access: number, counts: boolean): number {
    const { entries } = this.#iotlb;
    const slot = entries.find(domain, NO_PASID, PAGE_SHIFT, pfn);
    if (slot >= 0 && (entries.rightsAt(slot) & access) === access) {
      this.#meter.step(Step.iotlbHit, 1, 0);
      return entries.valueAt(slot);
    }
    if (counts) this.#meter.step(Step.iotlbMiss, 1, 0);
    return NOT_THERE;
  }

  /** Notes that a frame translates with the rights, beside those noted before. */
  fill(domain: number, pfn: number, physPfn: number, access: number): void {
    const { entries } = this.#iotlb;
    const slot = entries.peek(domain, NO_PASID, PAGE_SHIFT, pfn);
    const rights = slot < 0 ? access : access | entries.rightsAt(slot);
    this.#iotlb.fill(domain, NO_PASID, pfn, physPfn, PAGE_SHIFT, rights);
  }

  unmapped(domain: number, startPfn: number, _startOffset: number, lastPfn: number): void {
    this.#iotlb.invalidateRange(domain, NO_PASID, startPfn, lastPfn);
  }

  domainRemoved(domain: number): void {
    this.#iotlb.invalidateDomain(domain, NO_PASID);
  }
}
