import { describe, expect, it } from "vitest";
import { DirtyFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { readDirty, switchDirtyTracking } from "./dirty.ts";
import { World } from "./type1-world.suite.ts";

const ADDRESS = 0x5000n;

function makeWorld(): World {
  const world = new World();
  world.memory.put(0x1000, 0x8_0000, 64);
  return world;
}

/** Bits that GET_BITMAP from 0 gives. */
function bitsOf(world: World, buffer: UserBuffer): number[] {
  buffer.bytes.fill(0);
  const bitmap = { pgsize: 4096n, size: 16n, address: ADDRESS };
  expect(readDirty(world.type1, 0n, 0x8_0000n, bitmap, buffer)).toBe(0);
  const bits = [...buffer.bytes].flatMap((byte, at) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => ((byte >> bit) & 1) !== 0).map((bit) => at * 8 + bit),
  );
  return bits;
}

const run = (first: number, count: number) => Array.from({ length: count }, (_, at) => first + at);

describe("GET_BITMAP gives whole words, as update_user_bitmap does", () => {
  it("a mapping at page 0x38 of 14 pages: read again, its bits come once more 0x38 higher", () => {
    const world = makeWorld();
    const buffer = new UserBuffer(ADDRESS, new Uint8Array(16));
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(world.map(0x3_8000, 0x100_0000, 0xe000)).toBe(0);
    expect(bitsOf(world, buffer)).toEqual(run(0x38, 14));
    // Linux 7.2: what the first call shifted behind the pages' bits was never cleared.
    expect(bitsOf(world, buffer)).toEqual([...run(0x38, 14), ...run(0x70, 14)]);
  });

  it("STOP and START forget what was left behind", () => {
    const world = makeWorld();
    const buffer = new UserBuffer(ADDRESS, new Uint8Array(16));
    switchDirtyTracking(world.type1, DirtyFlag.START);
    world.map(0x3_8000, 0x100_0000, 0xe000);
    bitsOf(world, buffer);
    switchDirtyTracking(world.type1, DirtyFlag.STOP);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(bitsOf(world, buffer)).toEqual(run(0x38, 14));
  });

  it("a call that fails leaves what the next one gives", () => {
    const world = makeWorld();
    const buffer = new UserBuffer(ADDRESS, new Uint8Array(16));
    switchDirtyTracking(world.type1, DirtyFlag.START);
    world.map(0x3_8000, 0x100_0000, 0xe000);
    const bitmap = { pgsize: 4096n, size: 16n, address: ADDRESS + 8n };
    expect(readDirty(world.type1, 0n, 0x8_0000n, bitmap, buffer)).toBe(14);
    expect(bitsOf(world, buffer)).toEqual(run(0x38, 14));
  });
});
