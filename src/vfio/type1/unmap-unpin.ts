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
import type { Type1 } from "./type1.ts";

/** Runs that are unmapped before an invalidation has to complete (VFIO_IOMMU_TLB_SYNC_MAX). */
const SYNC_RUNS_MAX = 512;

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
  const { gather, pendingRuns: pending } = type1;
  const reader = new RunReader(type1, mapping, domain);
  assert(pending.length === 0, "runs of one mapping are collected at a time");
  while (reader.next()) {
    const { page, pfn, pages } = reader;
    if (pfn < 0) continue;
    const iovaPfn = mapping.iovaPfn + page;
    let unmapped = domain.unmapFast(iovaPfn, pages, gather);
    if (unmapped > 0) pending.push(page, pfn, Math.min(unmapped, pages));
    if (unmapped === 0 || pending.length >= 3 * SYNC_RUNS_MAX) {
      syncUnpin(type1, mapping, domain);
    }
    if (unmapped === 0) {
      unmapped = domain.unmap(iovaPfn, pages);
      // Somebody else took it out of the table: the rest stays pinned for good, as it must.
      if (unmapped === 0) break;
      unpinRun(mapping, page, pfn, Math.min(unmapped, pages));
    }
    if (unmapped !== pages) reader.resumeAfter(unmapped);
  }
  if (pending.length > 0) syncUnpin(type1, mapping, domain);
}

function syncUnpin(type1: Type1, mapping: DmaMapping, domain: IommuDomain): void {
  const { pendingRuns: pending } = type1;
  domain.iotlbSync(type1.gather);
  for (let index = 0; index < pending.length; index += 3) {
    unpinRun(mapping, pending[index]!, pending[index + 1]!, pending[index + 2]!);
  }
  pending.length = 0;
}
