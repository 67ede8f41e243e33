import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { viewOf } from "../../wire/layout.ts";
import { decodeChain } from "../uapi/capability-chain.ts";
import {
  Bitmap,
  DirtyBitmapGet,
  DirtyPages,
  DmaAvailCapability,
  DmaMap,
  DmaUnmap,
  IovaRangeCapability,
  IovaRangeEntry,
  MigrationCapability,
  Type1Info,
  Type1Request,
} from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { type Type1Result, type1Ioctl } from "./ioctl.ts";
import type { FaultingService } from "./type1.ts";
import { World } from "./type1-world.suite.ts";

const VADDR = 0x100_0000n;

function makeWorld(options: ConstructorParameters<typeof World>[0] = {}): World {
  const world = new World(options);
  world.memory.put(0x1000, 0x8_0000, 1024);
  return world;
}

function call(world: World, request: number, bytes: Uint8Array): Type1Result {
  return type1Ioctl(world.type1, { process: world.process, user: world.user }, request, bytes);
}

const mapBytes = (fields: Partial<Parameters<typeof DmaMap.bytesOf>[0]> = {}) =>
  DmaMap.bytesOf({ argsz: 32, flags: 3, vaddr: VADDR, iova: 0n, size: 0x1000n, ...fields });
const unmapBytes = (fields: Partial<Parameters<typeof DmaUnmap.bytesOf>[0]> = {}) =>
  DmaUnmap.bytesOf({ argsz: 24, flags: 0, iova: 0n, size: 0x1000n, ...fields });

function infoBytes(argsz: number, length = 24): Uint8Array {
  const bytes = new Uint8Array(length).fill(0xee);
  viewOf(bytes).setUint32(0, argsz, true);
  return bytes;
}

describe("ioctl GET_INFO", () => {
  it("row 45: argsz 16 has room for no chain: flags 3, the size needed, and 16 bytes written", () => {
    const { errno, bytes } = call(makeWorld(), Type1Request.GET_INFO, infoBytes(16));
    expect(errno).toBe(Errno.OK);
    const info = Type1Info.decode(viewOf(bytes!));
    expect([info.argsz, info.flags, info.iovaPgsizes]).toEqual([
      24 + 32 + 16 + 48,
      3,
      0x4020_1000n,
    ]);
    expect([...bytes!.subarray(16)]).toEqual(new Array(8).fill(0xee));
  });

  it("argsz 24 and one byte too few: cap_offset 0, the size needed", () => {
    for (const argsz of [24, 119]) {
      const { bytes } = call(makeWorld(), Type1Request.GET_INFO, infoBytes(argsz));
      const info = Type1Info.decode(viewOf(bytes!));
      expect([info.argsz, info.flags, info.capOffset, info.pad]).toEqual([120, 3, 0, 0]);
    }
  });

  it("argsz below 16 is EINVAL, bytes that are not there EFAULT", () => {
    expect(call(makeWorld(), Type1Request.GET_INFO, infoBytes(15)).errno).toBe(Errno.EINVAL);
    expect(call(makeWorld(), Type1Request.GET_INFO, infoBytes(16, 15)).errno).toBe(Errno.EFAULT);
  });

  it("with room: MIGRATION at 24, DMA_AVAIL at 56, IOVA_RANGE at 72", () => {
    const world = makeWorld();
    world.map(0, Number(VADDR), 4096);
    const { errno, bytes } = call(world, Type1Request.GET_INFO, infoBytes(4096));
    expect(errno).toBe(Errno.OK);
    const view = viewOf(bytes!);
    const info = Type1Info.decode(view);
    expect([info.argsz, info.capOffset, bytes!.length]).toEqual([4096, 24, 120]);
    expect(decodeChain(bytes!, 24).map((each) => each.id)).toEqual([2, 3, 1]);
    expect(MigrationCapability.get.pgsizeBitmap(view, 24)).toBe(0x1000n);
    expect(MigrationCapability.get.maxDirtyBitmapSize(view, 24)).toBe(0x1000_0000n);
    expect(DmaAvailCapability.get.avail(view, 56)).toBe(65534);
    expect(IovaRangeCapability.get.nrIovas(view, 72)).toBe(2);
    expect(IovaRangeEntry.decode(view, 88)).toMatchObject({ start: 0n, end: 0xfedf_ffffn });
    expect(IovaRangeEntry.decode(view, 104).end).toBe(0xffff_ffff_ffffn);
  });

  it("a container of mediated devices alone has every page size and no IOVA_RANGE", () => {
    const { bytes } = call(makeWorld({ domains: 0 }), Type1Request.GET_INFO, infoBytes(4096));
    const info = Type1Info.decode(viewOf(bytes!));
    expect(info.iovaPgsizes).toBe(0xffff_ffff_ffff_f000n);
    expect(decodeChain(bytes!, info.capOffset).map((each) => each.id)).toEqual([2, 3]);
  });
});

describe("ioctl MAP_DMA and UNMAP_DMA", () => {
  it("row 2: argsz 31 is EINVAL, more than the structure is taken", () => {
    const world = makeWorld();
    expect(call(world, Type1Request.MAP_DMA, mapBytes({ argsz: 31 })).errno).toBe(Errno.EINVAL);
    expect(call(world, Type1Request.MAP_DMA, mapBytes({ argsz: 64 })).errno).toBe(Errno.OK);
  });

  it("a structure cut off is EFAULT, whatever it says", () => {
    const world = makeWorld();
    const cut = mapBytes().subarray(0, 31);
    expect(call(world, Type1Request.MAP_DMA, cut).errno).toBe(Errno.EFAULT);
    const cutUnmap = unmapBytes().subarray(0, 23);
    expect(call(world, Type1Request.UNMAP_DMA, cutUnmap).errno).toBe(Errno.EFAULT);
  });

  it("row 19: what fails is not written back, what succeeds has the size unmapped", () => {
    const world = makeWorld();
    call(world, Type1Request.MAP_DMA, mapBytes({ size: 0x2000n }));
    const refused = call(world, Type1Request.UNMAP_DMA, unmapBytes());
    expect(refused).toEqual({ errno: Errno.EINVAL, bytes: null });
    const done = call(world, Type1Request.UNMAP_DMA, unmapBytes({ size: 0x10_0000n }));
    expect(DmaUnmap.get.size(viewOf(done.bytes!), 0)).toBe(0x2000n);
  });

  it("row 26: GET_DIRTY_BITMAP with argsz 40 is EINVAL; with its bitmap cut off EFAULT", () => {
    const world = makeWorld();
    const short = unmapBytes({ argsz: 40, flags: 1 });
    expect(call(world, Type1Request.UNMAP_DMA, short).errno).toBe(Errno.EINVAL);
    const cut = unmapBytes({ argsz: 48, flags: 1 });
    expect(call(world, Type1Request.UNMAP_DMA, cut).errno).toBe(Errno.EFAULT);
  });

  it("flags that nobody knows are EINVAL, even where the bitmap is cut off", () => {
    for (const flags of [9, 0x8000_0001]) {
      const bytes = unmapBytes({ argsz: 48, flags });
      expect(call(makeWorld(), Type1Request.UNMAP_DMA, bytes).errno).toBe(Errno.EINVAL);
    }
  });

  it("gives dirty pages out through the pointer of the structure", () => {
    const world = makeWorld();
    const user = new UserBuffer(0x7000n, new Uint8Array(8));
    world.user = user;
    call(world, Type1Request.DIRTY_PAGES, DirtyPages.bytesOf({ argsz: 8, flags: 1 }));
    call(world, Type1Request.MAP_DMA, mapBytes({ size: 0x3000n }));
    const bytes = new Uint8Array(48);
    bytes.set(unmapBytes({ argsz: 48, flags: 1, size: 0x3000n }));
    bytes.set(Bitmap.bytesOf({ pgsize: 4096n, size: 8n, data: 0x7000n }), 24);
    const done = call(world, Type1Request.UNMAP_DMA, bytes);
    expect(done.errno).toBe(Errno.OK);
    expect(done.bytes!.length).toBe(48);
    expect(user.bytes[0]).toBe(7);
  });
});

describe("ioctl DIRTY_PAGES", () => {
  const getBytes = (argsz: number, data = 0x7000n) => {
    const bitmap = Bitmap.bytesOf({ pgsize: 4096n, size: 8n, data });
    const bytes = new Uint8Array(48);
    bytes.set(DirtyPages.bytesOf({ argsz, flags: 4 }));
    bytes.set(DirtyBitmapGet.bytesOf({ iova: 0n, size: 0x1000n, bitmap }), 8);
    return bytes;
  };

  it("row 50: no flag, two, or one unknown is EINVAL; argsz 7 too", () => {
    for (const flags of [0, 3, 5, 7, 8, 0x8000_0000]) {
      const bytes = DirtyPages.bytesOf({ argsz: 8, flags });
      expect(call(makeWorld(), Type1Request.DIRTY_PAGES, bytes).errno).toBe(Errno.EINVAL);
    }
    const short = DirtyPages.bytesOf({ argsz: 7, flags: 1 });
    expect(call(makeWorld(), Type1Request.DIRTY_PAGES, short).errno).toBe(Errno.EINVAL);
  });

  it("row 47: GET is EINVAL without tracking, EACCES for version 1", () => {
    expect(call(makeWorld(), Type1Request.DIRTY_PAGES, getBytes(48)).errno).toBe(Errno.EINVAL);
    const first = makeWorld({ type1: { isV2: false } });
    expect(call(first, Type1Request.DIRTY_PAGES, getBytes(48)).errno).toBe(Errno.EACCES);
    expect(call(first, Type1Request.DIRTY_PAGES, new Uint8Array(0)).errno).toBe(Errno.EACCES);
  });

  it("GET with argsz 47 is EINVAL, cut off EFAULT, with a bad pointer EFAULT", () => {
    const world = makeWorld();
    call(world, Type1Request.MAP_DMA, mapBytes());
    call(world, Type1Request.DIRTY_PAGES, DirtyPages.bytesOf({ argsz: 8, flags: 1 }));
    const get = (bytes: Uint8Array) => call(world, Type1Request.DIRTY_PAGES, bytes).errno;
    expect(get(getBytes(47))).toBe(Errno.EINVAL);
    expect(get(getBytes(48).subarray(0, 47))).toBe(Errno.EFAULT);
    expect(get(getBytes(48))).toBe(Errno.EFAULT);
    expect(get(getBytes(48, 2n ** 63n))).toBe(Errno.EINVAL);
    world.user = new UserBuffer(0x7000n, new Uint8Array(8));
    expect(get(getBytes(48))).toBe(Errno.OK);
  });
});

describe("ioctl, others", () => {
  it("row 44: an unknown request is ENOTTY", () => {
    for (const request of [0, 0x3b6f, 0x3b73, 0x3b77, 2 ** 32 - 1]) {
      expect(call(makeWorld(), request, new Uint8Array(64)).errno).toBe(Errno.ENOTTY);
    }
  });

  it("ENABLE_IOPF is ENOTTY in Linux 7.2, and goes to who serves faults where there is one", () => {
    const bytes = new Uint8Array(0);
    expect(call(makeWorld(), Type1Request.ENABLE_IOPF, bytes).errno).toBe(Errno.ENOTTY);
    const faulting = { isEnabled: false, enable: () => Errno.ENODEV } as unknown as FaultingService;
    const world = makeWorld({ type1: { faulting } });
    expect(call(world, Type1Request.ENABLE_IOPF, bytes).errno).toBe(Errno.ENODEV);
  });
});
