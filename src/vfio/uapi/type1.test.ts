import { describe, expect, it } from "vitest";
import {
  Bitmap,
  CapabilityHeader,
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
} from "./type1.ts";

describe("uAPI of type1", () => {
  it("has the request numbers of the kernel's header: _IO(';', 100 + n)", () => {
    const numberOf = (n: number) => (";".charCodeAt(0) << 8) | (100 + n);
    expect(Type1Request).toEqual({
      GET_INFO: numberOf(12),
      MAP_DMA: numberOf(13),
      UNMAP_DMA: numberOf(14),
      DIRTY_PAGES: numberOf(17),
      ENABLE_IOPF: numberOf(18),
    });
    expect(Type1Request.GET_INFO).toBe(0x3b70);
  });

  // Sizes and offsets as a C compiler for x86-64 lays the header's structures out.
  it.each([
    [Type1Info, 24, { argsz: 0, flags: 4, iovaPgsizes: 8, capOffset: 16, pad: 20 }],
    [CapabilityHeader, 8, { id: 0, version: 2, next: 4 }],
    [IovaRangeCapability, 16, { nrIovas: 8, pad: 12 }],
    [IovaRangeEntry, 16, { start: 0, end: 8 }],
    [MigrationCapability, 32, { flags: 8, pgsizeBitmap: 16, maxDirtyBitmapSize: 24 }],
    [DmaAvailCapability, 12, { avail: 8 }],
    [DmaMap, 32, { argsz: 0, flags: 4, vaddr: 8, iova: 16, size: 24 }],
    [DmaUnmap, 24, { argsz: 0, flags: 4, iova: 8, size: 16 }],
    [Bitmap, 24, { pgsize: 0, size: 8, data: 16 }],
    [DirtyPages, 8, { argsz: 0, flags: 4 }],
    [DirtyBitmapGet, 40, { iova: 0, size: 8, bitmap: 16 }],
  ])("$name has %i bytes", (shape, bytes, at) => {
    expect(shape.bytes).toBe(bytes);
    expect(shape.at).toEqual(at);
  });
});
