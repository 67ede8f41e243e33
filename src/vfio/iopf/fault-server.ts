/**
 * Serves one page request: finds the mapping, brings the page in, maps it and some around it.
 *
 * Pages are pinned only while they are mapped, and charged to nobody; that they go away is what the
 * notifier is for. Source: RFC v3 of 2021: patch 2 (vfio_iommu_type1_dma_map_iopf), patch 3 (pages
 * are let go at once), patch 4 (IOPF_PREMAP_LEN), patch 7 (selective faulting).
 */
import { Errno } from "../../errno.ts";
import { type PageRequest, PageRequestPerm, PageResponse } from "../../iommu/iopf/page-request.ts";
import { Prot } from "../../iommu/prot.ts";
import { alignDown } from "../../units.ts";
import { createPinRun } from "../process/process-memory.ts";
import { BATCH_PAGES } from "../type1/pin.ts";
import type { Type1 } from "../type1/type1.ts";
import { BLOCK_PAGES, type FaultDomains } from "./fault-domains.ts";
import type { FaultingMapping } from "./faulting-mapping.ts";
import type { MemoryWatches } from "./memory-watches.ts";
import type { SelectiveRanges } from "./selective-ranges.ts";

/** How much is mapped at a fault. */
export interface PremapRule {
  /** Most pages (IOPF_PREMAP_LEN). */
  readonly pages: number;
  /**
   * `forward`: from the page on, up to the first that is mapped, as the proposal did; `aligned`:
   * all around the page that is not mapped, between two multiples of `pages`, a power of two.
   */
  readonly reach: "forward" | "aligned";
  /**
   * `4KiB`: a leaf for each page, so that any can go alone; `2MiB`: one leaf where a block allows
   * it, which a notifier for any of its pages takes out as a whole.
   */
  readonly leaves: "4KiB" | "2MiB";
}

/** What became of requests and pages. */
export interface FaultCounts {
  /** Requests served, whatever the answer. */
  requests: number;
  /** Of them, those whose page had been mapped meanwhile. */
  alreadyMapped: number;
  invalid: number;
  /** Pages mapped by faults. */
  pagesMapped: number;
  /** Pages taken out because the process's memory changed. */
  pagesInvalidated: number;
}

/** A request that cannot be answered before the memory behind its mapping is known again. */
export const NOT_YET = -1;

/** Memory that a mapped page may take in bitmaps, asked for before each run. */
const BITMAP_BYTES = 512;

/** Serves the faults of a container. */
export class FaultServer {
  readonly counts: FaultCounts = {
    requests: 0,
    alreadyMapped: 0,
    invalid: 0,
    pagesMapped: 0,
    pagesInvalidated: 0,
  };
  readonly #domains: FaultDomains;
  readonly #watches: MemoryWatches;
  readonly #rule: PremapRule;
  readonly #run = createPinRun();

  constructor(domains: FaultDomains, watches: MemoryWatches, rule: PremapRule) {
    this.#domains = domains;
    this.#watches = watches;
    this.#rule = rule;
  }

  /**
   * Serves a request.
   *
   * @param state - of the mapping that holds the frame; null when none does
   * @param scope - where faults of the group are served; null for everywhere
   * @returns a `PageResponse`, or {@link NOT_YET}
   */
  serve(
    type1: Type1,
    request: PageRequest,
    state: FaultingMapping | null,
    scope: SelectiveRanges | null,
  ): number {
    if (state?.mapping.isVaddrInvalid === true) return NOT_YET;
    this.counts.requests += 1;
    const { iovaPfn, perm } = request;
    const isServed =
      state !== null &&
      isPermitted(perm, state.mapping.prot) &&
      (scope === null || scope.endFrom(iovaPfn) > iovaPfn) &&
      this.#bringIn(type1, state, iovaPfn - state.mapping.iovaPfn, scope);
    if (isServed) return PageResponse.SUCCESS;
    this.counts.invalid += 1;
    return PageResponse.INVALID;
  }

  /** @returns whether the page is mapped now */
  #bringIn(type1: Type1, state: FaultingMapping, page: number, scope: SelectiveRanges | null) {
    const { mapped, mapping } = state;
    if (mapped.has(page)) {
      this.counts.alreadyMapped += 1;
      return true;
    }
    const { iovaPfn } = mapping;
    const { pages: premap, reach } = this.#rule;
    let first = page;
    let end = Math.min(page + premap, mapping.pages);
    if (reach === "aligned") {
      const start = alignDown(iovaPfn + page, premap) - iovaPfn;
      first = Math.max(start, 0);
      end = Math.min(start + premap, mapping.pages);
    } else {
      const next = mapped.next(page);
      if (next >= 0) end = Math.min(end, next);
    }
    if (scope !== null) {
      first = Math.max(first, scope.startBefore(iovaPfn + page) - iovaPfn);
      end = Math.min(end, scope.endFrom(iovaPfn + page) - iovaPfn);
    }
    this.#fill(type1, state, first, end, page);
    this.#watches.unwatchUntouched(state);
    return mapped.has(page);
  }

  /** Maps what is not mapped between two pages; what fails on the way to `wanted` is left out. */
  #fill(type1: Type1, state: FaultingMapping, first: number, end: number, wanted: number): void {
    const { mapped } = state;
    let page = first;
    while (page < end) {
      if (mapped.has(page)) {
        page = mapped.runEnd(page, end);
        continue;
      }
      const next = mapped.next(page);
      const gapEnd = next < 0 ? end : Math.min(next, end);
      const reached = this.#fillGap(type1, state, page, gapEnd);
      // Nobody asked for the pages before the wanted one: what is wrong with them is not a fault.
      if (reached < gapEnd && reached >= wanted) return;
      page = reached < gapEnd ? wanted : gapEnd;
    }
  }

  /** @returns the first page that could not be mapped, or `end` */
  #fillGap(type1: Type1, state: FaultingMapping, first: number, end: number): number {
    const { mapping } = state;
    const { memory } = mapping.process;
    if (memory === null) return first;
    const run = this.#run;
    const isWrite = (mapping.prot & Prot.WRITE) !== 0;
    let page = first;
    while (page < end) {
      if (!type1.allow(BITMAP_BYTES)) return page;
      const batch = type1.parameters.disableHugepages ? 1 : BATCH_PAGES;
      const errno = memory.pinRun(
        mapping.vpn + page,
        Math.min(end - page, batch),
        isWrite,
        batch,
        run,
      );
      if (errno !== Errno.OK) return page;
      const { pfn, pages, isReserved } = run;
      // Not before: pinning can itself call the notifier, which lets go of what has no page mapped.
      const isWatched = this.#watches.watch(state);
      const done = isWatched ? this.#mapRun(state, page, pfn, pages) : 0;
      if (!isReserved) memory.unpin(pfn, pages, isWrite);
      this.counts.pagesMapped += done;
      page += done;
      if (done < pages) return page;
    }
    return end;
  }

  /** @returns pages mapped from the run's first on */
  #mapRun(state: FaultingMapping, page: number, pfn: number, pages: number): number {
    const domains = this.#domains;
    const { iovaPfn, prot } = state.mapping;
    const hasBlocks = this.#rule.leaves === "2MiB" && domains.canMapBlocks;
    let done = 0;
    while (done < pages) {
      const at = page + done;
      if (hasBlocks && state.fitsBlock(at, pfn + done, pages - done)) {
        if (domains.mapBlock(iovaPfn + at, pfn + done, prot) !== Errno.OK) break;
        state.addBlock(at);
        done += BLOCK_PAGES;
        continue;
      }
      const toBlock = BLOCK_PAGES - ((iovaPfn + at) % BLOCK_PAGES);
      const count = hasBlocks ? Math.min(pages - done, toBlock) : pages - done;
      if (domains.mapPages(iovaPfn + at, pfn + done, count, prot) !== Errno.OK) break;
      state.mapped.addRun(at, count);
      done += count;
    }
    return done;
  }
}

/** Whether a mapping grants what a request needs; fetching is reading. */
function isPermitted(perm: number, prot: number): boolean {
  const reads = (perm & (PageRequestPerm.READ | PageRequestPerm.EXEC)) !== 0;
  const writes = (perm & PageRequestPerm.WRITE) !== 0;
  if (reads && (prot & Prot.READ) === 0) return false;
  return !writes || (prot & Prot.WRITE) !== 0;
}
