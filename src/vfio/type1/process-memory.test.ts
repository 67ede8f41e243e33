/** Type1 on the memory of a modelled process, instead of a plain table of pages. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { CountingMeter } from "../../meter.ts";
import { AddressSpace } from "../process/address-space.ts";
import { contiguousFrames, scatteredFrames } from "../process/frame-source.ts";
import { MemoryFile } from "../process/memory-file.ts";
import type { ProcessMemory } from "../process/process-memory.ts";
import { UserProcess } from "../process/user-process.ts";
import { MapFlag, UnmapFlag } from "../uapi/type1.ts";
import { pinPages, registerDevice, unpinPages } from "./external-pins.ts";
import { mapDma, mapRequest } from "./map.ts";
import { World } from "./type1-world.suite.ts";

const MIB = 0x10_0000;
const VPN = 0x10_0000;
const BASE = 0x40_0000;
const RW = MapFlag.READ | MapFlag.WRITE;

function makeSpace(pages: number, isScattered: boolean) {
  const meter = new CountingMeter();
  const stretch = { basePfn: BASE, pages: 2 ** 14 };
  const frames = isScattered
    ? scatteredFrames({ ...stretch, unitPages: 1, seed: 1 })
    : contiguousFrames(stretch);
  const space = new AddressSpace({ frames, meter });
  space.mmap({ vpn: VPN, pages, backing: { kind: "anonymous", isHuge: false } });
  return { space, meter };
}

/** 16 pages at VPN, from a source of their own. */
function spaceAt(basePfn: number): AddressSpace {
  const space = new AddressSpace({ frames: contiguousFrames({ basePfn, pages: 64 }) });
  space.mmap({ vpn: VPN, pages: 16, backing: { kind: "anonymous", isHuge: false } });
  return space;
}

function mapOf(world: World, memory: ProcessMemory, memlockPages = Number.POSITIVE_INFINITY) {
  const process = new UserProcess({ memory, memlockPages });
  const map = (iova: number, page: number, pages: number, flags: number = RW) => {
    const vaddr = BigInt(VPN + page) << 12n;
    const request = mapRequest(flags, vaddr, BigInt(iova), BigInt(pages) << 12n);
    return mapDma(world.type1, process, request);
  };
  return { process, map };
}

describe("type1 on a process's memory", () => {
  it("faults pages in, pins them, and translates to where the process has them", () => {
    for (const isScattered of [false, true]) {
      const { space, meter } = makeSpace(2048, isScattered);
      const world = new World({ isTraced: false });
      const { process, map } = mapOf(world, space);
      expect(map(MIB, 0, 2048)).toBe(Errno.OK);
      for (const page of [0, 1, 511, 512, 2047]) {
        const frame = space.frameAt(VPN + page);
        expect(world.tables[0]!.iovaToPhys(256 + page)).toBe(frame);
        expect(space.pinsOf(frame)).toBe(1);
      }
      expect([process.lockedPages, meter.amount("pagePin")]).toEqual([2048, 2048]);
      expect(world.unmap(0, 0, UnmapFlag.ALL)).toBe(`${2048 * 4096}`);
      expect(meter.amount("pageUnpin")).toBe(2048);
      expect(space.pinsOf(space.frameAt(VPN))).toBe(0);
      expect(space.isDirty(space.frameAt(VPN))).toBe(true);
    }
  });

  it("rows 15 and 16: read-only memory and a hole are EFAULT, and no page stays pinned", () => {
    const { space } = makeSpace(16, true);
    const world = new World();
    const { process, map } = mapOf(world, space);
    space.mprotect(VPN + 8, 8, true, false);
    expect(map(0, 0, 16)).toBe(Errno.EFAULT);
    expect(map(0, 0, 16, MapFlag.READ)).toBe(Errno.OK);
    space.munmap(VPN + 4, 1);
    expect(map(MIB, 0, 8)).toBe(Errno.EFAULT);
    expect(process.lockedPages).toBe(16);
    expect(world.unmap(0, 16 * 4096)).toBe(`${16 * 4096}`);
    for (const page of [0, 3, 8]) expect(space.pinsOf(space.frameAt(VPN + page))).toBe(0);
  });

  it("row 13: the same page mapped twice is pinned and charged twice", () => {
    const { space } = makeSpace(16, false);
    const world = new World();
    const { process, map } = mapOf(world, space, 3);
    expect([map(0, 0, 1), map(MIB, 0, 1), map(2 * MIB, 0, 2)]).toEqual([0, 0, Errno.ENOMEM]);
    expect([space.pinsOf(space.frameAt(VPN)), process.lockedPages]).toEqual([2, 2]);
  });

  it("frames outlive the memory that they were, until they are unmapped", () => {
    const { space } = makeSpace(4, false);
    const world = new World();
    const { map } = mapOf(world, space);
    map(0, 0, 4);
    const frame = space.frameAt(VPN);
    space.munmap(VPN, 4);
    expect([space.pinsOf(frame), world.tables[0]!.iovaToPhys(0)]).toEqual([1, frame]);
    expect(world.unmap(0, 4 * 4096)).toBe("16384");
    expect(space.pinsOf(frame)).toBe(0);
  });

  it("VADDR: another process takes a mapping over, and lets go of its pages", () => {
    const frames = contiguousFrames({ basePfn: BASE, pages: 64 });
    const file = new MemoryFile({ pages: 16 });
    const backing = { kind: "file", file, filePage: 0, isShared: true } as const;
    const [before, after] = [0, 1].map(() => new AddressSpace({ frames }));
    before!.mmap({ vpn: VPN, pages: 16, backing });
    after!.mmap({ vpn: VPN + 0x1000, pages: 16, backing });
    const world = new World();
    const old = mapOf(world, before!);
    expect(old.map(0, 0, 16)).toBe(Errno.OK);
    expect(world.unmap(0, 16 * 4096, UnmapFlag.VADDR)).toBe("65536");
    const heir = mapOf(world, after!);
    expect(heir.map(0, 0x1000, 16, MapFlag.VADDR)).toBe(Errno.OK);
    before!.munmap(VPN, 16);
    expect([old.process.lockedPages, heir.process.lockedPages]).toEqual([0, 16]);
    const frame = after!.frameAt(VPN + 0x1000);
    expect([world.tables[0]!.iovaToPhys(0), after!.pinsOf(frame)]).toEqual([frame, 1]);
    expect(world.unmap(0, 16 * 4096)).toBe("65536");
    expect([after!.pinsOf(frame), heir.process.lockedPages]).toEqual([0, 0]);
  });

  it("VADDR: pages go back to the memory that pinned them, though another one's has come", () => {
    for (const afterBase of [BASE, 2 * BASE]) {
      const before = spaceAt(BASE);
      const after = spaceAt(afterBase);
      const world = new World();
      const old = mapOf(world, before);
      const heir = mapOf(world, after);
      expect(heir.map(MIB, 0, 4)).toBe(Errno.OK);
      expect(old.map(0, 0, 16)).toBe(Errno.OK);
      expect(world.unmap(0, 16 * 4096, UnmapFlag.VADDR)).toBe("65536");
      expect(heir.map(0, 0, 16, MapFlag.VADDR)).toBe(Errno.OK);
      expect([old.process.lockedPages, heir.process.lockedPages]).toEqual([0, 20]);
      expect([before.pinsOf(BASE), after.pinsOf(afterBase)]).toEqual([1, 1]);
      expect(world.unmap(0, 16 * 4096)).toBe("65536");
      expect([before.pinsOf(BASE), after.pinsOf(afterBase)]).toEqual([0, 1]);
      expect([old.process.lockedPages, heir.process.lockedPages]).toEqual([0, 4]);
      expect(world.unmap(0, 0, UnmapFlag.ALL)).toBe("16384");
      expect([after.pinsOf(afterBase), heir.process.lockedPages]).toEqual([0, 0]);
    }
  });

  it("VADDR: what a driver pinned before goes back there, what it pins now to the new memory", () => {
    const before = spaceAt(BASE);
    const after = spaceAt(2 * BASE);
    const world = new World();
    const group = world.type1.domains[0]!.groups[0]!;
    registerDevice(world.type1, {
      dmaUnmap: (first, pages) => unpinPages(world.type1, first, pages),
    });
    const old = mapOf(world, before);
    const heir = mapOf(world, after);
    expect(old.map(0, 0, 16)).toBe(Errno.OK);
    const frames = new Float64Array(1);
    const pin = (page: number) => pinPages(world.type1, group, page, 1, RW, frames);
    expect([pin(0), before.pinsOf(BASE)]).toEqual([Errno.OK, 2]);
    expect(world.unmap(0, 16 * 4096, UnmapFlag.VADDR)).toBe("65536");
    expect(heir.map(0, 0, 16, MapFlag.VADDR)).toBe(Errno.OK);
    expect([pin(1), after.pinsOf(2 * BASE)]).toEqual([Errno.OK, 1]);
    expect(world.unmap(0, 16 * 4096)).toBe("65536");
    expect([before.pinsOf(BASE), after.pinsOf(2 * BASE), heir.process.lockedPages]).toEqual([
      0, 0, 0,
    ]);
  });
});
