/**
 * Fuzzes the device with request bytes of any length, some sensible, some not: nothing throws, every
 * answer has a length that fits, rejected requests change nothing, and with the quirks of QEMU the
 * same holds. The last test shows that the fuzzer would notice.
 */
import { expect, it } from "vitest";
import { Random } from "../../random.ts";
import { attachBytes, mapBytes, Rig, unmapBytes } from "./device-rig.suite.ts";
import { DetachRequest, FEATURES_ALL, RequestType } from "./protocol.ts";
import { QEMU_QUIRKS, QUIRK_NAMES, type QuirkName } from "./quirks.ts";

const LAST = 2n ** 64n - 1n;
const EDGES = [0n, 1n, 0xfffn, 0x1000n, 2n ** 32n - 1n, 2n ** 32n, 2n ** 52n, 2n ** 63n, LAST];

function address(random: Random): bigint {
  const edge = EDGES[random.below(EDGES.length)]!;
  const step = BigInt(random.below(64)) * (random.chance(1, 2) ? 0x1000n : 1n);
  return BigInt.asUintN(64, random.chance(1, 2) ? edge + step : edge - step);
}

function sensible(random: Random): Uint8Array {
  const domain = random.chance(1, 12) ? random.bits32() : random.below(3);
  const endpoint = random.chance(1, 12) ? random.bits32() : [8, 16, 24][random.below(3)]!;
  const start = address(random);
  const last = random.chance(1, 3)
    ? address(random)
    : BigInt.asUintN(64, start + BigInt(random.below(8)) * 0x1000n + 0xfffn);
  switch (random.below(5)) {
    case 0:
      return attachBytes(domain, endpoint, random.below(3), random.chance(1, 9) ? 1 : 0);
    case 1:
      return DetachRequest.bytesOf({ type: RequestType.DETACH, domain, endpoint });
    case 2: {
      const request = new Uint8Array(72);
      request[0] = RequestType.PROBE;
      request[4] = endpoint & 0xff;
      return request;
    }
    case 3:
      return mapBytes(domain, start, last, address(random), random.below(9));
    default:
      return unmapBytes(domain, start, last);
  }
}

/** Turns some bits over, cuts, or lengthens. */
function spoiled(random: Random, request: Uint8Array): Uint8Array {
  const length = random.chance(1, 3) ? random.below(90) : request.length;
  const bytes = new Uint8Array(length);
  bytes.set(request.slice(0, length));
  for (let flips = random.below(4); flips > 0 && length > 0; flips -= 1) {
    const at = random.below(length);
    bytes[at] = bytes[at]! ^ (1 << random.below(8));
  }
  return bytes;
}

/** One life of a device. @returns what is wrong, or null */
function fuzz(seed: number, quirks: readonly QuirkName[], spoil = (_: Rig) => {}): string | null {
  const random = new Random(seed);
  const rig = new Rig(
    {
      pageSizeMask: random.chance(1, 2) ? 1n : 0x1000n,
      probeSize: 64,
      domainMappingsMax: 1 + random.below(50),
      bypass: random.chance(1, 2),
      quirks,
    },
    random.chance(1, 8) ? random.bits32() : FEATURES_ALL,
  );
  for (let step = 0; step < 400; step += 1) {
    const plain = sensible(random);
    const request = random.chance(1, 4) ? spoiled(random, plain) : plain;
    const writable = random.chance(1, 8) ? random.below(90) : request[0] === 5 ? 68 : 4;
    const before = rig.snapshot();
    const { used, bytes } = rig.send(request, writable);
    spoil(rig);
    if (rig.device.isStopped) {
      rig.device.systemReset();
      rig.device.negotiate(FEATURES_ALL);
      continue;
    }
    if (used < 0 || used > writable || (used > 0 && used < 4)) return `step ${step}: used ${used}`;
    if (bytes.slice(used).some((byte) => byte !== 0xaa)) return `step ${step}: wrote behind`;
    const status = used === 0 ? -1 : bytes[used - 4]!;
    if (status > 8) return `step ${step}: status ${status}`;
    const isRejected = status !== 0 && rig.device.firedQuirks.length === 0;
    if (isRejected && rig.snapshot() !== before) return `step ${step}: rejected, but changed`;
    if (rig.device.mappingCount !== rig.mappings().length) return `step ${step}: count is off`;
    const result = rig.access(8, address(random), 1 + random.below(9000), 1 + random.below(3));
    if (Array.isArray(result) && result.some(({ bytes: count }) => count <= 0))
      return `step ${step}: an empty piece`;
  }
  return null;
}

it("a device answers 250 lives of wild requests within its rules", () => {
  for (let seed = 1; seed <= 250; seed += 1) expect(fuzz(seed, []), `seed ${seed}`).toBe(null);
});

it("a device with quirks does, in 250 lives", () => {
  for (let seed = 1; seed <= 250; seed += 1) {
    const quirks = seed % 2 === 0 ? QEMU_QUIRKS : QUIRK_NAMES;
    expect(fuzz(seed, quirks), `seed ${seed}`).toBe(null);
  }
});

it("a device that changes on the quiet is found", () => {
  let found = 0;
  for (let seed = 1; seed <= 50; seed += 1) {
    let steps = 0;
    const wrong = fuzz(seed, [], (rig) => {
      steps += 1;
      if (steps % 7 !== 0) return;
      rig.device.removeEndpoint(16);
      rig.device.addEndpoint({ id: 16 });
    });
    if (wrong !== null) found += 1;
  }
  expect(found).toBeGreaterThan(20);
});
