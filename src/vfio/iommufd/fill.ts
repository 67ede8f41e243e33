/**
 * Between areas and page tables: pinning an area's pages and mapping them in every table of the
 * IOAS, and the way back.
 *
 * A batch of runs is pinned, then mapped in one table after the other; what is pinned is charged
 * at the end, so that a limit is met after everything was mapped, and all of it is undone.
 * Source: drivers/iommu/iommufd/pages.c: iopt_area_fill_domains, iopt_area_fill_domain,
 * iopt_area_unfill_domains, __iopt_area_unfill_domain, batch_to_domain, batch_iommu_map_small.
 * A table demands alignment to frames, so areas consist of whole frames here.
 */
import { Errno } from "../../errno.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { Prot } from "../../iommu/prot.ts";
import type { Area } from "./area.ts";
import { BATCH_RUNS } from "./pages.ts";

/**
 * Pins an area and maps it in every table.
 *
 * @returns an errno, and then nothing is pinned or mapped: EFAULT, ENOMEM, EINVAL, or what a table
 *   gave
 */
export function fillDomains(
  area: Area,
  domains: readonly IommuDomain[],
  hasLargePages: boolean,
): number {
  const { pages, lastIndex } = area;
  if (domains.length === 0) return Errno.OK;
  let index = area.firstIndex;
  let errno: number = Errno.OK;
  /** Tables that have the batch which failed; all have those before it. */
  let domainsAhead = 0;
  let aheadLast = -1;
  while (index <= lastIndex && errno === Errno.OK) {
    errno = pages.hold(index, lastIndex);
    if (errno !== Errno.OK) break;
    aheadLast = pages.heldLast;
    for (domainsAhead = 0; domainsAhead < domains.length; domainsAhead += 1) {
      errno = mapRange(area, domains[domainsAhead]!, index, aheadLast, hasLargePages);
      if (errno !== Errno.OK) break;
    }
    if (errno === Errno.OK) index = aheadLast + 1;
  }
  if (errno === Errno.OK) errno = pages.updateCharge();
  if (errno === Errno.OK) {
    area.storage = domains[0]!;
    return Errno.OK;
  }
  const isAhead = aheadLast >= index;
  for (const [at, domain] of domains.entries()) {
    unmapRange(area, domain, area.firstIndex, isAhead && at < domainsAhead ? aheadLast : index - 1);
  }
  const heldLast = isAhead ? aheadLast : index - 1;
  if (heldLast >= area.firstIndex) pages.release(area.firstIndex, heldLast);
  return errno;
}

/** Maps an area that is pinned already in one more table. @returns an errno; undone on failure */
export function fillDomain(area: Area, domain: IommuDomain, hasLargePages: boolean): number {
  return mapRange(area, domain, area.firstIndex, area.lastIndex, hasLargePages);
}

/** Takes an area out of one table of several. */
export function unfillDomain(area: Area, domain: IommuDomain): void {
  unmapRange(area, domain, area.firstIndex, area.lastIndex);
}

/** Takes an area out of every table and unpins it, never a page that a table still has. */
export function unfillDomains(area: Area, domains: readonly IommuDomain[]): void {
  const { storage, pages, lastIndex } = area;
  if (storage === null) return;
  for (const domain of domains) if (domain !== storage) unfillDomain(area, domain);
  area.storage = null;
  if (pages.isDevice) {
    unfillDomain(area, storage);
    return;
  }
  for (let index = area.firstIndex; index <= lastIndex; ) {
    const batchLast = lastOfBatch(area, index);
    unmapRange(area, storage, index, batchLast);
    index = batchLast + 1;
  }
  // Linux unpins batch by batch; all at once costs the extents one walk instead of one each.
  pages.release(area.firstIndex, lastIndex);
  pages.updateCharge();
}

/** Last page of the batch of runs that begins at a page. */
function lastOfBatch(area: Area, index: number): number {
  let runs = 0;
  let last = index;
  area.pages.forEachRun(index, area.lastIndex, (at, _pfn, count) => {
    last = at + count - 1;
    runs += 1;
    return runs < BATCH_RUNS ? 0 : 1;
  });
  return last;
}

function mapRange(
  area: Area,
  domain: IommuDomain,
  first: number,
  last: number,
  hasLargePages: boolean,
): number {
  const iovaPfn = area.startPfn - area.firstIndex;
  const prot = area.pages.isDevice ? (area.prot & ~Prot.CACHE) | Prot.MMIO : area.prot;
  let done = first;
  const errno = area.pages.forEachRun(first, last, (index, pfn, count) => {
    const step = hasLargePages ? count : 1;
    for (let at = 0; at < count; at += step) {
      const mapErrno = domain.map(iovaPfn + index + at, pfn + at, step, prot);
      if (mapErrno !== Errno.OK) return mapErrno;
      done += step;
    }
    return Errno.OK;
  });
  if (errno !== Errno.OK) unmapRange(area, domain, first, done - 1);
  return errno;
}

function unmapRange(area: Area, domain: IommuDomain, first: number, last: number): void {
  if (last < first || area.pages.isRevoked) return;
  domain.unmap(area.startPfn - area.firstIndex + first, last - first + 1);
}
