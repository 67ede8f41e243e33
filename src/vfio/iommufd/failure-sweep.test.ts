/** The n-th pin or page-table page cannot be had, for every n: a call fails whole or not at all. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { ADDRESS_LAST } from "../../units.ts";
import { makeWorld, stateOf, type World } from "./iommufd-world.suite.ts";
import { HwptFlag, MapFlag } from "./uapi.ts";

const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;
const GIB = 2n ** 30n;
const bytes = (pages: number) => BigInt(pages) * 4096n;

/** Calls that pin, map, copy, attach and pin for the kernel, on two IOMMUs. */
function scenario(world: World): (() => number)[] {
  const { iommufd } = world;
  const first = iommufd.ioasAlloc().ioasId;
  const second = iommufd.ioasAlloc().ioasId;
  const devices = [0, 1, 2].map((index) => world.bind(index));
  const { accessId } = iommufd.createAccess({
    unmap: (iova, length) => access.unpinOverlapping(iova, length),
  });
  const access = iommufd.access(accessId);
  const map = (ioasId: number, page: number, pages: number, iova: bigint) => () => {
    const call = { ioasId, flags: FIXED, userVa: bytes(page), iova, length: bytes(pages) };
    return iommufd.ioasMap(call).errno;
  };
  let table = 0;
  return [
    map(first, 0, 40, 0n),
    map(first, 600, 30, 5n * GIB),
    () => iommufd.attach(devices[0]!, first).errno,
    map(first, 100, 50, 700n * GIB),
    () => {
      const reply = iommufd.hwptAlloc({
        devId: devices[2]!,
        ptId: first,
        flags: HwptFlag.NEST_PARENT,
      });
      table = reply.hwptId;
      return reply.errno;
    },
    () => iommufd.attach(devices[2]!, table).errno,
    map(first, 200, 20, 40n * GIB),
    () => {
      const ids = { srcIoasId: first, dstIoasId: second, flags: FIXED };
      const where = { srcIova: bytes(4), dstIova: 90n * GIB, length: bytes(20) };
      return iommufd.ioasCopy({ ...ids, ...where }).errno;
    },
    () => iommufd.attach(devices[1]!, second).errno,
    () => iommufd.attachAccess(accessId, second),
    () => access.pin(90n * GIB, bytes(12), true).errno,
    map(second, 300, 9, 7n * GIB),
    () => iommufd.attach(devices[1]!, first).errno,
    () => iommufd.ioasUnmap({ ioasId: first, iova: 0n, length: ADDRESS_LAST }).errno,
    () => iommufd.ioasUnmap({ ioasId: second, iova: 0n, length: ADDRESS_LAST }).errno,
  ];
}

/** Runs the scenario with one failure, each failed call again. @returns whether one failed */
function sweep(inject: (world: World, n: number) => void, calm: (world: World) => void, n: number) {
  const world = makeWorld({ isMixed: true });
  const framesBefore = world.pool.usedFrames;
  let failed = 0;
  const calls = scenario(world);
  inject(world, n);
  for (const [index, call] of calls.entries()) {
    const before = stateOf(world, false);
    const errno = call();
    if (errno === Errno.OK) continue;
    failed += 1;
    expect(errno, `call ${index}`).toBe(Errno.ENOMEM);
    expect(stateOf(world, false), `call ${index}`).toBe(before);
    calm(world);
    expect(call(), `call ${index} again`).toBe(Errno.OK);
  }
  expect([world.memory.pins.size, world.user.lockedPages]).toEqual([0, 0]);
  expect(failed).toBeLessThanOrEqual(1);
  for (const { id, kind } of world.iommufd.objects.list()) {
    if (kind === "device") world.iommufd.unbind(id);
    if (kind === "access") world.iommufd.destroyAccess(id);
  }
  world.iommufd.close();
  expect(world.pool.usedFrames).toBe(framesBefore);
  return failed === 1;
}

/** Sweeps until nothing fails any more. @returns how many failures there were */
function sweepAll(inject: (world: World, n: number) => void, calm: (world: World) => void): number {
  let n = 0;
  while (sweep(inject, calm, n)) n += 1;
  return n;
}

describe("iommufd", () => {
  it("survives the n-th pin that fails, for every n", () => {
    const count = sweepAll(
      (world, n) => {
        world.memory.successes = n;
      },
      (world) => {
        world.memory.successes = Number.POSITIVE_INFINITY;
      },
    );
    expect(count).toBeGreaterThan(15);
  });

  it("survives the n-th page-table page that cannot be had, for every n", () => {
    const count = sweepAll(
      (world, n) => world.pool.failAfter(n),
      (world) => world.pool.failAfter(Number.POSITIVE_INFINITY),
    );
    expect(count).toBeGreaterThan(20);
  });
});
