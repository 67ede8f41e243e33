/**
 * Maps what a container has mapped into a new domain.
 *
 * The frames are those of the domain in front; without one, as in a container that held mediated
 * devices alone, the pages are pinned now. What is contiguous is mapped by one call, as in the
 * kernel, but found by a step for each run instead of one for each 4 KiB.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c:vfio_iommu_replay.
 */
import { Errno } from "../../errno.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { mapInto } from "./map.ts";
import type { DmaMapping } from "./mapping.ts";
import { pinNextRun, unpinNewRun, unpinRun } from "./pin.ts";
import { RunReader } from "./runs.ts";
import type { Type1 } from "./type1.ts";

/**
 * Fills a domain that is not one of the container's yet.
 *
 * @returns an errno; then nothing that this call pinned stays pinned, and the domain is empty
 */
export function replayMappings(type1: Type1, domain: IommuDomain): number {
  const source = type1.domains[0]?.domain ?? null;
  const done: DmaMapping[] = [];
  for (const mapping of type1.mappings) {
    done.push(mapping);
    const errno =
      source === null || !mapping.isMapped
        ? pinInto(type1, mapping, domain)
        : copyInto(type1, mapping, source, domain);
    if (errno === Errno.OK) continue;
    while (done.length > 0) takeBack(type1, done.pop()!, domain);
    return errno;
  }
  for (const mapping of done) mapping.isMapped = true;
  return Errno.OK;
}

function copyInto(
  type1: Type1,
  mapping: DmaMapping,
  source: IommuDomain,
  domain: IommuDomain,
): number {
  const reader = new RunReader(type1, mapping, source);
  while (reader.next()) {
    const { page, pfn, pages } = reader;
    if (pfn < 0) continue;
    const errno = mapInto(domain, mapping.iovaPfn + page, pfn, pages, mapping.prot);
    if (errno !== Errno.OK) return errno;
  }
  return Errno.OK;
}

function pinInto(type1: Type1, mapping: DmaMapping, domain: IommuDomain): number {
  const { run } = type1;
  while (mapping.mappedPages < mapping.pages) {
    const page = mapping.mappedPages;
    const pinErrno = pinNextRun(type1, mapping, page, run);
    if (pinErrno !== Errno.OK) return pinErrno;
    const { pfn, pages } = run;
    const errno = mapInto(domain, mapping.iovaPfn + page, pfn, pages, mapping.prot);
    if (errno !== Errno.OK) {
      unpinNewRun(mapping, page, run);
      return errno;
    }
    mapping.extents.append(pfn, pages, run.isReserved);
    mapping.mappedPages += pages;
  }
  return Errno.OK;
}

/** Empties a domain of a mapping again, and unpins it if it was pinned for this domain. */
function takeBack(type1: Type1, mapping: DmaMapping, domain: IommuDomain): void {
  if (mapping.isMapped) {
    domain.unmap(mapping.iovaPfn, mapping.pages);
    return;
  }
  const reader = new RunReader(type1, mapping, domain);
  while (reader.next()) {
    const { page, pfn, pages } = reader;
    if (pfn < 0) continue;
    domain.unmap(mapping.iovaPfn + page, pages);
    unpinRun(mapping, page, pfn, pages);
  }
  mapping.mappedPages = 0;
  mapping.extents.clear();
}
