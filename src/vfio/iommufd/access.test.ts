import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { makeWorld, stateOf } from "./iommufd-world.suite.ts";
import { MapFlag } from "./uapi.ts";

const PAGE = 4096n;
const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;

/** An IOAS with pages 16 … 23 mapped for writing and 24 … 27 for reading, and an access. */
function emulated(letsGo = true) {
  const world = makeWorld();
  const { iommufd } = world;
  const { ioasId } = iommufd.ioasAlloc();
  const asked: string[] = [];
  const { accessId } = iommufd.createAccess({
    unmap(iova, length) {
      asked.push(`${iova / PAGE}+${length / PAGE}`);
      if (letsGo) access.unpinOverlapping(iova, length);
    },
  });
  const access = iommufd.access(accessId);
  iommufd.attachAccess(accessId, ioasId);
  const call = { ioasId, userVa: 16n * PAGE, iova: 16n * PAGE, length: 8n * PAGE };
  iommufd.ioasMap({ ...call, flags: FIXED });
  const read = { userVa: 24n * PAGE, iova: 24n * PAGE, length: 4n * PAGE };
  iommufd.ioasMap({ ioasId, ...read, flags: MapFlag.READABLE | MapFlag.FIXED_IOVA });
  return { ...world, ioasId, access, accessId, asked };
}

describe("an access of an emulated device", () => {
  it("pins what it needs across areas, and charges it", () => {
    const world = emulated();
    const { access, memory } = world;
    const { errno, pfns } = access.pin(22n * PAGE + 5n, 3n * PAGE, false);
    expect([errno, pfns]).toEqual([Errno.OK, [22, 23, 24, 25].map((vpn) => memory.frameOf(vpn))]);
    expect([world.user.lockedPages, memory.pins.size]).toEqual([4, 4]);
    access.unpin(22n * PAGE + 5n, 3n * PAGE);
    expect([world.user.lockedPages, memory.pins.size]).toEqual([0, 0]);
  });

  it("shares its pins with page tables: whoever lets go last unpins", () => {
    const world = emulated();
    const { access, iommufd, memory } = world;
    access.pin(18n * PAGE, 2n * PAGE, true);
    const devId = world.bind(0);
    iommufd.attach(devId, world.ioasId);
    expect([...memory.pins.values()]).toEqual(Array(12).fill(1));
    iommufd.detach(devId);
    expect([memory.pins.size, world.user.lockedPages]).toEqual([2, 2]);
    access.unpin(18n * PAGE, 2n * PAGE);
    expect(memory.pins.size).toBe(0);
  });

  it("is refused without rights, over holes, on devices' memory and without an IOAS", () => {
    const world = emulated();
    const { access } = world;
    const before = stateOf(world);
    expect(access.pin(22n * PAGE, 4n * PAGE, true).errno).toBe(Errno.EPERM);
    expect(access.pin(26n * PAGE, 4n * PAGE, false).errno).toBe(Errno.ENOENT);
    expect(access.pin(16n * PAGE, 0n, false).errno).toBe(Errno.EINVAL);
    expect(access.pin(2n ** 64n - PAGE, 2n * PAGE, false).errno).toBe(Errno.EOVERFLOW);
    world.memory.holes.add(19);
    expect(access.pin(16n * PAGE, 6n * PAGE, false).errno).toBe(Errno.EFAULT);
    expect(stateOf(world)).toBe(before);
    access.moveTo(null);
    expect(access.pin(16n * PAGE, PAGE, false).errno).toBe(Errno.ENOENT);
  });

  it("is asked to let go of an area that is unmapped, and of everything when it leaves", () => {
    const world = emulated();
    const { access, iommufd, ioasId } = world;
    access.pin(18n * PAGE, PAGE, true);
    access.pin(19n * PAGE, PAGE, true);
    const unmap = { ioasId, iova: 16n * PAGE, length: 8n * PAGE };
    expect(iommufd.ioasUnmap(unmap).errno).toBe(Errno.OK);
    expect(world.asked).toEqual(["16+8"]);
    access.pin(24n * PAGE, PAGE, false);
    iommufd.destroyAccess(world.accessId);
    expect(world.asked).toHaveLength(2);
    expect(world.memory.pins.size).toBe(0);
  });

  it("that does not let go makes the unmap fail (EDEADLK) and gets no new pins (EBUSY)", () => {
    const world = emulated(false);
    const { access, iommufd, ioasId } = world;
    access.pin(18n * PAGE, PAGE, true);
    const unmap = { ioasId, iova: 16n * PAGE, length: 8n * PAGE };
    expect(iommufd.ioasUnmap(unmap)).toEqual({ errno: Errno.EDEADLK, length: 0n });
    expect(world.asked).toHaveLength(100);
    expect(access.pin(17n * PAGE, PAGE, true).errno).toBe(Errno.EBUSY);
    access.unpin(18n * PAGE, PAGE);
    expect(iommufd.ioasUnmap(unmap).errno).toBe(Errno.OK);
  });

  it("demands whole pages of what is mapped (EADDRINUSE)", () => {
    const world = makeWorld();
    const { ioasId } = world.iommufd.ioasAlloc();
    const { accessId } = world.iommufd.createAccess({ unmap() {} });
    world.iommufd.ioasMap({ ioasId, flags: FIXED, userVa: 1n, iova: 5n, length: 3n });
    const before = stateOf(world);
    expect(world.iommufd.attachAccess(accessId, ioasId)).toBe(Errno.EADDRINUSE);
    expect(stateOf(world)).toBe(before);
    expect(world.iommufd.attachAccess(accessId, 99)).toBe(Errno.ENOENT);
  });
});
