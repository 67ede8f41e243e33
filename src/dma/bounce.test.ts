import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import {
  type BouncePool,
  type BounceRules,
  kmallocBytes,
  mayBounce,
  needsBounce,
} from "./bounce.ts";
import { DmaAttr, DmaDirection } from "./direction.ts";
import { DMA_ERROR, DmaDevice } from "./dma-device.ts";
import { DmaDomain } from "./dma-domain.ts";
import { FakeDriver } from "./fake-driver.suite.ts";
import { ScatterList } from "./scatterlist.ts";

const { BIDIRECTIONAL, FROM_DEVICE, TO_DEVICE } = DmaDirection;
const trusted: BounceRules = { untrusted: false, coherent: true, swiotlb: true, cacheLineBytes: 0 };
const untrusted = { ...trusted, untrusted: true };
const noncoherent = { ...trusted, coherent: false, cacheLineBytes: 64 };

describe("which mappings are bounced (§2.8)", () => {
  it.each([
    ["trusted, unaligned", trusted, 1, 100, FROM_DEVICE, 0, false],
    ["untrusted, page-aligned", untrusted, 0, 8192, FROM_DEVICE, 0, false],
    ["untrusted, address unaligned", untrusted, 512, 4096, TO_DEVICE, 0, true],
    ["untrusted, size unaligned", untrusted, 0, 512, TO_DEVICE, 0, true],
    ["untrusted, registers", untrusted, 0, 512, TO_DEVICE, DmaAttr.MMIO, false],
    ["untrusted without swiotlb", { ...untrusted, swiotlb: false }, 0, 512, TO_DEVICE, 0, false],
    ["non-coherent, 96 bytes", noncoherent, 0, 96, FROM_DEVICE, 0, true],
    ["non-coherent, 96 bytes both ways", noncoherent, 0, 96, BIDIRECTIONAL, 0, true],
    ["non-coherent, 96 bytes to the device", noncoherent, 0, 96, TO_DEVICE, 0, false],
    ["non-coherent, 128 bytes", noncoherent, 0, 128, FROM_DEVICE, 0, false],
    ["non-coherent, 100 bytes, kmalloc gives 128", noncoherent, 0, 100, FROM_DEVICE, 0, false],
    ["coherent, 96 bytes", { ...noncoherent, coherent: true }, 0, 96, FROM_DEVICE, 0, false],
    ["aligned by kmalloc", { ...noncoherent, cacheLineBytes: 0 }, 0, 96, FROM_DEVICE, 0, false],
  ] as const)("%s", (_, rules, offset, bytes, direction, attrs, expected) => {
    expect(needsBounce(rules, offset, bytes, 4096, direction, attrs)).toBe(expected);
  });

  it("kmalloc rounds to its sizes, then to powers of two", () => {
    expect([1, 65, 130, 200, 5000, 8193].map(kmallocBytes)).toEqual([8, 96, 192, 256, 8192, 16384]);
  });

  it("one segment decides for a whole list, aligned or not", () => {
    expect(mayBounce(untrusted, 4096, TO_DEVICE)).toBe(true);
    expect(mayBounce(noncoherent, 96, FROM_DEVICE)).toBe(true);
    expect(mayBounce(noncoherent, 4096, FROM_DEVICE)).toBe(false);
  });
});

describe("bounce buffers", () => {
  function world(pool: BouncePool | null): { driver: FakeDriver; device: DmaDevice } {
    const driver = new FakeDriver();
    const domain = new IommuDomain(DomainType.DMA, driver);
    const dma = new DmaDomain(domain, { cpus: 1, timer: { arm: () => {} } });
    dma.init({});
    const bounce = { untrusted: true };
    return {
      driver,
      device: new DmaDevice(dma, pool === null ? { bounce } : { bounce, bouncePool: pool }),
    };
  }

  /** Two buffers, at frames 0x8000 and 0x8001. */
  function twoBuffers(): BouncePool & { free: Set<number> } {
    const free = new Set([0x8000, 0x8001]);
    return {
      free,
      take: () => {
        const [pfn = -1] = free;
        free.delete(pfn);
        return pfn;
      },
      giveBack: (pfn) => {
        if (pfn >= 0x8000) free.add(pfn);
      },
    };
  }

  it("an unaligned buffer is mapped at the bounce buffer, which unmap gives back", () => {
    const pool = twoBuffers();
    const { driver, device } = world(pool);
    const pfn = device.mapPage(0x100, 16, 64, TO_DEVICE, 0, 0);
    expect(driver.iovaToPhys(pfn)).toBe(0x8000);
    expect(pool.free.size).toBe(1);
    device.unmapPage(pfn, 16, 64, 0, 0);
    expect(pool.free.size).toBe(2);
    const whole = device.mapPage(0x100, 0, 4096, TO_DEVICE, 0, 0);
    expect(driver.iovaToPhys(whole)).toBe(0x100);
  });

  it("without buffers an unaligned mapping fails; a failed map gives the buffer back", () => {
    expect(world(null).device.mapPage(0x100, 16, 64, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    const pool = twoBuffers();
    const { driver, device } = world(pool);
    driver.successesLeft = 0;
    expect(device.mapPage(0x100, 16, 64, TO_DEVICE, 0, 0)).toBe(DMA_ERROR);
    expect(pool.free.size).toBe(2);
  });

  it("a list is mapped segment by segment; where buffers end, EIO and nothing stays", () => {
    const pool = twoBuffers();
    const { driver, device } = world(pool);
    const list = new ScatterList([
      { pfn: 0x100, offset: 0, bytes: 4096 },
      { pfn: 0x101, offset: 0, bytes: 64 },
      { pfn: 0x102, offset: 0, bytes: 64 },
    ]);
    expect(device.mapSg(list, TO_DEVICE, 0, 0)).toBe(Errno.OK);
    expect(list.mapped).toHaveLength(3);
    expect(driver.log.filter((line) => line.startsWith("sync-map"))).toHaveLength(3);
    const more = new ScatterList([
      { pfn: 0x200, offset: 0, bytes: 4096 },
      { pfn: 0x201, offset: 0, bytes: 64 },
    ]);
    expect(device.mapSg(more, TO_DEVICE, 0, 0)).toBe(Errno.EIO);
    expect(more.mapped).toEqual([]);
    expect(driver.frames.size).toBe(3);
    device.unmapSg(list, 0, 0);
    expect(driver.frames.size).toBe(0);
    expect(pool.free.size).toBe(2);
  });
});
