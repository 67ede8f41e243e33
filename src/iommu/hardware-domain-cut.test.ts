import { describe, expect, it } from "vitest";
import { PagePool } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import { DomainType, IommuDomain } from "./domain.ts";
import { armStage1 } from "./formats/arm-stage1.ts";
import { HardwareDomain } from "./hardware-domain.ts";
import { PageTable } from "./page-table.ts";
import { Prot } from "./prot.ts";
import { TranslationUnit } from "./translation-unit.ts";

const RIGHTS = Prot.READ | Prot.WRITE;
const BLOCK = 512;

/** A domain with Arm's tables in front of a unit that invalidates ranges. */
function createDomain() {
  const format = armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 });
  const meter = new CountingMeter();
  const pool = new PagePool([{ node: 0, basePfn: 2 ** 24, frameCount: 256 }]);
  const driver = new HardwareDomain({ table: new PageTable({ format, pool, node: 0 }) });
  const unit = new TranslationUnit({
    name: "smmu",
    node: 0,
    iotlb: { sets: 16, ways: 4, replacement: "lru", pageShifts: [12, 21] },
    pagingCache: null,
    selective: { kind: "range" },
    meter,
    formats: [format.name],
  });
  expect(driver.attach(unit, 0x100)).toBe(0);
  return { meter, domain: new IommuDomain(DomainType.UNMANAGED, driver) };
}

describe("blocks unmapped from Arm's tables (io-pgtable-arm.c, __arm_lpae_unmap)", () => {
  it("are invalidated once when a table of pages goes, and waited for once", () => {
    const { domain, meter } = createDomain();
    for (let page = 0; page < BLOCK; page += 1) domain.map(page, 2 ** 20 + 2 * page, 1, RIGHTS);
    meter.reset();
    expect(domain.unmap(0, BLOCK)).toBe(BLOCK);
    expect(meter.amount("invalidateRange")).toBe(BLOCK);
    expect(meter.amount("invalidateWait")).toBe(1);
  });

  it("are gathered when they are leaves, and when only some are tables", () => {
    const { domain, meter } = createDomain();
    domain.map(0, 2 ** 20, BLOCK, RIGHTS);
    domain.map(BLOCK, 2 ** 21 + 1, BLOCK, RIGHTS);
    meter.reset();
    expect(domain.unmap(0, 2 * BLOCK)).toBe(2 * BLOCK);
    expect(meter.events("invalidateRange")).toBe(2);
    expect(meter.amount("invalidateWait")).toBe(2);
    domain.map(0, 2 ** 20, BLOCK, RIGHTS);
    meter.reset();
    expect(domain.unmap(0, BLOCK)).toBe(BLOCK);
    expect(meter.amount("invalidateRange")).toBe(BLOCK);
  });
});
