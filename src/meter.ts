/**
 * Steps: what mechanism reports about its own work, so that a world can count or price it.
 *
 * A mechanism file calls `meter.step(Step.x, amount, place)` at the moment the real system would
 * do the work. The simulator turns steps into time, a live server into metrics, `replay` into
 * counts; a benchmark passes {@link NULL_METER}. No mechanism contains a delay.
 */

/**
 * Every step there is. `place` is the NUMA node where one is named, else 0.
 * Append new steps to the end of their group; numbers are not public, names are.
 */
export const Step = {
  /** A page-table table was allocated; amount = 4 KiB frames, place = node. */
  tableAlloc: 0,
  /** A page-table table was given back; amount = 4 KiB frames, place = node. */
  tableFree: 1,
  /** Page-table entries were written; amount = entries, place = node of the table. */
  entryWrite: 2,
  /** A walk read a page-table entry; amount = entries, place = node of the table. */
  entryRead: 3,
  /** A translation was found in an IOTLB. */
  iotlbHit: 4,
  /** A translation was not found in an IOTLB. */
  iotlbMiss: 5,
  /** An IOTLB entry was displaced by a fill. */
  iotlbEvict: 6,
  /** A walk started from a paging-structure cache; amount = levels skipped. */
  pagingCacheHit: 7,
  /** A walk found nothing in the paging-structure cache. */
  pagingCacheMiss: 8,
  /** A translation was found in a device's ATS cache. */
  atsHit: 9,
  /** A device asked its IOMMU by an ATS translation request. */
  atsRequest: 10,
  /** A page-selective IOTLB invalidation was issued; amount = pages it covers. */
  invalidateRange: 11,
  /** A domain-selective IOTLB invalidation was issued. */
  invalidateDomain: 12,
  /** A global IOTLB invalidation was issued. */
  invalidateGlobal: 13,
  /** A device's ATS cache was invalidated. */
  invalidateDevice: 14,
  /** The CPU waited for the invalidations in flight to complete. */
  invalidateWait: 15,
  /** A device was attached to a domain. */
  attach: 16,
  /** A DMA was refused: a fault was recorded. */
  fault: 17,
  /** An IOVA came out of a per-CPU magazine. */
  iovaCacheHit: 18,
  /** A magazine moved between a CPU and the depot. */
  iovaDepot: 19,
  /** An IOVA was searched for in the tree; amount = gaps looked at. */
  iovaTreeSearch: 20,
  /** An IOVA range went back into a magazine. */
  iovaCacheFree: 21,
  /** An IOVA range went back into the tree. */
  iovaTreeFree: 22,
  /** An unmapped range was put on a flush queue. */
  flushQueueAdd: 23,
  /** A flush queue was flushed because it was full. */
  flushFull: 24,
  /** A flush queue was flushed because its timer expired. */
  flushTimer: 25,
  /** The flush-queue timer was armed. */
  flushTimerArm: 26,
  /** A request was put on a virtqueue; amount = requests. */
  virtqueueAdd: 27,
  /** The driver notified the device of a virtqueue. */
  virtqueueKick: 28,
  /** The driver waited until its requests were completed; amount = requests completed. */
  virtqueueSync: 29,
  /** A MAP request was sent or handled. */
  requestMap: 30,
  /** An UNMAP request was sent or handled. */
  requestUnmap: 31,
  /** An ATTACH, DETACH or PROBE request was sent or handled. */
  requestOther: 32,
  /** Range-map entries were inserted; amount = entries. */
  rangeInsert: 33,
  /** Range-map entries were removed; amount = entries. */
  rangeRemove: 34,
  /** GUP was called for a batch of up to 512 pages, and gave some; amount = calls. */
  pinBatch: 35,
  /** Pages were pinned; amount = pages. */
  pagePin: 36,
  /** Pages were unpinned; amount = pages. */
  pageUnpin: 37,
  /** A page was faulted into a process; amount = pages, place = node of the memory. */
  pageFault: 38,
  /** A process's page table was looked up for memory without pages; amount = lookups. */
  pfnLookup: 39,
  /** A domain was asked for the physical address of a frame; amount = lookups. */
  physLookup: 40,
  /** A system call of the user's; amount = calls. */
  userCall: 41,
  /** An I/O page fault was reported; amount = page requests. */
  pageRequest: 42,
  /** A group of page requests was answered. */
  pageResponse: 43,
  /** An MMU notifier ran; amount = pages it covers. */
  notifierCall: 44,
  /** GUP was called and gave nothing, as for memory without pages; amount = calls. */
  pinRefused: 45,
  /** The IOMMU core was asked to map a run; amount = pages. */
  domainMap: 46,
  /** The IOMMU core was asked to unmap a run; amount = pages. */
  domainUnmap: 47,
} as const;

/** Name of a step. */
export type StepName = keyof typeof Step;

/** Receives steps. Implementations must not throw. */
export interface Meter {
  /**
   * @param step - a number out of {@link Step}
   * @param amount - how often, or how much: see the step
   * @param place - NUMA node, or 0
   */
  step(step: number, amount: number, place: number): void;
}

/** Forgets every step. */
export const NULL_METER: Meter = { step() {} };

const stepNames = Object.keys(Step) as StepName[];

/** Counts steps: how often each was reported and the sum of its amounts, in all and by place. */
export class CountingMeter implements Meter {
  readonly #events = new Float64Array(stepNames.length);
  readonly #amounts = new Float64Array(stepNames.length);
  readonly #amountsByPlace: Float64Array[] = [];

  step(step: number, amount: number, place: number): void {
    this.#events[step]! += 1;
    this.#amounts[step]! += amount;
    if (place === 0) return;
    let counts = this.#amountsByPlace[place];
    if (counts === undefined) {
      counts = new Float64Array(stepNames.length);
      this.#amountsByPlace[place] = counts;
    }
    counts[step]! += amount;
  }

  /** How often the step was reported. */
  events(name: StepName): number {
    return this.#events[Step[name]]!;
  }

  /** Sum of the step's amounts over all places. */
  amount(name: StepName): number {
    return this.#amounts[Step[name]]!;
  }

  /** Sum of the step's amounts at one place. */
  amountAt(name: StepName, place: number): number {
    if (place !== 0) return this.#amountsByPlace[place]?.[Step[name]] ?? 0;
    let others = 0;
    for (const counts of this.#amountsByPlace) others += counts?.[Step[name]] ?? 0;
    return this.amount(name) - others;
  }

  /** Forgets everything counted so far. */
  reset(): void {
    this.#events.fill(0);
    this.#amounts.fill(0);
    this.#amountsByPlace.length = 0;
  }
}
