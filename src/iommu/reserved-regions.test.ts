import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { addressOf } from "../units.ts";
import { IommuDevice } from "./device.ts";
import { createDirectMappings } from "./direct-mappings.ts";
import { DomainType, IommuDomain } from "./domain.ts";
import { FakeOps } from "./group-world.suite.ts";
import { makeDomain, makePool } from "./hardware-world.suite.ts";
import {
  amdRegions,
  combineRegions,
  forbidMapping,
  MSI_WINDOW,
  type ReservedRegion,
  ReservedType,
  regionsText,
  SW_MSI_WINDOW,
  smmuRegions,
  virtioRegions,
  vtdRegions,
} from "./reserved-regions.ts";
import { ScriptedDriver } from "./scripted-driver.suite.ts";

const { DIRECT, DIRECT_RELAXABLE, RESERVED, MSI } = ReservedType;
const region = (type: ReservedRegion["type"], start: number, last: number): ReservedRegion => {
  return { type, start: BigInt(start), last: BigInt(last), prot: 3 };
};

describe("combineRegions", () => {
  it("merges overlapping and adjacent regions of one type only, sorted by start, then type", () => {
    const lists = [
      [region(RESERVED, 30, 39), region(DIRECT, 10, 19), MSI_WINDOW],
      [region(RESERVED, 20, 29), region(RESERVED, 10, 15), region(DIRECT, 41, 50), MSI_WINDOW],
      [region(RESERVED, 35, 60)],
    ];
    expect(combineRegions(lists)).toEqual([
      region(DIRECT, 10, 19),
      region(RESERVED, 10, 15),
      region(RESERVED, 20, 60),
      region(DIRECT, 41, 50),
      MSI_WINDOW,
    ]);
  });

  it("reaches the end of the address space", () => {
    const last = 2n ** 64n - 1n;
    const top = { type: RESERVED, start: last - 9n, last, prot: 0 };
    const below = { type: RESERVED, start: last - 20n, last: last - 10n, prot: 0 };
    expect(combineRegions([[top], [below]])).toEqual([{ ...top, start: last - 20n }]);
  });

  it("covers, type by type, the addresses that a plain set of them holds", () => {
    const any = fc
      .tuple(fc.constantFrom(DIRECT, RESERVED, MSI), fc.nat(40), fc.nat(8))
      .map(([type, start, more]) => region(type, start, start + more));
    const property = fc.property(fc.array(fc.array(any, { maxLength: 6 })), (lists) => {
      const combined = combineRegions(lists);
      const cover = (regions: readonly ReservedRegion[], type: number) => {
        const covered = new Set<bigint>();
        for (const each of regions) {
          if (each.type !== type) continue;
          for (let at = each.start; at <= each.last; at += 1n) covered.add(at);
        }
        return [...covered].sort((a, b) => Number(a - b));
      };
      for (const type of [DIRECT, RESERVED, MSI]) {
        expect(cover(combined, type)).toEqual(cover(lists.flat(), type));
        const own = combined.filter((each) => each.type === type);
        for (let index = 1; index < own.length; index += 1) {
          expect(own[index]!.start).toBeGreaterThan(own[index - 1]!.last + 1n);
        }
      }
      const keys = combined.map((each) => Number(each.start) * 8 + each.type);
      expect(keys).toEqual([...keys].sort((a, b) => a - b));
    });
    fc.assert(property, { seed: 20261121, numRuns: 300 });
  });
});

describe("regionsText", () => {
  it("is one line a region, as the file in sysfs has it", () => {
    expect(regionsText([...smmuRegions(), MSI_WINDOW, region(DIRECT_RELAXABLE, 0, 15)])).toBe(
      "0x0000000008000000 0x00000000080fffff msi\n" +
        "0x00000000fee00000 0x00000000feefffff msi\n" +
        "0x0000000000000000 0x000000000000000f direct-relaxable\n",
    );
  });
});

describe("a user's mapping", () => {
  it("row 33: at 0xfee00000 stands in the way of an x86 group", () => {
    const regions = vtdRegions(0x020000, []);
    expect(forbidMapping(regions, 0xfee0_0000n, 0xfee0_0fffn)).toBe(true);
    expect(forbidMapping(regions, 0xfedf_f000n, 0xfedf_ffffn)).toBe(false);
    expect(forbidMapping(regions, 0n, 2n ** 64n - 1n)).toBe(true);
  });

  it("row 34: over a relaxable RMRR of a GPU does not, over that of a NIC does", () => {
    const rmrr = [{ start: 0x9000_0000n, last: 0x9fff_ffffn }];
    const over = (classCode: number) =>
      forbidMapping(vtdRegions(classCode, rmrr), 0x9000_0000n, 0x9000_0fffn);
    expect(over(0x030000)).toBe(false);
    expect(over(0x0c0330)).toBe(false);
    expect(over(0x020000)).toBe(true);
    expect(over(-1)).toBe(true);
  });
});

describe("what drivers report", () => {
  it("VT-d: an ISA bridge has the first 16 MiB, everything has the MSI window", () => {
    expect(regionsText(combineRegions([vtdRegions(0x060100, []), vtdRegions(0x0c0500, [])]))).toBe(
      "0x0000000000000000 0x0000000000ffffff direct-relaxable\n" +
        "0x00000000fee00000 0x00000000feefffff msi\n",
    );
  });

  it("AMD: unity and exclusion ranges, the MSI window and the HyperTransport hole", () => {
    const range = { start: 0x1000n, last: 0x1fffn, prot: 3 };
    const regions = amdRegions([
      { ...range, excluded: false },
      { ...range, excluded: true },
    ]);
    expect(regions.map(({ type }) => type)).toEqual([DIRECT, RESERVED, MSI, RESERVED]);
    expect(regions[3]).toMatchObject({ start: 0xfd_0000_0000n, last: 0xff_ffff_ffffn });
  });

  it("row 85: virtio-iommu adds the software MSI window unless a probe gave an MSI region", () => {
    expect(virtioRegions([])).toEqual([SW_MSI_WINDOW]);
    expect(virtioRegions([region(RESERVED, 0, 9)])).toHaveLength(2);
    expect(virtioRegions([MSI_WINDOW])).toEqual([MSI_WINDOW]);
  });
});

describe("direct mappings", () => {
  const makeDevice = (regions: ReservedRegion[]) => {
    const ops = new FakeOps();
    ops.regions.set("d", regions);
    return new IommuDevice({ name: "d", ops });
  };

  it("map direct and relaxable regions to themselves, at the smallest page, in a DMA domain", () => {
    const { domain } = makeDomain(makePool());
    const device = makeDevice([
      region(DIRECT_RELAXABLE, 0x1000, 0x4fff),
      region(DIRECT, 0x7_f000, 0x8_0fff),
      region(RESERVED, 0x20_0000, 0x20_ffff),
      MSI_WINDOW,
    ]);
    expect(createDirectMappings(domain, device)).toBe(Errno.OK);
    expect([domain.iovaToPhys(1), device.requireDirect]).toEqual([-1, true]);
    domain.type = DomainType.DMA_FQ;
    expect(createDirectMappings(domain, device)).toBe(Errno.OK);
    const mapped = [0, 1, 4, 5, 0x7e, 0x7f, 0x80, 0x81, 0x200].map((pfn) => domain.iovaToPhys(pfn));
    expect(mapped).toEqual([-1, 1, 4, -1, -1, 0x7f, 0x80, -1, -1]);
  });

  it("only fill what is not mapped yet, so that a second device may have the same region", () => {
    const driver = new ScriptedDriver("range");
    const holes = new Set([3, 4, 7]);
    driver.iovaToPhys = (pfn) => (holes.has(pfn) ? -1 : pfn);
    const domain = new IommuDomain(DomainType.DMA, driver);
    const device = makeDevice([region(DIRECT_RELAXABLE, 0x1000, 0x8fff)]);
    expect(createDirectMappings(domain, device)).toBe(Errno.OK);
    const maps = driver.calls.filter((call) => call.startsWith("map"));
    expect(maps).toEqual(["map 3 3 2x2^12", "map 7 7 1x2^12"]);
    expect([driver.calls.at(-1), device.requireDirect]).toEqual(["flush", false]);
  });

  it("meet EADDRINUSE at page 0 the second time, as its address 0 reads as not mapped", () => {
    const { domain } = makeDomain(makePool());
    domain.type = DomainType.DMA;
    const device = makeDevice([region(DIRECT_RELAXABLE, 0, 0xff_ffff)]);
    expect(createDirectMappings(domain, device)).toBe(Errno.OK);
    expect(domain.iovaToPhys(0xfff)).toBe(0xfff);
    expect(createDirectMappings(domain, device)).toBe(Errno.EADDRINUSE);
  });

  it("of a region that starts and ends inside a page leave the first part out", () => {
    const { domain } = makeDomain(makePool());
    domain.type = DomainType.DMA;
    createDirectMappings(domain, makeDevice([region(DIRECT, 0x1800, 0x37ff)]));
    expect([1, 2, 3, 4].map((pfn) => domain.iovaToPhys(pfn))).toEqual([-1, 2, 3, -1]);
  });

  it("of the whole address space are refused in no time", () => {
    const { domain } = makeDomain(makePool());
    domain.type = DomainType.DMA;
    const all = { type: DIRECT, start: 0n, last: addressOf(2 ** 52 - 1, 4095), prot: 3 };
    expect(createDirectMappings(domain, makeDevice([all]))).toBe(Errno.ERANGE);
  });
});
