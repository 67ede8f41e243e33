import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { amdV1 } from "../../iommu/formats/amd-v1.ts";
import { reach } from "../../iommu/hardware-world.suite.ts";
import { Prot } from "../../iommu/prot.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { iommufdIoctl } from "./ioctl.ts";
import { FakeMemory, makeWorld } from "./iommufd-world.suite.ts";
import {
  DIRTY_BITMAP_NO_CLEAR,
  HwptFlag,
  HwptGetDirtyBitmap,
  IommufdRequest,
  MapFlag,
} from "./uapi.ts";

const FIXED = MapFlag.READABLE | MapFlag.WRITEABLE | MapFlag.FIXED_IOVA;
const DATA = 0x7000n;

/** A device whose table notes writes, with 4 MiB mapped from page 512 on. */
function tracked(runPages = 1) {
  const memory = new FakeMemory(runPages);
  // Runs of 2 MiB begin at huge pages, apart from each other.
  if (runPages === 512) memory.frameOf = (vpn) => 0x10_0000 + vpn + 512 * Math.floor(vpn / 512);
  const world = makeWorld({ memory, format: amdV1({ dirty: true }), tracksDirty: true });
  const { iommufd } = world;
  const { ioasId } = iommufd.ioasAlloc();
  const devId = world.bind(0);
  const flags = HwptFlag.DIRTY_TRACKING;
  const { hwptId } = iommufd.hwptAlloc({ devId, ptId: ioasId, flags });
  iommufd.attach(devId, hwptId);
  const at = { userVa: 512n << 12n, iova: 512n << 12n, length: 1024n << 12n };
  iommufd.ioasMap({ ioasId, flags: FIXED, ...at });
  const buffer = new UserBuffer(DATA, new Uint8Array(128));
  const context = { memory: buffer, fileOf: () => null, openFault: () => -1 };
  const get = (parts: object = {}) => {
    const fields = { size: 48, hwptId, flags: 0, reserved0: 0, iova: 512n << 12n };
    const rest = { length: 1024n << 12n, pageSize: 4096n, data: DATA };
    const bytes = HwptGetDirtyBitmap.bytesOf({ ...fields, ...rest, ...parts });
    return iommufdIoctl(iommufd, context, IommufdRequest.HWPT_GET_DIRTY_BITMAP, bytes).errno;
  };
  const write = (page: number) => {
    reach(world.units[0]!, world.devices[0]!.rid, page, Prot.WRITE);
    const { driver } = iommufd.table(hwptId)!.domain;
    (driver as unknown as { table: { markDirty(pfn: number): boolean } }).table.markDirty(page);
  };
  const enable = (flag: number) => iommufd.hwptSetDirtyTracking({ hwptId, flags: flag });
  const bits = () => {
    const set: number[] = [];
    for (let bit = 0; bit < 1024; bit += 1) {
      if ((buffer.bytes[bit >> 3]! >> (bit & 7)) & 1) set.push(bit);
    }
    return set;
  };
  return { ...world, ioasId, hwptId, buffer, get, write, enable, bits };
}

describe("dirty tracking of a page table", () => {
  it("begins with all pages clean, and is off before (EINVAL)", () => {
    const world = tracked();
    world.write(600);
    expect(world.get()).toBe(Errno.EINVAL);
    expect(world.enable(1)).toBe(Errno.OK);
    expect([world.get(), world.bits()]).toEqual([Errno.OK, []]);
  });

  it("tells each page once, adds to the bits there are, and can leave pages dirty", () => {
    const world = tracked();
    world.enable(1);
    for (const page of [512, 700, 1535]) world.write(page);
    world.buffer.bytes[1] = 2;
    expect(world.get({ flags: DIRTY_BITMAP_NO_CLEAR })).toBe(Errno.OK);
    expect(world.bits()).toEqual([0, 9, 188, 1023]);
    world.buffer.bytes.fill(0);
    world.get();
    expect(world.bits()).toEqual([0, 188, 1023]);
    world.buffer.bytes.fill(0);
    expect([world.get(), world.bits()]).toEqual([Errno.OK, []]);
  });

  it("tells a large page as all its pages, and pages of another size as one bit", () => {
    const world = tracked(512);
    world.enable(1);
    world.write(600);
    world.get();
    expect(world.bits()).toHaveLength(512);
    world.buffer.bytes.fill(0);
    world.write(1100);
    world.get({ pageSize: 2n ** 21n });
    expect(world.bits()).toEqual([1]);
  });

  it("is refused for ranges that are not mapped throughout, misaligned or without a bitmap", () => {
    const world = tracked();
    world.enable(1);
    world.write(600);
    expect(world.get({ iova: 511n << 12n })).toBe(Errno.EINVAL);
    expect(world.get({ iova: (512n << 12n) + 5n })).toBe(Errno.EINVAL);
    expect(world.get({ pageSize: 0n })).toBe(Errno.EINVAL);
    expect(world.get({ length: 0n })).toBe(Errno.EOVERFLOW);
    expect(world.get({ iova: 2n ** 64n - 4096n, length: 8192n })).toBe(Errno.EOVERFLOW);
    expect(world.get({ flags: 2 })).toBe(Errno.EOPNOTSUPP);
    expect(world.get({ hwptId: 77 })).toBe(Errno.ENOENT);
    expect(world.get({ data: DATA + 1n })).toBe(Errno.EFAULT);
    expect(world.enable(2)).toBe(Errno.EOPNOTSUPP);
    // Nothing became clean meanwhile.
    world.get();
    expect(world.bits()).toEqual([88]);
  });

  it("is there only in tables that were made for it (EOPNOTSUPP)", () => {
    const world = tracked();
    const devId = world.bind(2);
    const { hwptId } = world.iommufd.hwptAlloc({ devId, ptId: world.ioasId });
    expect(world.iommufd.hwptSetDirtyTracking({ hwptId, flags: 1 })).toBe(Errno.EOPNOTSUPP);
    expect(world.get({ hwptId })).toBe(Errno.EOPNOTSUPP);
  });
});
