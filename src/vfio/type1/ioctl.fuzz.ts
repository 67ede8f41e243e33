/**
 * Whatever bytes a process hands in, a type1 container answers with an errno, stays consistent, and
 * after an error is as before.
 */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { Random } from "../../random.ts";
import { Type1Request } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { type1Ioctl } from "./ioctl.ts";
import { World } from "./type1-world.suite.ts";

const requests = [
  Type1Request.GET_INFO,
  Type1Request.MAP_DMA,
  Type1Request.MAP_DMA,
  Type1Request.MAP_DMA,
  Type1Request.UNMAP_DMA,
  Type1Request.UNMAP_DMA,
  Type1Request.DIRTY_PAGES,
  Type1Request.ENABLE_IOPF,
  0x3b71 + 2,
];

const interesting = [
  0n,
  1n,
  0xfffn,
  0x1000n,
  0x3000n,
  0x8000n,
  0x100_0000n,
  0x100_3000n,
  0xfedf_f000n,
  0xfee0_0000n,
  2n ** 31n,
  2n ** 32n - 4096n,
  2n ** 47n,
  2n ** 48n - 4096n,
  2n ** 63n,
  2n ** 64n - 4096n,
  2n ** 64n - 1n,
];

/** Bytes that are mostly structures: small words in front, interesting addresses behind. */
function draw(random: Random): Uint8Array {
  const bytes = new Uint8Array(random.below(8) === 0 ? random.below(72) : 56);
  const view = new DataView(bytes.buffer);
  if (bytes.length >= 8) {
    view.setUint32(0, random.below(4) === 0 ? random.below(256) : 48, true);
    view.setUint32(4, random.below(16) === 0 ? random.below(2 ** 32) : random.below(8), true);
  }
  for (let at = 8; at + 8 <= bytes.length; at += 8) {
    const value = interesting[random.below(interesting.length)]!;
    const near = random.below(3) === 0 ? BigInt(random.below(16)) * 0x1000n : 0n;
    view.setBigUint64(at, BigInt.asUintN(64, value + near), true);
  }
  return bytes;
}

/** What must hold between calls. */
function check(world: World): void {
  const { type1 } = world;
  let previousEnd = 0;
  let locked = 0;
  let invalid = 0;
  for (const mapping of type1.mappings) {
    expect(mapping.iovaPfn).toBeGreaterThanOrEqual(previousEnd);
    expect(mapping.mappedPages).toBe(type1.domains.length > 0 ? mapping.pages : 0);
    expect(mapping.dirty !== null).toBe(type1.isTrackingDirty);
    previousEnd = mapping.iovaPfn + mapping.pages;
    locked += mapping.lockedPages;
    if (mapping.isVaddrInvalid) invalid += 1;
  }
  expect(type1.dmaAvail + type1.mappings.count).toBe(type1.parameters.dmaEntryLimit);
  expect([world.process.lockedPages, world.memory.pinned]).toEqual([locked, locked]);
  expect(type1.vaddrInvalidCount).toBe(invalid);
}

function run(seed: number, calls: number): Map<string, number> {
  const random = new Random(seed);
  const world = new World({
    domains: random.below(3),
    type1: {
      isV2: random.below(4) > 0,
      unmapMode: random.below(2) === 0 ? "extents" : "kernel",
      hasMmioDontPin: random.below(2) === 0,
      parameters: { dmaEntryLimit: 20, disableHugepages: random.below(4) === 0 },
    },
    process: { memlockPages: random.below(2) === 0 ? 40 : 4000 },
  });
  world.memory.put(0x1000, 0x8_0000, 16).put(0x1010, 0xf_0000, 4, { isReserved: true });
  world.memory.put(0x1014, 0x9_0000, 40, { isWritable: random.below(2) === 0 });
  world.user = new UserBuffer(0x8000n, new Uint8Array(4096));
  const outcomes = new Map<string, number>();
  for (let index = 0; index < calls; index += 1) {
    const request = requests[random.below(requests.length)]!;
    const bytes = draw(random);
    const copy = bytes.slice();
    const before = JSON.stringify(world.state());
    const caller = { process: world.process, user: world.user };
    const result = type1Ioctl(world.type1, caller, request, bytes);
    expect(bytes).toEqual(copy);
    if (result.errno !== Errno.OK) {
      expect(result.bytes).toBe(null);
      expect(JSON.stringify(world.state())).toBe(before);
    }
    check(world);
    const outcome = `${request.toString(16)} ${result.errno}`;
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
  }
  return outcomes;
}

describe("fuzz: ioctls of type1", () => {
  it("never throws, and a refused call changes nothing", () => {
    const outcomes = new Set<string>();
    for (let seed = 1; seed <= 60; seed += 1) {
      for (const outcome of run(seed, 150).keys()) outcomes.add(outcome);
    }
    // The bytes get past the first checks: every call succeeds and fails in its ways.
    for (const outcome of ["3b70 0", "3b71 0", "3b71 12", "3b71 14", "3b71 17", "3b71 75"]) {
      expect(outcomes).toContain(outcome);
    }
    for (const outcome of ["3b72 0", "3b72 22", "3b72 75", "3b75 0", "3b75 13", "3b76 25"]) {
      expect(outcomes).toContain(outcome);
    }
  });

  it("finds a planted bug: an unmap that forgets a mapping's charge", () => {
    const world = new World();
    world.memory.put(0x1000, 0x8_0000, 16);
    world.map(0, 0x100_0000, 0x1000);
    world.type1.mappings.find(0)!.lockedPages = 0;
    expect(() => check(world)).toThrow();
  });
});
