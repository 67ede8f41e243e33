/**
 * Takes a mapping out of every domain and lets go of its pages.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_unmap_unpin, unmap_unpin_fast, unmap_unpin_slow,
 * vfio_sync_unpin, vfio_remove_dma. Pages are unpinned only after the invalidation that covers
 * them, which is why runs are collected.
 */
import { assert } from "../../errors.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import type { DmaMapping } from "./mapping.ts";
import { unpinRun } from "./pin.ts";
import { RunReader } from "./runs.ts";
import { SYNC_RUNS_MAX, type Type1 } from "./type1.ts";

/** Removes a mapping, which no driver of a mediated device may still hold pages of. */
export function removeMapping(type1: Type1, mapping: DmaMapping): void {
  assert(mapping.pins === null, "a mapping removed has no page pinned by drivers");
  if (type1.isFaulting) type1.faulting!.mappingRemoved(mapping);
  else unmapUnpin(type1, mapping);
  type1.mappings.remove(mapping);
  if (mapping.isVaddrInvalid) type1.vaddrInvalidCount -= 1;
  type1.dmaAvail += 1;
}

/**
 * Unmaps a mapping from all domains, unpins its pages and charges the process less; what drivers of
 * mediated devices hold stays pinned and charged.
 */
export function unmapUnpin(type1: Type1, mapping: DmaMapping): void {
  const { domains } = type1;
  if (mapping.mappedPages === 0 || domains.length === 0) return;
  for (let index = 1; index < domains.length; index += 1) {
    domains[index]!.domain.unmap(mapping.iovaPfn, mapping.mappedPages);
  }
  unmapFirst(type1, mapping, domains[0]!.domain);
  mapping.isMapped = false;
  mapping.mappedPages = 0;
  mapping.extents.clear();
}

/** The first domain is the record of what is mapped. */
function unmapFirst(type1: Type1, mapping: DmaMapping, domain: IommuDomain): void {
  const { gather, pendingRuns } = type1;
  const reader = new RunReader(type1, mapping, domain);
  let pending = 0;
  while (reader.next()) {
    const { page, pfn, pages } = reader;
    if (pfn < 0) continue;
    const iovaPfn = mapping.iovaPfn + page;
    let unmapped = domain.unmapFast(iovaPfn, pages, gather);
    if (unmapped > 0) {
      pendingRuns[3 * pending] = page;
      pendingRuns[3 * pending + 1] = pfn;
      pendingRuns[3 * pending + 2] = Math.min(unmapped, pages);
      pending += 1;
    }
    if (unmapped === 0 || pending === SYNC_RUNS_MAX) {
      syncUnpin(type1, mapping, domain, pending);
      pending = 0;
    }
    if (unmapped === 0) {
      unmapped = domain.unmap(iovaPfn, pages);
      // Somebody else took it out of the table: the rest stays pinned for good, as it must.
      if (unmapped === 0) break;
      unpinRun(mapping, page, pfn, Math.min(unmapped, pages));
    }
    if (unmapped !== pages) reader.resumeAfter(unmapped);
  }
  if (pending > 0) syncUnpin(type1, mapping, domain, pending);
}

/** Waits for the invalidation, then lets go of as many runs as are pending. */
function syncUnpin(type1: Type1, mapping: DmaMapping, domain: IommuDomain, pending: number): void {
  const { gather, pendingRuns } = type1;
  domain.iotlbSync(gather);
  for (let at = 0; at < 3 * pending; at += 3) {
    unpinRun(mapping, pendingRuns[at]!, pendingRuns[at + 1]!, pendingRuns[at + 2]!);
  }
}
