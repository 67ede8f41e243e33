/**
 * The security window: memory that a driver has unmapped and a device may still reach.
 *
 * An exposure opens when an unmap returns to the driver, which may then give the memory to someone
 * else, and closes when no device can reach the memory any more:
 *
 * - virtio-iommu: when the UNMAP request is handled, that is at the next kick of the request queue,
 *   whoever causes it. Until then the device-side mapping itself is in place.
 * - hardware: when the domain's IOTLB is next invalidated. The page-table entry is gone already, so
 *   only a translation that an IOTLB or ATS cache holds can be used: an upper bound.
 *
 * All exposures of a group close together, so the sums need no list. Times inside a group are kept
 * relative to its oldest exposure, which keeps them exact.
 */

/** Sums over all groups of one run. */
export class ExposureTotals {
  /** Unmaps that left memory reachable. */
  count = 0;
  openPages = 0;
  peakPages = 0;
  longestNs = 0;
  /** Sum of the times that each exposure lasted. */
  sumNs = 0;
  /** Frames times nanoseconds. */
  pageNs = 0;
}

/** Exposures that one event closes together: those of a device, or of a domain. */
export class ExposureGroup {
  readonly #totals: ExposureTotals;
  #count = 0;
  #pages = 0;
  #oldestNs = 0;
  #sumNs = 0;
  #pageNs = 0;

  constructor(totals: ExposureTotals) {
    this.#totals = totals;
  }

  /** An unmap of `pages` frames returned at `nowNs` and left them reachable. */
  open(pages: number, nowNs: number): void {
    if (this.#count === 0) this.#oldestNs = nowNs;
    const sinceNs = nowNs - this.#oldestNs;
    this.#count += 1;
    this.#pages += pages;
    this.#sumNs += sinceNs;
    this.#pageNs += sinceNs * pages;
    const totals = this.#totals;
    totals.count += 1;
    totals.openPages += pages;
    if (totals.openPages > totals.peakPages) totals.peakPages = totals.openPages;
  }

  /** Nothing unmapped before `nowNs` can be reached any more. */
  close(nowNs: number): void {
    if (this.#count === 0) return;
    const lastedNs = nowNs - this.#oldestNs;
    const totals = this.#totals;
    totals.sumNs += lastedNs * this.#count - this.#sumNs;
    totals.pageNs += lastedNs * this.#pages - this.#pageNs;
    totals.openPages -= this.#pages;
    if (lastedNs > totals.longestNs) totals.longestNs = lastedNs;
    this.#count = 0;
    this.#pages = 0;
    this.#sumNs = 0;
    this.#pageNs = 0;
  }

  /** Frames times nanoseconds of the exposures still open, up to `nowNs`. */
  openPageNs(nowNs: number): number {
    return this.#count === 0 ? 0 : (nowNs - this.#oldestNs) * this.#pages - this.#pageNs;
  }
}
