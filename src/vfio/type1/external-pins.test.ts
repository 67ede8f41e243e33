import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { Prot } from "../../iommu/prot.ts";
import { MapFlag, UnmapFlag } from "../uapi/type1.ts";
import { pinPages, registerDevice, unpinPages, unregisterDevice } from "./external-pins.ts";
import type { FaultingService, PinningDevice, Type1Group } from "./type1.ts";
import { World } from "./type1-world.suite.ts";

const VADDR = 0x100_0000;

/** A container of mediated devices, with 64 pages mapped at 0, read-only from page 32 on. */
function makeWorld(options: ConstructorParameters<typeof World>[0] = {}): {
  world: World;
  group: Type1Group;
  device: PinningDevice;
  pin: (iovaPfn: number, pages: number, prot?: number) => number;
  frames: Float64Array;
} {
  const world = new World({ domains: 0, ...options });
  world.memory.put(0x1000, 0x8_0000, 64);
  const group = world.addEmulated();
  const device = { dmaUnmap: (iovaPfn: number, pages: number) => unpin(iovaPfn, pages) };
  const unpin = (iovaPfn: number, pages: number) => {
    for (let pfn = iovaPfn; pfn < iovaPfn + pages; pfn += 1) unpinPages(world.type1, pfn, 1);
  };
  registerDevice(world.type1, device);
  world.map(0, VADDR, 32 * 4096);
  world.map(32 * 4096, VADDR + 32 * 4096, 32 * 4096, MapFlag.READ);
  const frames = new Float64Array(600);
  const pin = (iovaPfn: number, pages: number, prot: number = Prot.READ) =>
    pinPages(world.type1, group, iovaPfn, pages, prot, frames);
  return { world, group, device, pin, frames };
}

describe("pin_pages", () => {
  it("row 51: to write what is mapped to read is EPERM, unmapped EINVAL, 513 pages E2BIG", () => {
    const { world, pin } = makeWorld();
    const before = world.state();
    expect(pin(40, 1, Prot.WRITE)).toBe(Errno.EPERM);
    expect(pin(64, 1)).toBe(Errno.EINVAL);
    expect(pin(0, 513)).toBe(Errno.E2BIG);
    expect(pin(0, 0)).toBe(Errno.EINVAL);
    expect(pin(60, 8)).toBe(Errno.EINVAL);
    expect(pin(2 ** 52 - 1, 8)).toBe(Errno.EINVAL);
    expect(world.state()).toEqual(before);
  });

  it("gives the frames, charges each page once, and lets go with the last user", () => {
    const { world, pin, frames } = makeWorld();
    expect(pin(30, 4)).toBe(Errno.OK);
    expect(pin(31, 1, Prot.WRITE)).toBe(Errno.OK);
    expect(frames[0]).toBe(0x8_001f);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([4, 4]);
    expect(unpinPages(world.type1, 30, 4)).toBe(4);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([1, 1]);
    expect(unpinPages(world.type1, 31, 1)).toBe(1);
    expect(unpinPages(world.type1, 31, 1)).toBe(1);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([0, 0]);
    expect(unpinPages(world.type1, 62, 4)).toBe(2);
  });

  it("version 1 is EACCES, no device EINVAL, memory that moves EBUSY", () => {
    expect(makeWorld({ type1: { isV2: false } }).pin(0, 1)).toBe(Errno.EACCES);
    const { world, device, pin } = makeWorld();
    unregisterDevice(world.type1, device);
    expect(pin(0, 1)).toBe(Errno.EINVAL);
    registerDevice(world.type1, device);
    world.type1.vaddrInvalidCount = 1;
    expect(pin(0, 1)).toBe(Errno.EBUSY);
  });

  it("the limit of locked memory is ENOMEM, device memory EINVAL, a hole EFAULT: none is kept", () => {
    const { world, pin } = makeWorld({ process: { memlockPages: 3 } });
    world.memory.put(0x1010, 0xf_0000, 1, { isReserved: true }).pages.delete(0x1020);
    const before = world.state();
    expect(pin(0, 4)).toBe(Errno.ENOMEM);
    expect(pin(14, 3)).toBe(Errno.EINVAL);
    expect(pin(30, 3)).toBe(Errno.EFAULT);
    expect(world.state()).toEqual(before);
    expect(pin(0, 3)).toBe(Errno.OK);
  });

  it("with a domain the page is charged already; with I/O page faults it is not", () => {
    const plain = makeWorld({ domains: 1 });
    expect(plain.pin(0, 2)).toBe(Errno.OK);
    expect([plain.world.process.lockedPages, plain.world.memory.pinned]).toEqual([64, 66]);
    expect(plain.world.unmap(0, 64 * 4096)).toBe(`${64 * 4096}`);
    expect([plain.world.process.lockedPages, plain.world.memory.pinned]).toEqual([0, 0]);

    const service = { isEnabled: true, mappingAdded: () => 0, mappingRemoved: () => {} };
    const faulting = service as unknown as FaultingService;
    const lazy = makeWorld({ domains: 1, type1: { faulting } });
    expect(lazy.world.process.lockedPages).toBe(0);
    expect(lazy.pin(0, 2)).toBe(Errno.OK);
    expect(lazy.world.process.lockedPages).toBe(2);
  });

  it("makes a group one that writes only to pages pinned", () => {
    const { world, group, pin } = makeWorld();
    group.isPinnedScope = false;
    world.type1.nonPinnedGroups = 1;
    expect(pin(64, 1)).toBe(Errno.EINVAL);
    expect(world.type1.nonPinnedGroups).toBe(1);
    expect(pin(0, 1)).toBe(Errno.OK);
    expect(pin(1, 1)).toBe(Errno.OK);
    expect(world.type1.nonPinnedGroups).toBe(0);
  });

  it("unmapping asks the device to let go, mapping by mapping", () => {
    const { world, pin } = makeWorld();
    pin(0, 40);
    expect(world.unmap(0, 0, UnmapFlag.ALL)).toBe(`${64 * 4096}`);
    expect([world.memory.pinned, world.process.lockedPages]).toEqual([0, 0]);
  });

  it("a device that needs several rounds is asked again", () => {
    const { world, device, pin } = makeWorld();
    unregisterDevice(world.type1, device);
    let calls = 0;
    registerDevice(world.type1, {
      dmaUnmap: () => {
        calls += 1;
        unpinPages(world.type1, calls - 1, 1);
      },
    });
    pin(0, 10);
    expect(world.unmap(0, 32 * 4096)).toBe(`${32 * 4096}`);
    expect(calls).toBe(10);
  });
});
