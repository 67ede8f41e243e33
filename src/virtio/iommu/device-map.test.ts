/** MAP: V54–V74. */
import { describe, expect, it } from "vitest";
import type { IommuListener } from "./device-listener.ts";
import { mapBytes, Rig } from "./device-rig.suite.ts";
import { FEATURES_ALL, featureSet, MapFlag } from "./protocol.ts";

const LAST = 2n ** 64n - 1n;
const { READ, WRITE, MMIO } = MapFlag;

/** A device with endpoint 8 in domain 1. */
function attached(
  settings: ConstructorParameters<typeof Rig>[0] = {},
  features = FEATURES_ALL,
): Rig {
  const rig = new Rig(settings, features);
  rig.attach(1, 8);
  return rig;
}

function refuses(rig: Rig, request: () => string, status: string): void {
  const before = rig.snapshot();
  expect(request()).toBe(status);
  expect(rig.snapshot()).toBe(before);
}

describe("MAP", () => {
  it("with an unknown flag is INVAL (V54)", () => {
    const rig = attached();
    for (let bit = 3; bit < 32; bit += 1)
      refuses(rig, () => rig.map(1, 0n, 9n, 0n, ((1 << bit) | 3) >>> 0), "INVAL");
  });

  it("with MMIO is INVAL unless the feature was negotiated (V54)", () => {
    const without = attached({}, FEATURES_ALL & ~featureSet("MMIO"));
    refuses(without, () => without.map(1, 0n, 9n, 0n, READ | MMIO), "INVAL");
    const rig = attached();
    expect(rig.map(1, 0n, 9n, 0n, READ | MMIO)).toBe("OK");
    expect(rig.mappings()).toEqual(["1: 0-9 -> 0 5"]);
  });

  it("in an unknown domain is NOENT (V55)", () => {
    const rig = attached();
    for (const domain of [0, 2, 0xffff_ffff]) refuses(rig, () => rig.map(domain, 0n, 9n), "NOENT");
  });

  it("in a bypass domain is INVAL (V56)", () => {
    const rig = new Rig();
    rig.attach(1, 8, 1);
    refuses(rig, () => rig.map(1, 0n, 9n), "INVAL");
  });

  it.each([0x1000n, 0x4000n, 0x1_0000n, 2n ** 20n, 2n ** 33n, 2n ** 63n])(
    "off the granule %i is RANGE, at each of the three addresses (V57)",
    (granule) => {
      const rig = attached({ pageSizeMask: granule, endpoints: [{ id: 8 }] });
      const start = granule < 2n ** 62n ? 2n * granule : 0n;
      const last = start + granule - 1n;
      for (const off of [1n, granule / 2n, granule - 1n]) {
        refuses(rig, () => rig.map(1, start + off, last + granule), "RANGE");
        refuses(rig, () => rig.map(1, start, last, start + off), "RANGE");
        refuses(rig, () => rig.map(1, start, last + granule - off), "RANGE");
      }
      expect(rig.map(1, start, last)).toBe("OK");
    },
  );

  it("may end at the last address of the space (V58)", () => {
    for (const granule of [1n, 0x1000n, 2n ** 30n]) {
      const rig = attached({ pageSizeMask: granule, endpoints: [{ id: 8 }] });
      const start = LAST - 2n ** 30n + 1n;
      expect(rig.map(1, start, LAST, 0x4000_0000n)).toBe("OK");
      expect(rig.reach(8, LAST)).toBe(0x7fff_ffffn);
      expect(rig.map(1, 0n, LAST, 0n)).toBe("INVAL");
      expect(rig.unmap(1, start, LAST)).toBe("OK");
    }
  });

  it("of a range that does not end above its start is INVAL (V59)", () => {
    const rig = attached();
    const pairs: [bigint, bigint][] = [
      [5n, 5n],
      [5n, 4n],
      [1n, 0n],
      [LAST, 0n],
      [0x1_0000_0000n, 0xffff_ffffn],
      [0x8000_0000n, 0x7fff_ffffn],
      [2n ** 63n, 2n ** 63n - 1n],
    ];
    for (const [start, last] of pairs) refuses(rig, () => rig.map(1, start, last, 0n), "INVAL");
  });

  it.each([
    ["the same range", 10n, 29n],
    ["a range inside", 12n, 15n],
    ["a range around", 5n, 35n],
    ["the first byte", 5n, 10n],
    ["the last byte", 29n, 40n],
    ["two mappings", 25n, 45n],
  ])("over %s of a mapping is INVAL and leaves it alone (V60)", (_, start, last) => {
    const rig = attached();
    rig.map(1, 10n, 29n, 100n, READ);
    rig.map(1, 40n, 49n, 200n, READ);
    refuses(rig, () => rig.map(1, start, last, 300n), "INVAL");
    expect(rig.reach(8, 10n)).toBe(100n);
  });

  it("beside a mapping is no overlap (V60)", () => {
    const rig = attached();
    rig.map(1, 10n, 29n);
    expect(rig.map(1, 0n, 9n)).toBe("OK");
    expect(rig.map(1, 30n, 39n)).toBe("OK");
  });

  it("reaching outside input_range is RANGE, offered or negotiated alike (V61)", () => {
    const inputRange = { start: 0x1000n, last: 0xf_ffffn };
    for (const features of [FEATURES_ALL, FEATURES_ALL & ~featureSet("INPUT_RANGE")]) {
      const rig = attached({ inputRange }, features);
      refuses(rig, () => rig.map(1, 0xfffn, 0x1fffn), "RANGE");
      refuses(rig, () => rig.map(1, 0xf_0000n, 0x10_0000n), "RANGE");
      refuses(rig, () => rig.map(1, 0n, LAST), "RANGE");
      refuses(rig, () => rig.map(1, 0x20_0000n, 0x20_0fffn), "RANGE");
      expect(rig.map(1, 0x1000n, 0xf_ffffn)).toBe("OK");
    }
    const open = attached({ inputRange, features: FEATURES_ALL & ~featureSet("INPUT_RANGE") });
    expect(open.map(1, 0x20_0000n, 0x20_0fffn)).toBe("OK");
  });

  it("over a reserved region of any endpoint of the domain is RANGE (V62)", () => {
    const region = (start: bigint, last: bigint) => ({ start, last, kind: "reserved" }) as const;
    const endpoints = [
      { id: 8, reserved: [region(0x1000n, 0x1fffn)] },
      { id: 16, reserved: [region(0x1000n, 0x1fffn), region(0x8008n, 0x800fn)] },
    ];
    const rig = attached({ endpoints });
    expect(rig.map(1, 0x8000n, 0x8fffn)).toBe("OK");
    rig.unmap(1, 0x8000n, 0x8fffn);
    rig.attach(1, 16);
    for (const [start, last] of [
      [0x1000n, 0x1fffn],
      [0xfffn, 0x1000n],
      [0x1fffn, 0x2000n],
      [0x8000n, 0x8008n],
      [0x800fn, 0x8fffn],
      [0n, 0xffffn],
    ] as const)
      refuses(rig, () => rig.map(1, start, last), "RANGE");
    expect(rig.map(1, 0n, 0xfffn)).toBe("OK");
    expect(rig.map(1, 0x2000n, 0x8007n)).toBe("OK");
    rig.detach(1, 16);
    expect(rig.map(1, 0x8008n, 0x800fn)).toBe("OK");
    refuses(rig, () => rig.map(1, 0x1000n, 0x1fffn), "RANGE");
  });

  it("to a physical range that passes the end of the space is RANGE (V64)", () => {
    const rig = attached();
    refuses(rig, () => rig.map(1, 0n, 0xffffn, LAST), "RANGE");
    refuses(rig, () => rig.map(1, 0n, 0xffffn, LAST - 0xfffen), "RANGE");
    refuses(rig, () => rig.map(1, 1n, LAST, 2n), "RANGE");
    expect(rig.map(1, 0n, 0xffffn, LAST - 0xffffn)).toBe("OK");
    expect(rig.reach(8, 0xffffn)).toBe(LAST);
  });

  it("to an address that is no memory is accepted: an access is judged later (V65)", () => {
    const rig = attached();
    expect(rig.map(1, 0n, 0xfffn, 2n ** 60n)).toBe("OK");
  });

  it("without READ and WRITE denies everything and is in the way (V66)", () => {
    const rig = attached();
    expect(rig.map(1, 0n, 9n, 0n, 0)).toBe("OK");
    expect(rig.access(8, 0n, 1, READ)).toEqual({ reason: 2, address: 0n });
    expect(rig.access(8, 0n, 1, WRITE)).toEqual({ reason: 2, address: 0n });
    refuses(rig, () => rig.map(1, 9n, 10n), "INVAL");
  });

  it("makes every byte reachable at PA = VA - virt_start + phys_start (V67)", () => {
    const rig = attached();
    rig.attach(1, 16);
    rig.map(1, 0x1ffbn, 0x4003n, 0x9_0ffdn);
    for (const endpoint of [8, 16]) {
      expect(rig.reach(endpoint, 0x1ffan)).toBe(null);
      expect(rig.reach(endpoint, 0x1ffbn)).toBe(0x9_0ffdn);
      expect(rig.reach(endpoint, 0x2000n)).toBe(0x9_1002n);
      expect(rig.reach(endpoint, 0x4003n)).toBe(0x9_3005n);
      expect(rig.reach(endpoint, 0x4004n)).toBe(null);
    }
  });

  it("lets nothing be written without WRITE, nor read without READ (V68)", () => {
    const rig = attached();
    rig.map(1, 0n, 9n, 0n, READ);
    rig.map(1, 10n, 19n, 0n, WRITE);
    expect(rig.reach(8, 0n, WRITE)).toBe(null);
    expect(rig.reach(8, 0n, READ)).toBe(0n);
    expect(rig.reach(8, 10n, WRITE)).toBe(0n);
    expect(rig.reach(8, 10n, READ)).toBe(null);
    expect(rig.reach(8, 0n, READ | WRITE)).toBe(null);
  });

  it("over many mappings gives an access as a list, contiguous or not (V70)", () => {
    const rig = attached();
    rig.map(1, 100n, 109n, 1000n);
    rig.map(1, 110n, 119n, 500n);
    rig.map(1, 120n, 129n, 510n);
    expect(rig.access(8, 105n, 20)).toEqual([
      { phys: 1005n, bytes: 5 },
      { phys: 500n, bytes: 10 },
      { phys: 510n, bytes: 5 },
    ]);
  });

  it("with a hole or a missing right in an access's middle refuses it all, there (V71)", () => {
    const rig = attached();
    rig.map(1, 100n, 109n);
    rig.map(1, 112n, 119n);
    rig.map(1, 120n, 129n, 0n, READ);
    expect(rig.access(8, 105n, 10)).toEqual({ reason: 2, address: 110n });
    expect(rig.access(8, 115n, 10, WRITE)).toEqual({ reason: 2, address: 120n });
    expect(rig.access(8, 115n, 16)).toEqual({ reason: 2, address: 130n });
    expect(rig.access(8, 90n, 40)).toEqual({ reason: 2, address: 90n });
  });

  it("beyond a limit is NOMEM, and again possible after an UNMAP (V72)", () => {
    const rig = attached({ domainMappingsMax: 3 });
    for (const start of [0n, 10n, 20n]) rig.map(1, start, start + 9n);
    refuses(rig, () => rig.map(1, 30n, 39n), "NOMEM");
    refuses(rig, () => rig.map(1, 20n, 29n), "INVAL");
    rig.unmap(1, 0n, 9n);
    expect(rig.map(1, 30n, 39n)).toBe("OK");
  });

  it("that a back end cannot take is taken back and answered DEVERR (V73)", () => {
    const rig = attached();
    const heard: string[] = [];
    const listener = (name: string, limit: bigint): IommuListener => ({
      mapped(domain, startPfn, _, lastPfn) {
        heard.push(`${name} map ${domain} ${startPfn}-${lastPfn}`);
        return BigInt(lastPfn) < limit;
      },
      unmapped(domain, startPfn, _, lastPfn) {
        heard.push(`${name} unmap ${domain} ${startPfn}-${lastPfn}`);
      },
    });
    rig.device.addListener(listener("a", 100n));
    rig.device.addListener(listener("b", 10n));
    expect(rig.map(1, 0x1000n, 0x1fffn)).toBe("OK");
    heard.length = 0;
    refuses(rig, () => rig.map(1, 0x1_0000n, 0x1_ffffn), "DEVERR");
    expect(heard).toEqual(["a map 1 16-31", "b map 1 16-31", "a unmap 1 16-31", "b unmap 1 16-31"]);
    expect(rig.device.mappingCount).toBe(1);
  });

  it("takes the whole space but a hole as two ranges (V74)", () => {
    const rig = attached({ pageSizeMask: 0x1000n });
    const hole = { start: 0xfee0_0000n, last: 0xfeef_ffffn };
    expect(rig.map(1, 0n, hole.start - 1n, 0n)).toBe("OK");
    expect(rig.map(1, hole.last + 1n, LAST, hole.last + 1n)).toBe("OK");
    expect(rig.reach(8, hole.start - 1n)).toBe(hole.start - 1n);
    expect(rig.access(8, hole.start, 4, WRITE)).toBe("msi");
    expect(rig.reach(8, LAST)).toBe(LAST);
    expect(rig.access(8, hole.last + 1n, 2 ** 52)).toEqual([
      { phys: hole.last + 1n, bytes: 2 ** 52 },
    ]);
  });

  it("with several errors gives the status of one of them (V40)", () => {
    const rig = attached({ pageSizeMask: 0x1000n, inputRange: { start: 0n, last: 0xfff_ffffn } });
    refuses(rig, () => rig.map(2, 5n, 4n, LAST, 8), "INVAL");
    refuses(rig, () => rig.map(2, 1n, LAST, 1n), "NOENT");
    refuses(rig, () => rig.map(1, 1n, LAST, 1n), "RANGE");
    expect(rig.status(mapBytes(1, 0n, 0xfffn, 0n, 3))).toBe("OK");
    refuses(rig, () => rig.map(1, 0n, 0xffffn, LAST - 0xfffn), "RANGE");
  });
});
