/** The device against a plain model of it: a map of bytes over a small space, granule 1. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Random } from "../../random.ts";
import { type Piece, Rig } from "./device-rig.suite.ts";
import { TwinDevice } from "./device-twin.suite.ts";

const SPACE = 96;
const ENDPOINT_IDS = [8, 16, 24, 40];
const REGIONS = [
  { start: 60n, last: 63n, kind: "reserved" },
  { start: 70n, last: 79n, kind: "msi" },
] as const;

/** Where every byte of an access leads by the device: `null`, "msi", or physical bytes. */
function bytesOf(rig: Rig, endpoint: number, start: number, bytes: number, access: number) {
  const result = rig.access(endpoint, BigInt(start), bytes, access);
  if (result === "msi") return "msi";
  if (!Array.isArray(result)) return null;
  return (result as readonly Piece[]).flatMap(({ phys, bytes: count }) =>
    Array.from({ length: count }, (_, index) => Number(phys) + index),
  );
}

describe("virtio-iommu device against its twin", () => {
  it("agrees on statuses, attachments, mappings and the translation of every address", () => {
    const property = fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => {
      const random = new Random(seed);
      const endpoints = [
        { id: 8, reserved: REGIONS },
        { id: 16, reserved: [REGIONS[0]] },
        { id: 24 },
      ];
      const limits = { domainsMax: 2 + random.below(3), domainMappingsMax: 3 + random.below(30) };
      const rig = new Rig({ endpoints, ...limits });
      const twin = new TwinDevice(endpoints, limits);
      for (let step = 0; step < 120; step += 1) {
        const domain = random.below(4);
        const endpoint = ENDPOINT_IDS[random.below(4)]!;
        const start = random.below(SPACE);
        const last =
          start + random.below(random.chance(1, 6) ? 60 : 8) - (random.chance(1, 9) ? 1 : 0);
        const flags = random.below(4);
        let got: string;
        let expected: string;
        switch (random.below(9)) {
          case 0:
          case 1: {
            const bypass = random.chance(1, 5) ? 1 : 0;
            got = rig.attach(domain, endpoint, bypass);
            expected = twin.attach(domain, endpoint, bypass === 1);
            break;
          }
          case 2:
            got = rig.detach(domain, endpoint);
            expected = twin.detach(domain, endpoint);
            break;
          case 3: {
            const bypass = random.below(2);
            rig.device.writeConfig(36, Uint8Array.of(bypass));
            twin.bypass = bypass === 1;
            got = expected = "";
            break;
          }
          case 4:
          case 5:
          case 6: {
            const phys = random.below(1000);
            got = rig.map(domain, BigInt(start), BigInt(Math.max(last, 0)), BigInt(phys), flags);
            expected = twin.map(domain, start, Math.max(last, 0), phys, flags);
            break;
          }
          default:
            got = rig.unmap(domain, BigInt(start), BigInt(Math.max(last, 0)));
            expected = twin.unmap(domain, start, Math.max(last, 0));
        }
        expect(got).toBe(expected);
        const access = 1 + random.below(3);
        for (const id of [8, 16, 24]) {
          expect(rig.device.domainOf(id)).toBe(twin.domainOf(id));
          const bytes = 1 + random.below(12);
          const from = random.below(SPACE);
          expect(bytesOf(rig, id, from, bytes, access)).toEqual(
            twin.access(id, from, bytes, access),
          );
        }
      }
      for (const id of [8, 16, 24]) {
        for (let address = 0; address < SPACE + 70; address += 1) {
          for (const access of [1, 2, 3]) {
            const result = rig.access(id, BigInt(address), 1, access);
            expect(bytesOf(rig, id, address, 1, access)).toEqual(
              twin.access(id, address, 1, access),
            );
            if (!Array.isArray(result) && result !== "msi")
              expect(result).toMatchObject({ reason: twin.reason, address: BigInt(address) });
          }
        }
      }
      expect(rig.mappings()).toEqual(twin.mappings());
    });
    fc.assert(property, { seed: 23, numRuns: 25 });
  });
});
