/** Units, domains and devices that the tests of this room build their cases from. */
import { PagePool } from "../memory/page-pool.ts";
import type { CountingMeter } from "../meter.ts";
import { type DomainTrace, DomainType, IommuDomain } from "./domain.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { HardwareDomain, type HardwareDomainOptions } from "./hardware-domain.ts";
import type { IotlbGeometry } from "./iotlb.ts";
import { PageTable } from "./page-table.ts";
import { NO_PASID } from "./tag-array.ts";
import {
  Outcome,
  Translation,
  TranslationUnit,
  type TranslationUnitOptions,
} from "./translation-unit.ts";

export const SMALL_IOTLB: IotlbGeometry = {
  sets: 16,
  ways: 4,
  replacement: "lru",
  pageShifts: [12, 21, 30],
};

/** A VT-d-like unit; options replace its properties. */
export function makeUnit(
  meter: CountingMeter,
  options: Partial<TranslationUnitOptions> = {},
): TranslationUnit {
  return new TranslationUnit({
    name: "dmar0",
    node: 0,
    iotlb: SMALL_IOTLB,
    pagingCache: { sets: 4, ways: 4, replacement: "lru" },
    selective: { kind: "mask", maskMax: 18 },
    meter,
    ...options,
  });
}

/** A pool with one node of 64 MiB. */
export function makePool(): PagePool {
  return new PagePool([{ node: 0, basePfn: 0x10_0000, frameCount: 16384 }]);
}

/** A paging domain over a fresh page table. */
export function makeDomain(
  pool: PagePool,
  format: PageTableFormat = vtdSecondStage({ levels: 4 }),
  options: Partial<HardwareDomainOptions> = {},
  trace: DomainTrace | null = null,
): { domain: IommuDomain; hardware: HardwareDomain } {
  const table = new PageTable({ format, pool, node: 0 });
  const hardware = new HardwareDomain({ table, ...options });
  return { domain: new IommuDomain(DomainType.UNMANAGED, hardware, trace), hardware };
}

/** The frame that a device's access reaches, −1 for a fault. */
export function reach(unit: TranslationUnit, rid: number, iovaPfn: number, access = 1): number {
  const out = new Translation();
  return unit.translate(rid, NO_PASID, iovaPfn, access, out) === Outcome.FAULT ? -1 : out.physPfn;
}

/** Like {@link reach}, of a device that speaks ATS. */
export function reachAts(unit: TranslationUnit, rid: number, iovaPfn: number, access = 1): number {
  const out = new Translation();
  const outcome = unit.translateAts(rid, NO_PASID, iovaPfn, access, out);
  return outcome === Outcome.FAULT ? -1 : out.physPfn;
}

/** How often the meter saw each invalidation step. */
export function invalidations(meter: CountingMeter): Record<string, number> {
  return {
    range: meter.events("invalidateRange"),
    domain: meter.events("invalidateDomain"),
    global: meter.events("invalidateGlobal"),
    device: meter.events("invalidateDevice"),
    wait: meter.events("invalidateWait"),
  };
}
