import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { Prot } from "../iommu/prot.ts";
import { DmaAttr, DmaDirection, protOf } from "./direction.ts";
import { DMA_ERROR, DmaDevice, type DmaDeviceOptions } from "./dma-device.ts";
import { DmaDomain } from "./dma-domain.ts";
import { FakeDriver, type FakeDriverOptions } from "./fake-driver.suite.ts";
import { ScatterList, type ScatterSegment } from "./scatterlist.ts";

const { BIDIRECTIONAL, FROM_DEVICE, NONE, TO_DEVICE } = DmaDirection;

interface World {
  readonly driver: FakeDriver;
  readonly dma: DmaDomain;
  readonly device: DmaDevice;
}

function world(options: DmaDeviceOptions = {}, driverOptions: FakeDriverOptions = {}): World {
  const driver = new FakeDriver(driverOptions);
  const domain = new IommuDomain(DomainType.DMA, driver);
  const dma = new DmaDomain(domain, { cpus: 2, timer: { arm: () => {} } });
  dma.init({});
  return { driver, dma, device: new DmaDevice(dma, options) };
}

function segment(pfn: number, bytes: number, offset = 0): ScatterSegment {
  return { pfn, offset, bytes };
}

describe("rights", () => {
  it.each([
    [BIDIRECTIONAL, true, 0, Prot.READ | Prot.WRITE | Prot.CACHE],
    [TO_DEVICE, true, 0, Prot.READ | Prot.CACHE],
    [FROM_DEVICE, false, 0, Prot.WRITE],
    [NONE, true, DmaAttr.PRIVILEGED, 0],
    [TO_DEVICE, true, DmaAttr.MMIO, Prot.READ | Prot.MMIO],
    [FROM_DEVICE, false, DmaAttr.PRIVILEGED, Prot.WRITE | Prot.PRIV],
  ] as const)(
    "direction %i, coherent %s, attributes %i give rights %i",
    (way, coherent, attrs, prot) => {
      expect(protOf(way, coherent, attrs)).toBe(prot);
    },
  );
});

describe("single buffers", () => {
  it("an unaligned buffer takes all pages it touches, and keeps its offset", () => {
    const { driver, device } = world();
    const pfn = device.mapPage(0x1234, 0x800, 0x1000, FROM_DEVICE, 0, 0);
    expect(pfn).toBe(0xffffe);
    expect(driver.takeLog()).toEqual(["map ffffe+2 -> 1234 6", "sync-map ffffe+2"]);
    device.unmapPage(pfn, 0x800, 0x1000, 0, 0);
    expect(driver.log).toEqual(["unmap ffffe+2", "sync ffffe..fffff"]);
  });

  it("a failed map gives the IOVA back, and the next one takes it", () => {
    const { driver, dma, device } = world();
    driver.successesLeft = 0;
    expect(device.mapPage(1, 0, 4096, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    expect(dma.iova.counts.livePages).toBe(0);
    driver.successesLeft = Number.POSITIVE_INFINITY;
    expect(device.mapPage(1, 0, 4096, TO_DEVICE, 0, 0)).toBe(0xfffff);
  });

  it("a failed sync after the map unmaps all and gives the IOVA back", () => {
    const { driver, dma, device } = world();
    driver.successesLeft = 1;
    expect(device.mapPage(1, 0, 8192, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    expect(driver.frames.size).toBe(0);
    expect(dma.iova.counts.livePages).toBe(0);
  });

  it("a space with no room gives an error and maps nothing", () => {
    const { driver, dma, device } = world({ maskPfn: 0xff });
    dma.iova.reserve(0, 0xff);
    expect(device.mapPage(1, 0, 4096, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    expect(driver.log).toEqual([]);
  });

  it("without an IOMMU the address is the physical one, up to the device's mask", () => {
    const device = new DmaDevice(null, { maskPfn: 0xfffff });
    expect(device.mapPage(0xfffff, 0x10, 0xff0, TO_DEVICE, 0, 0)).toBe(0xfffff);
    expect(device.mapPage(0xfffff, 0x10, 0xff1, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    device.unmapPage(0xfffff, 0x10, 0xff0, 0, 0);
  });

  it("a mapping without length is a programmer's error", () => {
    expect(() => world().device.mapPage(1, 0, 0, TO_DEVICE, 0, 0)).toThrow("length");
  });
});

describe("scatterlists", () => {
  it("3 x 4 KiB with segments of at most 8 KiB come out as 8 KiB and 4 KiB (row 72)", () => {
    const { device } = world({ segments: { maxBytes: 8192 } });
    const list = new ScatterList([segment(10, 4096), segment(20, 4096), segment(30, 4096)]);
    expect(device.mapSg(list, BIDIRECTIONAL, 0, 0)).toBe(Errno.OK);
    expect(list.mapped).toEqual([
      { pfn: 0xffffc, offset: 0, bytes: 8192, isBus: false },
      { pfn: 0xffffe, offset: 0, bytes: 4096, isBus: false },
    ]);
  });

  it("60 KiB and 8 KiB with a boundary of 64 KiB: the second starts at it (row 73)", () => {
    const { driver, dma, device } = world({ segments: { boundaryBytes: 65_536 } });
    const list = new ScatterList([segment(0x100, 61_440), segment(0x200, 8192)]);
    expect(device.mapSg(list, BIDIRECTIONAL, 0, 0)).toBe(Errno.OK);
    expect(list.mapped).toEqual([
      { pfn: 0xfffe0, offset: 0, bytes: 61_440, isBus: false },
      { pfn: 0xffff0, offset: 0, bytes: 8192, isBus: false },
    ]);
    // The 4 KiB of padding are mapped as well, to what follows the first segment.
    expect(driver.takeLog()).toEqual([
      "map fffe0+16 -> 100 7",
      "map ffff0+2 -> 200 7",
      "sync-map fffe0+18",
    ]);
    device.unmapSg(list, 0, 0);
    expect(driver.log).toEqual(["unmap fffe0+18", "sync fffe0..ffff1"]);
    expect(dma.iova.counts.livePages).toBe(0);
  });

  it("a segment that starts inside its page or does not fill it ends the output before", () => {
    const { device } = world();
    const list = new ScatterList([
      segment(10, 4096),
      segment(20, 2048, 512),
      segment(30, 4096),
      segment(40, 100),
    ]);
    device.mapSg(list, TO_DEVICE, 0, 0);
    expect(list.mapped.map(({ pfn, offset, bytes }) => [pfn, offset, bytes])).toEqual([
      [0xffffc, 0, 4096],
      [0xffffd, 512, 2048],
      [0xffffe, 0, 4196],
    ]);
  });

  it("an output that is too long already takes what follows, as unsigned arithmetic has it", () => {
    const { device } = world({ segments: { maxBytes: 4096 } });
    const list = new ScatterList([segment(10, 8192), segment(20, 4096)]);
    device.mapSg(list, TO_DEVICE, 0, 0);
    expect(list.mapped.map(({ bytes }) => bytes)).toEqual([12_288]);
  });

  it("physically adjacent segments are mapped as one", () => {
    const { driver, device } = world();
    const list = new ScatterList([segment(10, 4096), segment(11, 4096), segment(20, 4096)]);
    device.mapSg(list, TO_DEVICE, 0, 0);
    expect(driver.log).toEqual(["map ffffc+2 -> a 5", "map ffffe+1 -> 14 5", "sync-map ffffc+3"]);
  });

  it("a peer's bus address takes no IOVA and stands by itself", () => {
    const { driver, device } = world();
    const list = new ScatterList([
      segment(10, 4096),
      { pfn: 900, offset: 0, bytes: 4096, peer: { kind: "bus", pfn: 7000 } },
      segment(11, 4096),
      { pfn: 12, offset: 0, bytes: 4096, peer: { kind: "host-bridge" } },
    ]);
    expect(device.mapSg(list, BIDIRECTIONAL, 0, 0)).toBe(Errno.OK);
    expect(list.mapped).toEqual([
      { pfn: 0xffffc, offset: 0, bytes: 4096, isBus: false },
      { pfn: 7000, offset: 0, bytes: 4096, isBus: true },
      { pfn: 0xffffd, offset: 0, bytes: 8192, isBus: false },
    ]);
    expect(driver.takeLog()).toEqual([
      "map ffffc+1 -> a 7",
      "map ffffd+2 -> b 7",
      "sync-map ffffc+3",
    ]);
    device.unmapSg(list, 0, 0);
    expect(driver.frames.size).toBe(0);
  });

  it("a list of bus addresses only maps nothing", () => {
    const { driver, device } = world();
    const list = new ScatterList([
      { pfn: 900, offset: 16, bytes: 32, peer: { kind: "bus", pfn: 7000 } },
    ]);
    expect(device.mapSg(list, BIDIRECTIONAL, 0, 0)).toBe(Errno.OK);
    expect(list.mapped).toEqual([{ pfn: 7000, offset: 16, bytes: 32, isBus: true }]);
    device.unmapSg(list, 0, 0);
    expect(driver.log).toEqual([]);
  });

  it("a peer out of reach gives EREMOTEIO, no IOVA space ENOMEM, a refused map EINVAL", () => {
    const { driver, dma, device } = world({ maskPfn: 0xfffff });
    const unreachable = new ScatterList([
      segment(10, 4096),
      { pfn: 900, offset: 0, bytes: 4096, peer: { kind: "none" } },
    ]);
    expect(device.mapSg(unreachable, TO_DEVICE, 0, 0)).toBe(Errno.EREMOTEIO);
    driver.failure = Errno.EADDRINUSE;
    driver.successesLeft = 0;
    const list = new ScatterList([segment(10, 4096)]);
    expect(device.mapSg(list, TO_DEVICE, 0, 0)).toBe(Errno.EINVAL);
    driver.failure = Errno.ENOMEM;
    expect(device.mapSg(list, TO_DEVICE, 0, 0)).toBe(Errno.ENOMEM);
    expect(dma.iova.counts.livePages).toBe(0);
    dma.iova.flushCaches();
    dma.iova.reserve(0, 0xfffff);
    expect(device.mapSg(list, TO_DEVICE, 0, 0)).toBe(Errno.ENOMEM);
    expect(list.mapped).toEqual([]);
  });

  it("without an IOMMU each segment stands by itself; one out of reach gives EIO", () => {
    const device = new DmaDevice(null, { maskPfn: 100 });
    const list = new ScatterList([segment(10, 4096), segment(11, 4096)]);
    expect(device.mapSg(list, TO_DEVICE, 0, 0)).toBe(Errno.OK);
    expect(list.mapped.map(({ pfn }) => pfn)).toEqual([10, 11]);
    device.unmapSg(list, 0, 0);
    const far = new ScatterList([segment(10, 4096), segment(101, 4096)]);
    expect(device.mapSg(far, TO_DEVICE, 0, 0)).toBe(Errno.EIO);
    expect(far.mapped).toEqual([]);
  });

  it("any list: every byte is reached in order, no output crosses a boundary, all is unmapped", () => {
    const arbitrary = fc.array(
      fc.record({
        pfn: fc.integer({ min: 1, max: 2000 }).map((value) => value * 16),
        offset: fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 4095 })),
        bytes: fc.oneof(
          fc.integer({ min: 1, max: 8 }).map((pages) => pages * 4096),
          fc.integer({ min: 1, max: 20_000 }),
        ),
      }),
      { minLength: 1, maxLength: 12 },
    );
    const boundary = fc.constantFrom(16_384, 65_536, 2 ** 32, 2 ** 64);
    const maximum = fc.constantFrom(32_768, 65_536, 2 ** 32 - 1);
    fc.assert(
      fc.property(arbitrary, boundary, maximum, (segments, boundaryBytes, maxBytes) => {
        const { driver, dma, device } = world({ segments: { boundaryBytes, maxBytes } });
        const list = new ScatterList(segments);
        expect(device.mapSg(list, BIDIRECTIONAL, 0, 0)).toBe(Errno.OK);
        // What the device reads through its outputs is what the list named.
        const total = segments.reduce((sum, { bytes }) => sum + bytes, 0);
        for (let position = 0; position < total; position += 256) {
          const [iovaPfn, at] = byteAt(list.mapped, position);
          expect([driver.iovaToPhys(iovaPfn), at]).toEqual(byteAt(segments, position));
        }
        const spanMax = Math.max(...segments.map(({ offset, bytes }) => offset + bytes));
        for (const { pfn, offset, bytes } of list.mapped) {
          if (spanMax > boundaryBytes) break;
          const start = pfn * 4096 + offset;
          const last = start + bytes - 1;
          expect(Math.floor(start / boundaryBytes)).toBe(Math.floor(last / boundaryBytes));
          expect(bytes).toBeLessThanOrEqual(Math.max(maxBytes, 8 * 4096));
        }
        device.unmapSg(list, 0, 0);
        expect(driver.frames.size).toBe(0);
        expect([dma.mismatchedUnmaps, dma.iova.counts.livePages]).toEqual([0, 0]);
      }),
      { seed: 11, numRuns: 150 },
    );
  });
});

/** Frame and offset of the byte at a position of a list. */
function byteAt(list: readonly ScatterSegment[], position: number): [number, number] {
  let left = position;
  for (const { pfn, offset, bytes } of list) {
    if (left < bytes) return [pfn + Math.floor((offset + left) / 4096), (offset + left) % 4096];
    left -= bytes;
  }
  return [-1, -1];
}
