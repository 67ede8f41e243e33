/** PROBE and reserved regions: rows 85 and 86 of "linux-dma-path", 11; rules V93 to V105. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { parseProperties, SW_MSI } from "./driver-probe.ts";
import { DriverWorld } from "./driver-scripted.suite.ts";
import { ALL_CORRECTIONS, LINUX_7_2 } from "./driver-settings.ts";
import { RequestType, Status } from "./protocol.ts";

const corrected = { ...LINUX_7_2, corrections: ALL_CORRECTIONS };

/** One RESV_MEM property. */
function region(
  start: bigint,
  last: bigint,
  options: { subtype?: number; type?: number; length?: number } = {},
): number[] {
  const bytes = new Uint8Array(24);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, options.type ?? 1, true);
  view.setUint16(2, options.length ?? 20, true);
  bytes.set([options.subtype ?? 0, 0xaa, 0xbb, 0xcc], 4);
  view.setBigUint64(8, start, true);
  view.setBigUint64(16, last, true);
  return [...bytes];
}

function parse(bytes: readonly number[], settings = LINUX_7_2, size = 128) {
  const area = new Uint8Array(size);
  area.set(bytes);
  return parseProperties(area, settings);
}

/** A driver whose device answers PROBE with these properties. */
function probing(bytes: readonly number[], answer = {}): DriverWorld {
  const world = new DriverWorld({ probeSize: 128 });
  world.device.answer = (_, type) =>
    type === RequestType.PROBE ? { bytes: [...bytes], ...answer } : {};
  return world;
}

describe("row 85, V105: the software MSI window", () => {
  it("is added where the device names no MSI region", () => {
    const world = probing(region(0x1000n, 0x1fffn));
    const endpoint = world.endpoint(8);
    expect(world.driver.reservedRegions(endpoint)).toEqual([
      { start: 0x1000n, last: 0x1fffn, kind: "reserved" },
      { start: 0x800_0000n, last: 0x80f_ffffn, kind: "sw-msi" },
    ]);
    expect(SW_MSI.last - SW_MSI.start + 1n).toBe(0x10_0000n);
  });

  it("is not added beside an MSI region", () => {
    const world = probing(region(0xfee0_0000n, 0xfeef_ffffn, { subtype: 1 }));
    expect(world.driver.reservedRegions(world.endpoint(8))).toEqual([
      { start: 0xfee0_0000n, last: 0xfeef_ffffn, kind: "msi" },
    ]);
  });
});

describe("row 86: bad and unknown properties", () => {
  it("V96: RESV_MEM that ends before it starts, or spans 64 bits, is EOVERFLOW", () => {
    expect(parse(region(0x2000n, 0x1fffn)).errno).toBe(Errno.EOVERFLOW);
    expect(parse(region(0n, 2n ** 64n - 1n)).errno).toBe(Errno.EOVERFLOW);
    expect(parse(region(1n, 2n ** 64n - 1n)).errno).toBe(Errno.OK);
    expect(probing(region(2n, 1n)).driver.addEndpoint([8]).errno).toBe(Errno.EOVERFLOW);
  });

  it("an unknown type is counted and passed over by its length (V101)", () => {
    const unknown = [7, 0, 5, 0, 1, 2, 3, 4, 5];
    const parsed = parse([...unknown, ...region(0x1000n, 0x1fffn)]);
    expect(parsed.errno).toBe(Errno.OK);
    expect(parsed.unknownCount).toBe(1);
    expect(parsed.regions).toHaveLength(1);
  });
});

describe("V97: RESV_MEM shorter than it must be", () => {
  it("is EINVAL; start and end are looked at first", () => {
    expect(parse(region(1n, 2n, { length: 19 })).errno).toBe(Errno.EINVAL);
    expect(parse(region(2n, 1n, { length: 4 })).errno).toBe(Errno.EOVERFLOW);
  });

  it("at the end of the area reads nothing beyond it", () => {
    const bytes = [...new Array(120).fill(0)];
    bytes.splice(0, 4, 9, 0, 112, 0);
    bytes.splice(116, 4, 1, 0, 20, 0);
    expect(parse(bytes, LINUX_7_2, 120).errno).toBe(Errno.EINVAL);
  });
});

describe("V98, V102: reserved bits of the type", () => {
  it("are masked by Linux and hide the property with the correction", () => {
    const bytes = region(0x1000n, 0x1fffn, { type: 0x8001 });
    expect(parse(bytes).regions).toHaveLength(1);
    expect(parse(bytes, corrected).regions).toEqual([]);
    expect(parse(bytes, corrected).errno).toBe(Errno.OK);
  });
});

it("V103: an unknown subtype is RESERVED, and reserved bytes are ignored", () => {
  expect(parse(region(0x1000n, 0x1fffn, { subtype: 200 })).regions).toEqual([
    { start: 0x1000n, last: 0x1fffn, kind: "reserved" },
  ]);
});

describe("V104: a hostile device", () => {
  it("without terminator: the list ends with the area", () => {
    const bytes = [0, 1, 2, 3].flatMap((n) => region(BigInt(n) << 12n, (BigInt(n) << 12n) + 9n));
    expect(parse(bytes, LINUX_7_2, 96).regions).toHaveLength(4);
    expect(parse([1, 0, 20], LINUX_7_2, 3).errno).toBe(Errno.OK);
    expect(parse([], LINUX_7_2, 0).regions).toEqual([]);
  });

  it("with a length past the end: EINVAL for a region, the end for anything else", () => {
    expect(parse(region(1n, 2n, { length: 1000 })).errno).toBe(Errno.EINVAL);
    expect(parse([5, 0, 0xff, 0xff])).toEqual({
      errno: 0,
      regions: [],
      placement: null,
      unknownCount: 1,
    });
  });

  it("with more regions than the driver takes: ENOMEM", () => {
    const settings = { ...LINUX_7_2, regionsMax: 2 };
    const bytes = [1, 2, 3].flatMap((n) => region(BigInt(n), BigInt(n)));
    const parsed = parse(bytes, settings);
    expect([parsed.errno, parsed.regions.length]).toEqual([Errno.ENOMEM, 2]);
  });

  it("with any bytes: ends, and keeps regions sorted and in order", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 400 }), fc.nat(3), (bytes, type) => {
        if (bytes.length > 3) bytes.set([type, 0, bytes[2]! & 31, 0]);
        const { regions } = parseProperties(bytes, LINUX_7_2);
        regions.forEach((found, index) => {
          expect(found.last).toBeGreaterThanOrEqual(found.start);
          if (index > 0) expect(found.start).toBeGreaterThanOrEqual(regions[index - 1]!.start);
        });
      }),
      { seed: 97, numRuns: 500 },
    );
  });
});

describe("V100: when PROBE is sent", () => {
  it("once for an endpoint, for its first ID, before any ATTACH", () => {
    const world = probing([]);
    const endpoint = world.endpoint(8, 9);
    world.driver.attach(endpoint, world.value(world.driver.createDomain()));
    expect(world.device.takeLog()).toEqual(["PROBE ep 8", "ATTACH 1 ep 8", "ATTACH 1 ep 9"]);
    expect(world.meter.amount("requestOther")).toBe(3);
  });

  it("its status is the endpoint's errno", () => {
    expect(probing([], { status: Status.NOENT }).driver.addEndpoint([8]).errno).toBe(Errno.ENOENT);
  });
});

it("V22: a shorter used length reads as success without properties, or EIO with the correction", () => {
  const bytes = region(0x1000n, 0x1fffn);
  for (const used of [0, 4, 131]) {
    const world = probing(bytes, { used, status: Status.NOENT });
    expect(world.endpoint(8).regions).toEqual([]);
    const strict = new DriverWorld({ probeSize: 128 }, corrected);
    strict.device.answer = () => ({ bytes, used });
    expect(strict.driver.addEndpoint([8]).errno).toBe(Errno.EIO);
  }
  expect(probing(bytes, { used: 132 }).endpoint(8).regions).toHaveLength(1);
});
