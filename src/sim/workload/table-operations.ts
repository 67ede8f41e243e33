/**
 * Single calls of the IOMMU core on a domain, each billed: what a kernel's micro-benchmark of map
 * and unmap times.
 */

import { DmaDirection } from "../../dma/direction.ts";
import { DMA_ERROR, DmaDevice } from "../../dma/dma-device.ts";
import { DmaDomain } from "../../dma/dma-domain.ts";
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
import { PAGE_BYTES } from "../../units.ts";
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
  #dma: DmaDevice | null = null;

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

  /** The same through the DMA API in strict mode, which finds the IOVA: one buffer of so many pages. */
  mapAndUnmapDma(physPfn: number, pages: number): OperationTimes {
    this.#dma ??= this.#dmaDevice();
    const device = this.#dma;
    const bytes = pages * PAGE_BYTES;
    let iovaPfn = 0;
    const map = this.#timeCall("map", () => {
      iovaPfn = device.mapPage(physPfn, 0, bytes, DmaDirection.BIDIRECTIONAL, 0, 0);
      assert(iovaPfn !== DMA_ERROR, "there are IOVAs");
    });
    const unmap = this.#timeCall("unmap", () => device.unmapPage(iovaPfn, 0, bytes, 0, 0));
    return { map, unmap };
  }

  #dmaDevice(): DmaDevice {
    // Strict mode arms no timer.
    const timer = { arm() {} };
    const dma = new DmaDomain(this.domain, { cpus: 1, timer, meter: this.#meter });
    assert(dma.init({ regions: [] }) === Errno.OK, "a fresh domain takes a device");
    return new DmaDevice(dma, { isPci: true });
  }

  #time(phase: Phase, iovaPfn: number, call: () => void): number {
    return this.#timeCall(phase, () => {
      this.#table.walk(iovaPfn, this.#walk);
      call();
    });
  }

  #timeCall(phase: Phase, call: () => void): number {
    const bill = this.#meter.bills[phase];
    bill.reset();
    this.#meter.phase = phase;
    call();
    this.#meter.phase = null;
    let time = 0;
    for (let index = 0; index < bill.count; index += 1) time += bill.times[index]!;
    return time;
  }
}
