/** The proposed PROBE property of where an endpoint is: device, driver and description agree. */
import { describe, expect, it } from "vitest";
import { readProperties } from "../../firmware/builtin/probe-properties.ts";
import { X86_MSI_REGION } from "./device-config.ts";
import { Rig } from "./device-rig.suite.ts";
import { startLocalPair } from "./driver-local.ts";
import { parseProperties } from "./driver-probe.ts";
import { LINUX_7_2 } from "./driver-settings.ts";

const PLACED = [
  { proximityDomain: 3, hasAtsPath: true },
  { proximityDomain: 0, hasAtsPath: false },
  { proximityDomain: 0xffff_ffff, hasAtsPath: false },
  { proximityDomain: null, hasAtsPath: true },
  { proximityDomain: null, hasAtsPath: false },
];

describe.each(PLACED)("an endpoint placed at %o", (placement) => {
  const endpoint = { id: 8, reserved: [X86_MSI_REGION], placement };

  it("is told as it is, after its regions", () => {
    const rig = new Rig({ endpoints: [endpoint], probeSize: 40, pageSizeMask: 0x1000n });
    expect(readProperties(rig.probe(8).properties)).toEqual({
      regions: [X86_MSI_REGION],
      ...placement,
    });
  });

  it("is known to a driver that reads it, and passed over by Linux's", () => {
    for (const readsPlacement of [true, false]) {
      const settings = { ...LINUX_7_2, readsPlacement };
      const { driver } = startLocalPair({ device: { endpoints: [endpoint] }, settings }).value!;
      const known = driver.addEndpoint([8]).value!;
      expect(known.placement).toEqual(readsPlacement ? placement : null);
      expect(known.regions).toEqual([X86_MSI_REGION]);
    }
  });
});

it("must fit probe_size, and be of 32 bits", () => {
  const build = (probeSize: number, proximityDomain: number): Rig =>
    new Rig({
      endpoints: [{ id: 8, placement: { proximityDomain, hasAtsPath: true } }],
      probeSize,
    });
  expect(() => build(15, 1)).toThrow(/probe_size/);
  expect(() => build(16, 2 ** 32)).toThrow(/proximity domain/);
  expect(() => build(16, 1.5)).toThrow(/proximity domain/);
  expect(build(16, 1).probe(8).status).toBe("OK");
});

it("says nothing when it is short, cut off, or marked by reserved bits", () => {
  const property = [8, 0, 12, 0, 3, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0];
  const settings = { ...LINUX_7_2, readsPlacement: true };
  const parse = (bytes: number[], extra = settings) =>
    parseProperties(Uint8Array.from(bytes), extra).placement;
  expect(parse(property)).toEqual({ proximityDomain: 7, hasAtsPath: true });
  for (let length = 0; length < 16; length += 1)
    expect(parse(property.slice(0, length))).toBe(null);
  expect(parse(property.with(2, 8))).toBe(null);
  const strict = { ...settings, corrections: { ...settings.corrections, propertyBits: true } };
  expect(parse(property.with(1, 0x10), strict)).toBe(null);
});
