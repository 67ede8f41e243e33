import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { reach } from "../../iommu/hardware-world.suite.ts";
import { ADDRESS_LAST } from "../../units.ts";
import { makeWorld, stateOf, type World, type WorldOptions } from "./iommufd-world.suite.ts";
import { IommuOption, MapFlag, OptionOp } from "./uapi.ts";

const PAGE = 4096n;
const RW = MapFlag.READABLE | MapFlag.WRITEABLE;
const FIXED = RW | MapFlag.FIXED_IOVA;

/** A world with one IOAS and device 0 attached to it. */
function attached(options: WorldOptions = {}): World & { ioasId: number; devId: number } {
  const world = makeWorld(options);
  const { ioasId } = world.iommufd.ioasAlloc();
  const devId = world.bind(0);
  expect(world.iommufd.attach(devId, ioasId).errno).toBe(Errno.OK);
  return { ...world, ioasId, devId };
}

function fixed(world: { iommufd: World["iommufd"]; ioasId: number }, page: bigint, pages: bigint) {
  const call = { ioasId: world.ioasId, flags: FIXED, userVa: page * PAGE, length: pages * PAGE };
  return world.iommufd.ioasMap({ ...call, iova: page * PAGE }).errno;
}

describe("IOAS", () => {
  it("refuses overlaps, reserved ranges, halves and nothing (row 110)", () => {
    const world = attached();
    expect(fixed(world, 16n, 16n)).toBe(Errno.OK);
    const before = stateOf(world);
    expect(fixed(world, 31n, 2n)).toBe(Errno.EEXIST);
    expect(fixed(world, 0xfee00n, 1n)).toBe(Errno.EINVAL);
    expect(fixed(world, 0xfedffn, 2n)).toBe(Errno.EINVAL);
    const unmap = (iova: bigint, length: bigint) =>
      world.iommufd.ioasUnmap({ ioasId: world.ioasId, iova, length }).errno;
    expect(unmap(16n * PAGE, 8n * PAGE)).toBe(Errno.ENOENT);
    expect(unmap(24n * PAGE, 8n * PAGE)).toBe(Errno.ENOENT);
    expect(unmap(64n * PAGE, PAGE)).toBe(Errno.ENOENT);
    expect(stateOf(world)).toBe(before);
  });

  it("unmaps the areas below one that the range cuts, and says ENOENT all the same", () => {
    const world = attached();
    fixed(world, 16n, 4n);
    fixed(world, 20n, 4n);
    const { ioasId } = world;
    const reply = world.iommufd.ioasUnmap({ ioasId, iova: 16n * PAGE, length: 6n * PAGE });
    expect(reply).toEqual({ errno: Errno.ENOENT, length: 4n * PAGE });
    expect([...world.iommufd.ioas(ioasId)!.ioas.space.areas].map((each) => each.startPfn)).toEqual([
      20,
    ]);
  });

  it("unmaps everything, and nothing, with the longest length", () => {
    const world = attached();
    const all = { ioasId: world.ioasId, iova: 0n, length: ADDRESS_LAST };
    expect(world.iommufd.ioasUnmap(all)).toEqual({ errno: 0, length: 0n });
    fixed(world, 16n, 4n);
    fixed(world, 1000n, 4n);
    expect(world.iommufd.ioasUnmap(all)).toEqual({ errno: 0, length: 8n * PAGE });
    expect(world.memory.pins.size).toBe(0);
    expect(world.user.lockedPages).toBe(0);
  });

  it("pins nothing before there is a page table, and everything once there is one", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    world.memory.holes.add(18);
    expect(fixed({ iommufd, ioasId }, 16n, 4n)).toBe(Errno.OK);
    expect(world.memory.pins.size).toBe(0);
    const devId = world.bind(0);
    const before = stateOf(world);
    expect(iommufd.attach(devId, ioasId).errno).toBe(Errno.EFAULT);
    expect(stateOf(world)).toBe(before);
    world.memory.holes.clear();
    expect(iommufd.attach(devId, ioasId).errno).toBe(Errno.OK);
    expect(world.memory.pins.size).toBe(4);
    expect(reach(world.units[0]!, world.devices[0]!.rid, 17)).toBe(world.memory.frameOf(17));
    iommufd.detach(devId);
    expect(world.memory.pins.size).toBe(0);
    expect(stateOf(world)).toBe(before);
  });

  it("takes single bytes until a page table demands pages (alignment 1, then EADDRINUSE)", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const call = { ioasId, flags: FIXED, userVa: 0x10_0800n, length: 3n, iova: 0x2_0001n };
    expect(iommufd.ioasMap(call).errno).toBe(Errno.OK);
    expect(iommufd.ioasIovaRanges(ioasId)).toMatchObject({ alignment: 1 });
    expect(iommufd.attach(world.bind(0), ioasId).errno).toBe(Errno.EADDRINUSE);
    expect(iommufd.ioasUnmap({ ioasId, iova: 0x2_0001n, length: 2n }).errno).toBe(Errno.ENOENT);
    expect(iommufd.ioasUnmap({ ioasId, iova: 0x2_0001n, length: 3n }).length).toBe(3n);
  });

  it("tells which IOVAs are free: around the MSI window and below the aperture's end", () => {
    const world = attached();
    expect(world.iommufd.ioasIovaRanges(world.ioasId)).toEqual({
      errno: 0,
      ranges: [
        { start: 0n, last: 0xfedf_ffffn },
        { start: 0xfef0_0000n, last: 2n ** 48n - 1n },
      ],
      alignment: 4096,
    });
  });

  it("refuses a device whose reserved range is mapped (EADDRINUSE)", () => {
    const world = makeWorld();
    const { ioasId } = world.iommufd.ioasAlloc();
    expect(fixed({ iommufd: world.iommufd, ioasId }, 0xfee00n, 1n)).toBe(Errno.OK);
    const devId = world.bind(0);
    const before = stateOf(world);
    expect(world.iommufd.attach(devId, ioasId)).toEqual({ errno: Errno.EADDRINUSE, ptId: 0 });
    expect(stateOf(world)).toBe(before);
  });

  it("keeps what the user allows out of devices' hands, and places mappings there", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const range = { start: 0xfee0_0000n, last: 0xfeef_ffffn };
    expect(iommufd.ioasAllowIovas(ioasId, [range])).toBe(Errno.OK);
    const { iova } = iommufd.ioasMap({ ioasId, flags: RW, userVa: 0x20_0000n, length: PAGE });
    expect(iova).toBe(0xfee0_0000n);
    expect(iommufd.attach(world.bind(0), ioasId).errno).toBe(Errno.EADDRINUSE);
    expect(iommufd.ioasAllowIovas(ioasId, [{ start: 5n, last: 5n }])).toBe(Errno.EINVAL);
    expect(iommufd.ioasAllowIovas(ioasId, [range, range])).toBe(Errno.EINVAL);
    expect(iommufd.ioasAllowIovas(ioasId, [])).toBe(Errno.OK);
  });

  it("places mappings at the lowest fit, aligned as their memory is, never at 0", () => {
    const world = attached();
    const { iommufd, ioasId } = world;
    const place = (userVa: bigint, pages: bigint) =>
      iommufd.ioasMap({ ioasId, flags: RW, userVa, length: pages * PAGE }).iova;
    expect(place(0x1000n, 1n)).toBe(0x1000n);
    expect(place(0x40_0000n, 512n)).toBe(0x20_0000n);
    expect(place(0x40_0000n, 2n)).toBe(0x2000n);
    expect(place(0x1000n, 512n)).toBe(0x40_0000n);
    // Of memory at 0 the length alone decides: three pages go to a multiple of four.
    expect(place(0n, 3n)).toBe(0x4000n);
  });

  it("charges the user at the end of a map, and undoes it when the limit is met", () => {
    const world = attached({ memlockPages: 16 });
    expect(fixed(world, 16n, 16n)).toBe(Errno.OK);
    expect([world.user.lockedPages, world.process.lockedPages]).toEqual([16, 0]);
    const before = stateOf(world);
    const events = world.events.length;
    expect(fixed(world, 64n, 1n)).toBe(Errno.ENOMEM);
    expect(stateOf(world)).toBe(before);
    // Unlike type1, which asks before it maps.
    expect(world.events.slice(events)).toEqual([
      `map 64 ${world.memory.frameOf(64)} 1`,
      "unmap 64 1 1",
    ]);
  });

  it("charges nobody with CAP_IPC_LOCK, and the process in mm mode", () => {
    const free = attached({ memlockPages: 0, canLock: true });
    expect(fixed(free, 16n, 4n)).toBe(Errno.OK);
    expect([free.user.lockedPages, free.process.lockedPages]).toEqual([0, 0]);
    const world = makeWorld({ canResource: true });
    const set = { optionId: IommuOption.RLIMIT_MODE, op: OptionOp.SET, val64: 1n };
    expect(world.iommufd.option(set).errno).toBe(Errno.OK);
    const { ioasId } = world.iommufd.ioasAlloc();
    expect(world.iommufd.option(set).errno).toBe(Errno.EBUSY);
    world.iommufd.attach(world.bind(0), ioasId);
    expect(fixed({ iommufd: world.iommufd, ioasId }, 16n, 4n)).toBe(Errno.OK);
    expect([world.user.lockedPages, world.process.lockedPages]).toEqual([0, 4]);
  });

  it("copies between spaces without pinning or charging again; the last one unpins", () => {
    const world = attached();
    const { iommufd, ioasId } = world;
    const second = iommufd.ioasAlloc().ioasId;
    iommufd.attach(world.bind(2), second);
    fixed(world, 16n, 16n);
    const copy = { srcIoasId: ioasId, dstIoasId: second, flags: FIXED };
    const whole = { srcIova: 20n * PAGE, dstIova: 500n * PAGE, length: 8n * PAGE };
    expect(iommufd.ioasCopy({ ...copy, ...whole })).toEqual({ errno: 0, iova: 500n * PAGE });
    expect(world.user.lockedPages).toBe(16);
    expect([...world.memory.pins.values()].every((pins) => pins === 1)).toBe(true);
    expect(reach(world.units[1]!, world.devices[2]!.rid, 503)).toBe(world.memory.frameOf(23));
    expect(iommufd.ioasUnmap({ ioasId, iova: 16n * PAGE, length: 16n * PAGE }).errno).toBe(0);
    expect(world.user.lockedPages).toBe(8);
    expect(reach(world.units[1]!, world.devices[2]!.rid, 503)).toBe(world.memory.frameOf(23));
    iommufd.ioasUnmap({ ioasId: second, iova: 0n, length: ADDRESS_LAST });
    expect([world.user.lockedPages, world.memory.pins.size]).toEqual([0, 0]);
  });

  it("copies no more rights than the source has (EPERM), and nothing over a hole (ENOENT)", () => {
    const world = attached();
    const { iommufd, ioasId } = world;
    const read = { ioasId, flags: MapFlag.READABLE | MapFlag.FIXED_IOVA, length: PAGE };
    iommufd.ioasMap({ ...read, userVa: PAGE, iova: 16n * PAGE });
    const copy = { srcIoasId: ioasId, dstIoasId: ioasId, srcIova: 16n * PAGE, flags: RW };
    const before = stateOf(world);
    expect(iommufd.ioasCopy({ ...copy, length: PAGE }).errno).toBe(Errno.EPERM);
    expect(iommufd.ioasCopy({ ...copy, length: 2n * PAGE }).errno).toBe(Errno.ENOENT);
    expect(stateOf(world)).toBe(before);
    const flags = MapFlag.READABLE;
    expect(iommufd.ioasCopy({ ...copy, flags, length: PAGE }).errno).toBe(Errno.OK);
  });
});
