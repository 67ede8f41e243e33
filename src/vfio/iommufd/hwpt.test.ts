import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { reach } from "../../iommu/hardware-world.suite.ts";
import type { PageTable } from "../../iommu/page-table.ts";
import { makeWorld, stateOf, type World } from "./iommufd-world.suite.ts";
import { HwptFlag, MapFlag } from "./uapi.ts";

const PAGE = 4096n;
const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;

function mapAt(world: World, ioasId: number, page: number, pages: number): number {
  const at = BigInt(page) * PAGE;
  const length = BigInt(pages) * PAGE;
  return world.iommufd.ioasMap({ ioasId, flags: FIXED, userVa: at, iova: at, length }).errno;
}

function tableOf(world: World, hwptId: number): PageTable {
  const { driver } = world.iommufd.table(hwptId)!.domain;
  return (driver as unknown as { table: PageTable }).table;
}

/** Nodes of all tables of a page table. */
function nodesOf(world: World, hwptId: number): number[] {
  const nodes = new Set<number>();
  for (const { pfn } of tableOf(world, hwptId).dump().tables) nodes.add(world.pool.nodeOf(pfn));
  return [...nodes];
}

describe("hardware page tables", () => {
  it("give each IOMMU tables on its own node for one address space (seed 1)", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const [near, far] = [world.bind(0), world.bind(2)];
    const ids = [near, far].map((devId) => {
      const { errno, hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId });
      expect(errno).toBe(Errno.OK);
      expect(iommufd.attach(devId, hwptId)).toEqual({ errno: Errno.OK, ptId: hwptId });
      return hwptId;
    });
    expect(mapAt(world, ioasId, 64, 32)).toBe(Errno.OK);
    expect(ids.map((id) => nodesOf(world, id))).toEqual([[0], [1]]);
    for (const [unit, device] of [0, 2].entries()) {
      const { rid } = world.devices[device]!;
      expect(reach(world.units[unit]!, rid, 70)).toBe(world.memory.frameOf(70));
    }
    // Pinned and charged once, for both tables.
    expect(world.meter.amount("pagePin") + world.memory.pins.size).toBe(32);
    expect(world.user.lockedPages).toBe(32);
    expect(iommufd.ioasUnmap({ ioasId, iova: 64n * PAGE, length: 32n * PAGE }).errno).toBe(0);
    expect([reach(world.units[0]!, 0, 70), reach(world.units[1]!, 0x1010, 70)]).toEqual([-1, -1]);
    expect(world.memory.pins.size).toBe(0);
  });

  it("are shared by devices that ask for the IOAS, as far as their IOMMUs agree", () => {
    const alike = makeWorld();
    const shared = alike.iommufd.ioasAlloc().ioasId;
    const pts = [0, 1, 2].map((each) => alike.iommufd.attach(alike.bind(each), shared).ptId);
    // One table for both units: it stays on the node of the device that came first.
    expect(new Set(pts).size).toBe(1);
    expect(nodesOf(alike, pts[0]!)).toEqual([0]);
    const mixed = makeWorld({ isMixed: true });
    const { ioasId } = mixed.iommufd.ioasAlloc();
    const [a, b, c] = [0, 1, 2].map((each) => mixed.iommufd.attach(mixed.bind(each), ioasId).ptId);
    // Unit 1 cannot force coherency, so that it refuses the table that does (EINVAL), and gets one.
    expect(a).toBe(b);
    expect(c).not.toBe(a);
    expect(mixed.iommufd.table(a!)!.enforcesCoherency).toBe(true);
    expect(mixed.iommufd.table(c!)!.enforcesCoherency).toBe(false);
  });

  it("that were made for devices go with the last of them, others stay", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const devices = [world.bind(0), world.bind(1)];
    const before = stateOf(world);
    const { ptId } = iommufd.attach(devices[0]!, ioasId);
    iommufd.attach(devices[1]!, ioasId);
    expect(iommufd.destroy(ptId)).toBe(Errno.EBUSY);
    expect(iommufd.destroy(ioasId)).toBe(Errno.EBUSY);
    expect(iommufd.destroy(devices[0]!)).toBe(Errno.EBUSY);
    iommufd.detach(devices[0]!);
    expect(iommufd.table(ptId)).not.toBeNull();
    iommufd.detach(devices[1]!);
    expect(iommufd.table(ptId)).toBeNull();
    expect(stateOf(world)).toBe(before);
    const { hwptId } = iommufd.hwptAlloc({ devId: devices[0]!, ptId: ioasId });
    iommufd.attach(devices[0]!, hwptId);
    iommufd.detach(devices[0]!);
    expect(iommufd.destroy(hwptId)).toBe(Errno.OK);
    expect(iommufd.destroy(hwptId)).toBe(Errno.ENOENT);
    expect(stateOf(world)).toBe(before);
  });

  it("are left for others without a state between, and take the reserved ranges along", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const [first, second] = [iommufd.ioasAlloc().ioasId, iommufd.ioasAlloc().ioasId];
    const devId = world.bind(0);
    const { ptId } = iommufd.attach(devId, first);
    mapAt(world, first, 10, 1);
    mapAt(world, second, 20, 1);
    mapAt(world, second, 0xfee00, 1);
    const before = stateOf(world);
    expect(iommufd.attach(devId, second).errno).toBe(Errno.EADDRINUSE);
    expect(stateOf(world)).toBe(before);
    iommufd.ioasUnmap({ ioasId: second, iova: 0xfee0_0000n, length: PAGE });
    const moved = iommufd.attach(devId, second);
    expect(moved.errno).toBe(Errno.OK);
    expect(iommufd.table(ptId)).toBeNull();
    expect(iommufd.ioasIovaRanges(first)).toMatchObject({ ranges: [{ start: 0n }], alignment: 1 });
    expect(reach(world.units[0]!, 0, 10)).toBe(-1);
    expect(reach(world.units[0]!, 0, 20)).toBe(world.memory.frameOf(20));
  });

  it("are refused with unknown flags, driver data or what is no IOAS", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const devId = world.bind(0);
    const { faultId } = iommufd.faultQueueAlloc();
    const before = stateOf(world);
    const alloc = (call: object) => iommufd.hwptAlloc({ devId, ptId: ioasId, ...call }).errno;
    const { NEST_PARENT, FAULT_ID_VALID, DIRTY_TRACKING } = HwptFlag;
    expect(alloc({ flags: 16 })).toBe(Errno.EOPNOTSUPP);
    expect(alloc({ flags: DIRTY_TRACKING })).toBe(Errno.EOPNOTSUPP);
    expect(alloc({ flags: NEST_PARENT | FAULT_ID_VALID, faultId })).toBe(Errno.EOPNOTSUPP);
    expect(alloc({ flags: FAULT_ID_VALID, faultId: 77 })).toBe(Errno.ENOENT);
    expect(alloc({ reserved0: 1 })).toBe(Errno.EOPNOTSUPP);
    expect(alloc({ dataLen: 1 })).toBe(Errno.EINVAL);
    expect(alloc({ dataType: 1 })).toBe(Errno.EINVAL);
    expect(alloc({ devId: ioasId })).toBe(Errno.ENOENT);
    expect(alloc({ ptId: 77 })).toBe(Errno.EINVAL);
    expect(alloc({ ptId: faultId })).toBe(Errno.EINVAL);
    expect(stateOf(world)).toBe(before);
    expect(alloc({ flags: NEST_PARENT })).toBe(Errno.OK);
  });
});

describe("devices", () => {
  it("are refused while their interrupts can be forged, unless that is allowed (EPERM)", () => {
    const world = makeWorld({ isolatedMsi: false });
    expect(world.iommufd.bind(world.devices[0]!, world.groups[0]!).errno).toBe(Errno.EPERM);
    const unsafe = makeWorld({ isolatedMsi: false, allowUnsafeInterrupts: true });
    expect(unsafe.iommufd.bind(unsafe.devices[0]!, unsafe.groups[0]!).errno).toBe(Errno.OK);
  });

  it("come back to the kernel when they are unbound, attached or not", () => {
    const world = makeWorld();
    const { ioasId } = world.iommufd.ioasAlloc();
    const before = stateOf(world);
    const devId = world.bind(0);
    world.iommufd.attach(devId, ioasId);
    world.iommufd.unbind(devId);
    expect(stateOf(world)).toBe(before);
    expect(world.groups[0]!.domain).toBe(world.groups[0]!.defaultDomain);
  });
});

describe("large pages of an IOAS", () => {
  it("can be switched off before anything is mapped in a table (EINVAL after)", () => {
    const world = makeWorld();
    const { iommufd } = world;
    const { ioasId } = iommufd.ioasAlloc();
    const devId = world.bind(0);
    iommufd.attach(devId, ioasId);
    const off = { optionId: 1, op: 0, objectId: ioasId, val64: 0n };
    expect(iommufd.option(off).errno).toBe(Errno.OK);
    mapAt(world, ioasId, 64, 4);
    expect(world.events.filter((event) => event.startsWith("map"))).toHaveLength(4);
    iommufd.option({ ...off, val64: 1n });
    mapAt(world, ioasId, 72, 4);
    expect(world.events.filter((event) => event.startsWith("map"))).toHaveLength(5);
    expect(iommufd.option(off).errno).toBe(Errno.EINVAL);
    expect(iommufd.option({ ...off, op: 1 })).toEqual({ errno: 0, val64: 1n });
  });
});
