/**
 * Single calls of the IOMMU core on a domain, each billed: what a kernel's micro-benchmark of map
 * and unmap times.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { DomainType, IommuDomain, type PhysicalRun } from "../../iommu/domain.ts";
import type { PageTableFormat } from "../../iommu/formats/format.ts";
import { HardwareDomain } from "../../iommu/hardware-domain.ts";
import type { SelectiveInvalidation } from "../../iommu/invalidation.ts";
import { PageTable } from "../../iommu/page-table.ts";
import { Prot } from "../../iommu/prot.ts";
import { WalkResult } from "../../iommu/table-walk.ts";
import { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PagePool } from "../../memory/page-pool.ts";
import { meteredTrace } from "../host/metered-domain.ts";
import { type Phase, PhasedMeter } from "../host/phased-meter.ts";
import type { PriceList } from "../price-list.ts";

/** What is benchmarked. */
export interface TableMachine {
  readonly format: PageTableFormat;
  readonly prices: Readonly<Record<Phase, PriceList>>;
  /** How the unit in front of which the domain is can be told to forget; null without a unit. */
  readonly selective: SelectiveInvalidation | null;
}

/** Times of a pair of calls, picoseconds. */
export interface OperationTimes {
  readonly map: number;
  readonly unmap: number;
}

const RID = 0x100;
const TABLE_FRAMES = 2 ** 14;
const RIGHTS = Prot.READ | Prot.WRITE;

/** A domain whose calls are timed. */
export class TimedDomain {
  readonly domain: IommuDomain;
  readonly #meter: PhasedMeter;
  readonly #table: PageTable;
  readonly #walk = new WalkResult();

  constructor(machine: TableMachine) {
    const { format, prices, selective } = machine;
    const meter = new PhasedMeter(prices);
    const pool = new PagePool([{ node: 0, basePfn: 2 ** 24, frameCount: TABLE_FRAMES }]);
    const table = new PageTable({ format, pool, node: 0, meter });
    const driver = new HardwareDomain({ table });
    this.#meter = meter;
    this.#table = table;
    this.domain = new IommuDomain(DomainType.UNMANAGED, driver, meteredTrace(meter));
    if (selective === null) return;
    const iotlb = { sets: 16, ways: 4, replacement: "lru", pageShifts: format.pageShifts } as const;
    const unit = new TranslationUnit({
      name: "unit",
      node: 0,
      iotlb,
      pagingCache: null,
      selective,
      meter,
      formats: [format.name],
    });
    assert(driver.attach(unit, RID) === Errno.OK, "a fresh unit takes a domain");
  }

  /**
   * Maps runs side by side from a frame on and unmaps all of them again.
   *
   * @returns what each took; the tables above are read from the top to where the first run lies
   */
  mapAndUnmap(iovaPfn: number, runs: readonly PhysicalRun[]): OperationTimes {
    const pages = runs.reduce((sum, run) => sum + run.pages, 0);
    const map = this.#time("map", iovaPfn, () =>
      assert(this.domain.mapRuns(iovaPfn, runs, RIGHTS) === Errno.OK, "the range is free"),
    );
    const unmap = this.#time("unmap", iovaPfn, () =>
      assert(this.domain.unmap(iovaPfn, pages) === pages, "what was mapped is unmapped"),
    );
    return { map, unmap };
  }

  #time(phase: Phase, iovaPfn: number, call: () => void): number {
    const bill = this.#meter.bills[phase];
    bill.reset();
    this.#meter.phase = phase;
    this.#table.walk(iovaPfn, this.#walk);
    call();
    this.#meter.phase = null;
    let time = 0;
    for (let index = 0; index < bill.count; index += 1) time += bill.times[index]!;
    return time;
  }
}
