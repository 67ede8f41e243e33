import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DirtyFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { populateAll, readDirty, switchDirtyTracking, type UserBitmap } from "./dirty.ts";
import { pinPages, registerDevice, unpinPages } from "./external-pins.ts";
import { World } from "./type1-world.suite.ts";

const VADDR = 0x100_0000;
const ADDRESS = 0x5000n;
const MIB = 0x10_0000;

function makeWorld(options: ConstructorParameters<typeof World>[0] = {}): World {
  const world = new World(options);
  world.memory.put(0x1000, 0x8_0000, 512);
  return world;
}

/** GET of a range. @returns the errno, or the pages that are dirty, counted from its start */
function get(world: World, iova: number, size: number, given: Partial<UserBitmap> = {}) {
  const buffer = new UserBuffer(ADDRESS, new Uint8Array(64));
  const bitmap = { pgsize: 4096n, size: 64n, address: ADDRESS, ...given };
  const errno = readDirty(world.type1, BigInt(iova), BigInt(size), bitmap, buffer);
  if (errno !== Errno.OK) return errno;
  return [...buffer.bytes].flatMap((byte, at) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => ((byte >> bit) & 1) !== 0).map((bit) => 8 * at + bit),
  );
}

const all = (count: number) => Array.from({ length: count }, (_, index) => index);

describe("DIRTY_PAGES", () => {
  it("row 46: START and STOP may be repeated", () => {
    const { type1 } = makeWorld();
    for (const flag of [DirtyFlag.START, DirtyFlag.START, DirtyFlag.STOP, DirtyFlag.STOP]) {
      expect(switchDirtyTracking(type1, flag)).toBe(Errno.OK);
    }
    expect(switchDirtyTracking(type1, DirtyFlag.GET_BITMAP)).toBe(Errno.EINVAL);
  });

  it("row 47: GET without tracking is EINVAL; version 1 has none of it, EACCES", () => {
    expect(get(makeWorld(), 0, 4096)).toBe(Errno.EINVAL);
    const world = makeWorld({ type1: { isV2: false } });
    expect(get(world, 0, 4096)).toBe(Errno.EACCES);
    expect(switchDirtyTracking(world.type1, DirtyFlag.START)).toBe(Errno.EACCES);
  });

  it("row 48: with a group that writes anywhere, all mapped pages are dirty each time", () => {
    const world = makeWorld();
    world.map(0, VADDR, 16 * 4096);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, 0, MIB)).toEqual(all(16));
    expect(get(world, 0, MIB)).toEqual(all(16));
  });

  it("a range that 64 bits do not hold is EINVAL below and EOVERFLOW above", () => {
    const world = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, -4096, 4096)).toBe(Errno.EINVAL);
    expect(get(world, 4096, -4096)).toBe(Errno.EINVAL);
    expect(get(world, 2 ** 64, 4096)).toBe(Errno.EOVERFLOW);
  });

  it("row 49: a range that cuts a mapping, a bitmap too short or of large pages is EINVAL", () => {
    const world = makeWorld();
    world.map(0, VADDR, MIB);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, 0, MIB / 2)).toBe(Errno.EINVAL);
    expect(get(world, MIB / 2, MIB / 2)).toBe(Errno.EINVAL);
    expect(get(world, 0, MIB, { size: 24n })).toBe(Errno.EINVAL);
    expect(get(world, 0, 2 * MIB, { pgsize: 0x20_0000n })).toBe(Errno.EINVAL);
    expect(get(world, 0, MIB, { size: 32n })).toEqual(all(256));
  });

  it("size 0 and what is misaligned are EINVAL, what wraps is EOVERFLOW", () => {
    const world = makeWorld();
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, 0, 0)).toBe(Errno.EINVAL);
    expect(get(world, 0x800, 4096)).toBe(Errno.EINVAL);
    expect(get(world, 0, 4096 + 0x800)).toBe(Errno.EINVAL);
    expect(get(world, 2 ** 64 - 4096, 8192)).toBe(Errno.EOVERFLOW);
    expect(get(world, 0, 4096, { size: 0n })).toBe(Errno.EINVAL);
    expect(get(world, 0, 4096, { address: 2n ** 64n - 8n })).toBe(Errno.EINVAL);
  });

  it("a mapping above 2^31 - 1 pages cannot be tracked, EINVAL, whichever comes first", () => {
    const pages = 2 ** 31;
    const world = makeWorld({ domains: 0 });
    expect(world.map(0, 0, pages * 4096)).toBe(Errno.OK);
    const before = world.state();
    expect(switchDirtyTracking(world.type1, DirtyFlag.START)).toBe(Errno.EINVAL);
    expect(world.state()).toEqual(before);
    world.unmap(0, pages * 4096);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(world.map(0, 0, pages * 4096)).toBe(Errno.EINVAL);
    expect(world.type1.mappings.count).toBe(0);
    expect(world.map(0, 0, (pages - 1) * 4096)).toBe(Errno.OK);
  });

  it("counts in the smallest pages of the domains", () => {
    const world = makeWorld();
    world.type1.pageSizes = 0x1_0000n;
    world.map(0, VADDR, 0x4_0000);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    expect(get(world, 0, 0x4_0000)).toBe(Errno.EINVAL);
    expect(get(world, 0, 0x4_0000, { pgsize: 0x1_0000n })).toEqual(all(4));
  });

  it("of devices that pin, pages pinned are dirty, and those let go since the last time", () => {
    const world = makeWorld({ domains: 0 });
    const group = world.addEmulated();
    registerDevice(world.type1, { dmaUnmap: () => {} });
    world.map(0, VADDR, MIB);
    const out = new Float64Array(4);
    pinPages(world.type1, group, 3, 2, 1, out);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    pinPages(world.type1, group, 70, 1, 1, out);
    expect(get(world, 0, MIB)).toEqual([3, 4, 70]);
    unpinPages(world.type1, 3, 1);
    unpinPages(world.type1, 70, 1);
    // They were pinned, and so writable, after the last time.
    expect(get(world, 0, MIB)).toEqual([3, 4, 70]);
    expect(get(world, 0, MIB)).toEqual([4]);
    populateAll(world.type1);
    expect(get(world, 0, MIB)).toEqual(all(256));
    expect(get(world, 0, MIB)).toEqual([4]);
  });

  it("any range of pages that are all dirty comes out whole, wherever it lies", () => {
    const given = fc.tuple(fc.nat(200), fc.integer({ min: 1, max: 200 }));
    fc.assert(
      fc.property(given, ([page, pages]) => {
        const world = makeWorld();
        world.map(page * 4096, VADDR, pages * 4096);
        switchDirtyTracking(world.type1, DirtyFlag.START);
        expect(get(world, 0, 400 * 4096)).toEqual(all(pages).map((index) => page + index));
      }),
      { seed: 1, numRuns: 60 },
    );
  });

  it("2^31 - 1 dirty pages come out as 256 MiB of ones, in order", () => {
    const pages = 2 ** 31 - 1;
    const world = makeWorld({ domains: 0 });
    world.map(0, 0, pages * 4096);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    populateAll(world.type1);
    let bytes = 0;
    let ones = 0;
    const user = {
      read: () => false,
      write(address: bigint, piece: Uint8Array) {
        expect(address).toBe(ADDRESS + BigInt(bytes));
        bytes += piece.length;
        if (piece[0] === 0xff) ones += piece.length;
        return true;
      },
    };
    const bitmap = { pgsize: 4096n, size: 2n ** 28n, address: ADDRESS };
    const size = BigInt(pages) << 12n;
    expect(readDirty(world.type1, 0n, size, bitmap, user)).toBe(Errno.OK);
    expect([bytes, ones]).toEqual([2 ** 28, 2 ** 28]);
  });

  it("a large bitmap is written in pieces", () => {
    const pages = 3 * 2 ** 15 + 100;
    const world = makeWorld({ domains: 0 });
    world.addEmulated();
    world.map(0x7000, 0, pages * 4096);
    switchDirtyTracking(world.type1, DirtyFlag.START);
    populateAll(world.type1);
    const buffer = new UserBuffer(ADDRESS, new Uint8Array(2 ** 14));
    const bitmap = { pgsize: 4096n, size: 2n ** 14n, address: ADDRESS };
    const size = BigInt(pages + 7) << 12n;
    expect(readDirty(world.type1, 0n, size, bitmap, buffer)).toBe(Errno.OK);
    const expected = new Uint8Array(2 ** 14);
    for (let bit = 7; bit < 7 + pages; bit += 1) expected[bit >> 3]! |= 1 << (bit & 7);
    expect(buffer.bytes).toEqual(expected);
  });
});
