/**
 * A hardware IOMMU for a stack: VT-d second-stage tables of four levels, one unit with an IOTLB and
 * page-selective invalidation, one device behind it.
 *
 * Bare metal is meant, so the unit is without caching mode and a new mapping needs no sync: the
 * policies with "+map" equal those without. Nothing says which pages the device touched, so every
 * range unmapped but not invalidated counts as reachable: an upper bound.
 */

import type { Policy } from "../../dma/policy.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain } from "../../iommu/domain.ts";
import { vtdSecondStage } from "../../iommu/formats/vtd-second-stage.ts";
import { HardwareDomain } from "../../iommu/hardware-domain.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { Step } from "../../meter.ts";
import type { RunMeter } from "./run-meter.ts";
import type { StackBackend } from "./translated-stack.ts";

const LEVELS = 4;
/** 512 MiB of page tables at most: 256 GiB mapped by 4 KiB pages. */
const POOL_FRAMES = 2 ** 17;
/** First frame of the tables' memory: below 2^40, as an entry holds it. */
const POOL_BASE_PFN = 2 ** 39;
const REQUESTER = 0x0100;

/** Builds the IOMMU. */
export function buildHardware(policy: Policy, meter: RunMeter): StackBackend {
  const pool = new PagePool([{ node: 0, basePfn: POOL_BASE_PFN, frameCount: POOL_FRAMES }]);
  const peaks = new Array<number>(LEVELS).fill(0);
  let table: PageTable | null = null;
  let isReachEnded = false;
  const watch = {
    step(step: number, amount: number, place: number): void {
      meter.step(step, amount, place);
      if (step === Step.invalidateDomain || step === Step.invalidateGlobal) isReachEnded = true;
      else if (step === Step.invalidateRange) isReachEnded = true;
      else if (step === Step.tableAlloc && table !== null) notePeaks(table, peaks);
    },
  };
  table = PageTable.create({
    format: vtdSecondStage({ levels: LEVELS }),
    pool,
    node: 0,
    meter: watch,
  });
  assert(table !== null, "an empty pool has room for a root");
  notePeaks(table, peaks);
  const tables = table;
  const unit = new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21, 30] },
    pagingCache: { sets: 8, ways: 4, replacement: "lru" },
    selective: { kind: "mask", maskMax: 18 },
    meter: watch,
  });
  const driver = new HardwareDomain({ table });
  assert(driver.attach(unit, REQUESTER) === 0, "a fresh unit takes a device");
  let maps = 0;
  let unmaps = 0;
  const trace = {
    map(): void {
      if (meter.counting) maps += 1;
    },
    unmap(): void {
      if (meter.counting) unmaps += 1;
    },
  };
  const type = policy.mode === "lazy" ? DomainType.DMA_FQ : DomainType.DMA;
  return {
    domain: new IommuDomain(type, driver, trace),
    beforeUnmap(): void {
      isReachEnded = false;
    },
    hasReach: () => !isReachEnded,
    mapCommands: () => maps,
    unmapCommands: () => unmaps,
    invalidationCounts: () => ({
      range: meter.events("invalidateRange"),
      domain: meter.events("invalidateDomain"),
      global: meter.events("invalidateGlobal"),
    }),
    tableCounts: () => ({
      pagesByLevel: peaks,
      peakBytes: tables.tableBytesPeak,
      entryWrites: meter.amount("entryWrite"),
    }),
  };
}

function notePeaks(table: PageTable, peaks: number[]): void {
  for (let level = 0; level < peaks.length; level += 1) {
    peaks[level] = Math.max(peaks[level]!, table.tableCount(level));
  }
}
