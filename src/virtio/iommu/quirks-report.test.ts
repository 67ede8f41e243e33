/** The report of quirks that changed an answer or the state is exact. */
import { describe, expect, it } from "vitest";
import { Random } from "../../random.ts";
import type { IommuConfig } from "./device-config.ts";
import { attachBytes, mapBytes, Rig, unmapBytes } from "./device-rig.suite.ts";
import { DetachRequest, FEATURES_ALL, featureSet, RequestType } from "./protocol.ts";
import { QEMU_QUIRKS, QUIRK_NAMES } from "./quirks.ts";

const LAST = 2n ** 64n - 1n;

describe("the report of quirks", () => {
  it("names a quirk if and only if a device without quirks would have ended up otherwise", () => {
    const random = new Random(17);
    const firedEver = new Set<string>();
    let compared = 0;
    for (let run = 0; run < 800; run += 1) {
      const features = random.chance(1, 4)
        ? FEATURES_ALL & ~featureSet("BYPASS_CONFIG", "MMIO")
        : FEATURES_ALL;
      const accepted = random.chance(1, 8) ? features & ~featureSet("MAP_UNMAP") : features;
      const settings = randomSettings(random);
      const some = QUIRK_NAMES.filter(() => random.chance(1, 3));
      const one = QUIRK_NAMES[random.below(QUIRK_NAMES.length)]!;
      const quirks = [QEMU_QUIRKS, some, [one]][random.below(3)]!;
      const plain = new Rig(settings, accepted);
      const quirky = new Rig({ ...settings, quirks }, accepted);
      for (const rig of [plain, quirky]) rig.attach(1, 8);
      for (let step = 0; step < 80; step += 1) {
        const request = randomRequest(random);
        const before = quirky.snapshot();
        const expected = plain.send(request, 68);
        const got = quirky.send(request, 68);
        const isSame =
          got.used === expected.used &&
          Buffer.from(got.bytes).equals(Buffer.from(expected.bytes)) &&
          quirky.snapshot() === plain.snapshot();
        const fired = quirky.device.firedQuirks;
        if (isSame !== (fired.length === 0)) {
          const text = Buffer.from(request).toString("hex");
          throw new Error(`run ${run} step ${step}: ${text} fired ${fired}: ${before}`);
        }
        compared += 1;
        for (const name of fired) firedEver.add(name);
        // From here on the two are in different states.
        if (!isSame) break;
      }
    }
    expect(compared).toBeGreaterThan(2000);
    const rest = QUIRK_NAMES.filter((name) => !firedEver.has(name));
    expect(rest).toEqual(["qemu-reset-keeps-domains"]);
  });
});

function randomSettings(random: Random): Partial<IommuConfig> {
  const region = [{ start: 0x8000n, last: 0x8fffn, kind: "reserved" } as const];
  return {
    endpoints: [{ id: 8 }, { id: 16 }, { id: 24, reserved: region }],
    ownEndpoint: { id: 32 },
    probeSize: 64,
    pageSizeMask: random.chance(1, 2) ? 0x1000n : 1n,
    inputRange: { start: 0n, last: 0xffffn },
    domainRange: { first: 0, last: 2 },
  };
}

/** A request that makes sense more often than not. */
function randomRequest(random: Random): Uint8Array {
  const domain = random.chance(1, 2) ? 1 : random.below(4);
  const endpoint = [8, 16, 24, 32, 40][random.below(5)]! + (random.chance(1, 20) ? 0x1_0000 : 0);
  const start = BigInt(random.below(18)) * 0x1000n + BigInt(random.chance(1, 10) ? 1 : 0);
  const pages = BigInt(random.below(4)) - (random.chance(1, 12) ? 2n : 0n);
  const last = BigInt.asUintN(64, start + pages * 0x1000n + (random.chance(1, 12) ? 0n : 0xfffn));
  switch (random.below(8)) {
    case 0:
    case 1:
      return attachBytes(
        domain,
        endpoint,
        random.chance(1, 4) ? 1 + random.below(2) : 0,
        random.chance(1, 10) ? 1 : 0,
      );
    case 2:
      return DetachRequest.bytesOf({ type: RequestType.DETACH, domain, endpoint });
    case 3:
    case 4:
      return mapBytes(
        domain,
        start,
        last,
        random.chance(1, 12) ? LAST - 0xfffn : 0n,
        random.below(random.chance(1, 8) ? 9 : 4),
      );
    case 5:
    case 6:
      return unmapBytes(
        domain,
        start,
        BigInt.asUintN(64, last + BigInt(random.below(random.chance(1, 2) ? 9 : 1)) * 0x1000n),
      );
    default: {
      const request = new Uint8Array(random.chance(1, 8) ? 3 : 72);
      request[0] = 5 + random.below(2);
      if (request.length > 4) {
        request[4] = endpoint & 0xff;
        request[6] = endpoint >>> 16;
      }
      return request;
    }
  }
}
