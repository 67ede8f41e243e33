import { describe, expect, it, vi } from "vitest";
import { Errno } from "../../errno.ts";
import { reach } from "../../iommu/hardware-world.suite.ts";
import type { PageTable } from "../../iommu/page-table.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { VfioPciDevice } from "../device/pci-device.ts";
import { makeWorld, stateOf } from "./iommufd-world.suite.ts";
import { MapFlag } from "./uapi.ts";

const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;
const GIB = 2n ** 30n;
const BAR_PFN = 2 ** 28;

/** A device with a BAR of 192 GiB, a dma-buf over it, and tables of two IOMMUs on one IOAS. */
function gpu() {
  const world = makeWorld();
  const { iommufd } = world;
  const pci = new VfioPciDevice({
    iommuDevice: world.devices[1]!,
    bars: [{ pfn: BAR_PFN, bytes: Number(192n * GIB) }],
    canExport: true,
  });
  const { ioasId } = iommufd.ioasAlloc();
  const tables = [0, 2].map((index) => {
    const devId = world.bind(index);
    const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId });
    iommufd.attach(devId, hwptId);
    return iommufd.table(hwptId)!;
  });
  const buffer = pci.exportDmaBuf(0, [{ offset: 0n, length: 192n * GIB }]);
  if (typeof buffer === "number") throw new Error(`no buffer: ${buffer}`);
  const map = (call: object = {}) => {
    const whole = { ioasId, flags: FIXED, iova: 1024n * GIB, length: 192n * GIB };
    return iommufd.ioasMapFile({ ...whole, ...call }, { kind: "dma-buf", buffer }).errno;
  };
  return { ...world, pci, buffer, ioasId, tables, map };
}

describe("a dma-buf in an IOAS (seed 5)", () => {
  it("is one map for each table: no pin, no lookup, no charge, leaves of 1 GiB", () => {
    const world = gpu();
    world.events.length = 0;
    expect(world.map()).toBe(Errno.OK);
    const first = Number((1024n * GIB) >> 12n);
    const event = `map ${first} ${BAR_PFN} ${192 * 2 ** 18}`;
    expect(world.events).toEqual([event, event]);
    expect(world.meter.amount("pinBatch") + world.meter.amount("pfnLookup")).toBe(0);
    expect([world.user.lockedPages, world.memory.pins.size]).toEqual([0, 0]);
    for (const { domain } of world.tables) {
      const leaves: number[] = [];
      const { table } = domain.driver as unknown as { table: PageTable };
      table.forEachLeaf((leaf) => leaves.push(leaf.pageShift));
      expect(leaves).toEqual(Array(192).fill(30));
    }
    expect(reach(world.units[1]!, 0x1010, first + 5)).toBe(BAR_PFN + 5);
  });

  it("leaves the tables of every IOMMU when the device is reset, and stays out (ENODEV)", () => {
    const world = gpu();
    world.map();
    world.events.length = 0;
    const first = Number((1024n * GIB) >> 12n);
    // The area stays: it is revoked for good, though the device has its memory back.
    world.pci.reset();
    const event = `unmap ${first} ${192 * 2 ** 18} ${192 * 2 ** 18}`;
    expect(world.events).toEqual([event, event]);
    expect(reach(world.units[0]!, 0, first + 5)).toBe(-1);
    expect(world.iommufd.ioas(world.ioasId)!.ioas.space.areas.count).toBe(1);
    world.events.length = 0;
    const unmap = { ioasId: world.ioasId, iova: 1024n * GIB, length: 192n * GIB };
    expect(world.iommufd.ioasUnmap(unmap).errno).toBe(Errno.OK);
    expect(world.events).toEqual([]);
  });

  it("cannot be mapped while it is revoked, and can again afterwards", () => {
    const world = gpu();
    const before = stateOf(world);
    world.buffer.move(true);
    expect(world.map()).toBe(Errno.ENODEV);
    expect(stateOf(world)).toBe(before);
    world.buffer.move(false);
    expect(world.map()).toBe(Errno.OK);
  });

  it("may be attached to new tables after it was revoked: they get nothing of it", () => {
    const world = gpu();
    world.map();
    world.pci.reset();
    const devId = world.bind(3);
    const { errno, hwptId } = world.iommufd.hwptAlloc({ devId, ptId: world.ioasId });
    expect(errno).toBe(Errno.OK);
    const { table } = world.iommufd.table(hwptId)!.domain.driver as unknown as { table: PageTable };
    let leaves = 0;
    table.forEachLeaf(() => {
      leaves += 1;
    });
    expect(leaves).toBe(0);
  });

  it("is refused with several ranges, past its end, and for accesses of the kernel", () => {
    const world = gpu();
    const ranges = [
      { offset: 0n, length: GIB },
      { offset: 2n * GIB, length: GIB },
    ];
    const two = world.pci.exportDmaBuf(0, ranges);
    if (typeof two === "number") throw new Error("no buffer");
    const call = { ioasId: world.ioasId, flags: FIXED, iova: 0n, length: GIB };
    const before = stateOf(world);
    const file = { kind: "dma-buf", buffer: two } as const;
    expect(world.iommufd.ioasMapFile(call, file).errno).toBe(Errno.EOPNOTSUPP);
    expect(world.map({ length: 192n * GIB + 4096n })).toBe(Errno.EINVAL);
    expect(world.map({ start: 4096n })).toBe(Errno.EINVAL);
    expect(world.map({ length: 0n })).toBe(Errno.EINVAL);
    expect(world.iommufd.ioasMapFile(call, null).errno).toBe(Errno.EBADF);
    expect(stateOf(world)).toBe(before);
    world.map();
    const { accessId } = world.iommufd.createAccess({ unmap() {} });
    world.iommufd.attachAccess(accessId, world.ioasId);
    const access = world.iommufd.access(accessId);
    expect(access.pin(1024n * GIB, 4096n, false).errno).toBe(Errno.EINVAL);
  });

  it("maps as device memory, not coherent, a slice from where it starts", () => {
    const world = gpu();
    const map = vi.spyOn(world.tables[0]!.domain.driver!, "map");
    expect(world.map({ start: 3n * GIB, length: GIB })).toBe(Errno.OK);
    const first = Number((1024n * GIB) >> 12n);
    expect(reach(world.units[0]!, 0, first)).toBe(BAR_PFN + 3 * 2 ** 18);
    expect(map.mock.calls.map((call) => call[4])).toEqual([PROT_RW | Prot.MMIO]);
  });

  it("is the only way: memory of a process that is a device's cannot be pinned (EFAULT)", () => {
    const world = gpu();
    world.memory.reserved.add(64);
    const before = stateOf(world);
    const call = { ioasId: world.ioasId, flags: FIXED, userVa: 64n << 12n, iova: 64n << 12n };
    expect(world.iommufd.ioasMap({ ...call, length: 4096n }).errno).toBe(Errno.EFAULT);
    expect(stateOf(world)).toBe(before);
  });
});
