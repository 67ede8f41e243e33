import { describe, expect, it } from "vitest";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { allocCoherent, type CoherentMemory, freeCoherent, takeBlocks } from "./coherent.ts";
import { DmaAttr } from "./direction.ts";
import { DmaDevice, type DmaDeviceOptions } from "./dma-device.ts";
import { DmaDomain } from "./dma-domain.ts";
import { FakeDriver } from "./fake-driver.suite.ts";

/** Memory that writes down what it is asked for; blocks above an order cannot be had. */
class FakeMemory implements CoherentMemory {
  readonly orderMax: number;
  readonly asked: number[] = [];
  readonly used = new Map<number, number>();
  available: number;
  blocksLeft = Number.POSITIVE_INFINITY;
  #next = 0x1_0000;

  constructor(orderMax: number, available = orderMax) {
    this.orderMax = orderMax;
    this.available = available;
  }

  allocate(order: number): number {
    this.asked.push(order);
    if (order > this.available || this.blocksLeft === 0) return -1;
    this.blocksLeft -= 1;
    const pfn = Math.ceil(this.#next / 2 ** order) * 2 ** order;
    // A page apart, so that blocks are not adjacent.
    this.#next = pfn + 2 ** order + 1;
    this.used.set(pfn, order);
    return pfn;
  }

  free(pfn: number): void {
    expect(this.used.delete(pfn)).toBe(true);
  }
}

function world(options: DmaDeviceOptions = {}): {
  driver: FakeDriver;
  dma: DmaDomain;
  device: DmaDevice;
} {
  const driver = new FakeDriver();
  const domain = new IommuDomain(DomainType.DMA, driver);
  const dma = new DmaDomain(domain, { cpus: 1, timer: { arm: () => {} } });
  dma.init({});
  return { driver, dma, device: new DmaDevice(dma, options) };
}

describe("blocks", () => {
  it("700 frames of {4K, 2M, 1G} are one block of 2 MiB and 188 pages", () => {
    const memory = new FakeMemory(10);
    const blocks = takeBlocks(memory, 700, [0, 9, 18])!;
    expect(blocks[0]!.pages).toBe(512);
    expect(blocks).toHaveLength(1 + 188);
  });

  it("a size that could not be had is not asked for again", () => {
    const memory = new FakeMemory(10, 3);
    const blocks = takeBlocks(memory, 1024, [0, 9])!;
    expect(memory.asked.filter((order) => order === 9)).toHaveLength(1);
    expect(blocks).toHaveLength(1024);
  });

  it("memory that ends half-way gives nothing and keeps nothing", () => {
    const memory = new FakeMemory(10);
    memory.blocksLeft = 5;
    expect(takeBlocks(memory, 8, [0])).toBeNull();
    expect(memory.used.size).toBe(0);
  });
});

describe("coherent memory", () => {
  it("is mapped under one IOVA for reading and writing, and unmapped in one piece", () => {
    const { driver, dma, device } = world();
    const memory = new FakeMemory(10);
    const buffer = allocCoherent(device, memory, 10_000, 0, 0)!;
    expect(buffer.pfn).toBe(0xffffc);
    expect(driver.takeLog()).toEqual([
      "map ffffc+1 -> 10000 7",
      "map ffffd+1 -> 10002 7",
      "map ffffe+1 -> 10004 7",
      "sync-map ffffc+3",
    ]);
    freeCoherent(device, memory, buffer, 0, 0);
    expect(driver.log).toEqual(["unmap ffffc+3", "sync ffffc..ffffe"]);
    expect(memory.used.size).toBe(0);
    expect(dma.iova.counts.livePages).toBe(0);
  });

  it("its own mask holds for it", () => {
    const { device } = world({ coherentMaskPfn: 0xfff });
    expect(device.mapPage(1, 0, 4096, 0, 0, 0)).toBe(0xfffff);
    expect(allocCoherent(device, new FakeMemory(10), 4096, 0, 0)?.pfn).toBe(0xfff);
  });

  it("a caller that may not wait, or asks for it, gets one contiguous piece", () => {
    const memory = new FakeMemory(10);
    const { driver, device } = world();
    const atomic = allocCoherent(device, memory, 3 * 4096, 0, 0, { mayBlock: false })!;
    const attrs = DmaAttr.FORCE_CONTIGUOUS;
    const asked = allocCoherent(device, memory, 3 * 4096, 0, 0, { attrs })!;
    expect([atomic.blocks.length, asked.blocks.length]).toEqual([1, 1]);
    expect(memory.asked).toEqual([2, 2]);
    expect(driver.log[0]).toBe("map ffffc+3 -> 10000 7");
    freeCoherent(device, memory, atomic, 0, 0);
    freeCoherent(device, memory, asked, 0, 0);
    expect(driver.frames.size).toBe(0);
  });

  it("with single pages asked for, only the smallest size is used", () => {
    const memory = new FakeMemory(10);
    const attrs = DmaAttr.ALLOC_SINGLE_PAGES;
    allocCoherent(world().device, memory, 2 ** 21, 0, 0, { attrs });
    expect(new Set(memory.asked)).toEqual(new Set([0]));
  });

  it("without an IOMMU the address is the physical one; beyond the mask there is none", () => {
    const memory = new FakeMemory(10);
    const near = allocCoherent(new DmaDevice(null), memory, 8192, 0, 0)!;
    expect(near.pfn).toBe(0x1_0000);
    const device = new DmaDevice(null, { coherentMaskPfn: 0xffff });
    expect(allocCoherent(device, memory, 8192, 0, 0)).toBeNull();
    freeCoherent(new DmaDevice(null), memory, near, 0, 0);
    expect(memory.used.size).toBe(0);
  });

  it("larger than the largest contiguous block gives nothing", () => {
    const memory = new FakeMemory(3);
    const options = { mayBlock: false };
    expect(allocCoherent(world().device, memory, 9 * 4096, 0, 0, options)).toBeNull();
  });
});
