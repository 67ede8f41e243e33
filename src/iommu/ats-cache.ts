/**
 * The translation cache of a device that speaks ATS: it asks its IOMMU once and then sends
 * addresses that are already translated.
 *
 * The device does not know domains, so its entries are tagged with the PASID alone; whoever changes
 * a mapping or moves the device to another domain has to invalidate it, IOTLB or not.
 *
 * Source: PCI Express Base specification, "Address Translation Services" (10.2 Translation
 * Requests, 10.3 Invalidation).
 */
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { Iotlb, type IotlbGeometry } from "./iotlb.ts";
import { ANY_PASID } from "./tag-array.ts";

const ATS_STEPS = { hit: Step.atsHit, miss: Step.atsRequest, evict: Step.iotlbEvict } as const;

/** The one domain tag of a cache that knows no domains. */
const NO_DOMAIN = 0;

/** A device's ATS cache. */
export class AtsCache {
  /** Its translations, by slot. */
  readonly cache: Iotlb;

  constructor(geometry: IotlbGeometry, meter: Meter = NULL_METER, node = 0) {
    this.cache = new Iotlb(geometry, meter, node, ATS_STEPS);
  }

  /**
   * Searches for a translation that grants an access. Without one the device sends a translation
   * request, which is reported as a step.
   *
   * @returns the entry's slot, or −1
   */
  lookup(pasid: number, iovaPfn: number): number {
    return this.cache.lookup(NO_DOMAIN, pasid, iovaPfn);
  }

  /** Caches the completion of a translation request. @returns the entry's slot */
  fill(pasid: number, iovaPfn: number, physPfn: number, pageShift: number, prot: number): number {
    return this.cache.fill(NO_DOMAIN, pasid, iovaPfn, physPfn, pageShift, prot);
  }

  /** Handles an invalidation request. @returns how many entries it removed */
  invalidateRange(pasid: number, firstPfn: number, lastPfn: number): number {
    return this.cache.invalidateRange(NO_DOMAIN, pasid, firstPfn, lastPfn);
  }

  /** Handles an invalidation of everything, of one PASID tag or of all. */
  invalidateAll(pasid: number = ANY_PASID): number {
    return pasid === ANY_PASID
      ? this.cache.invalidateAll()
      : this.cache.invalidateDomain(NO_DOMAIN, pasid);
  }
}
