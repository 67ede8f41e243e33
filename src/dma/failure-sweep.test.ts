import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { DomainType, IommuDomain } from "../iommu/domain.ts";
import { Random } from "../random.ts";
import { allocCoherent, type CoherentBuffer, freeCoherent } from "./coherent.ts";
import { DmaDirection } from "./direction.ts";
import { DMA_ERROR, DmaDevice } from "./dma-device.ts";
import { DmaDomain } from "./dma-domain.ts";
import { DmaIovaRange } from "./dma-iova-range.ts";
import { FakeDriver } from "./fake-driver.suite.ts";
import { ScatterList } from "./scatterlist.ts";

const { BIDIRECTIONAL } = DmaDirection;

type Point = "map" | "memory" | "blocks" | "space";

interface World {
  readonly driver: FakeDriver;
  readonly dma: DmaDomain;
  readonly device: DmaDevice;
  /** Frames of coherent memory in use. */
  readonly blocks: Set<number>;
  blocksLeft: number;
  memoryLeft: number;
}

function world(type: DomainType, point: Point, successes: number): World {
  const driver = new FakeDriver();
  const left = (of: Point): number => (of === point ? successes : Number.POSITIVE_INFINITY);
  driver.successesLeft = left("map");
  const state = { blocksLeft: left("blocks"), memoryLeft: left("memory") };
  const dma = new DmaDomain(new IommuDomain(type, driver), {
    cpus: 2,
    timer: { arm: () => {} },
    flushQueue: { entries: 8 },
    rules: { magazineSize: 3 },
    hasMemory: () => {
      state.memoryLeft -= 1;
      return state.memoryLeft >= 0;
    },
  });
  dma.init({});
  // Space for so many pages only, all below the limit of the device.
  const limit = point === "space" ? successes : 0xffff;
  const device = new DmaDevice(dma, { maskPfn: limit });
  return Object.assign(state, { driver, dma, device, blocks: new Set<number>() });
}

/** One of every operation, each undone at the end if it succeeded. @returns whether all succeeded */
function everything({ driver, dma, device, blocks, ...state }: World, type: DomainType): boolean {
  let next = 0x1_0000;
  const memory = {
    orderMax: 3,
    allocate: (order: number): number => {
      state.blocksLeft -= 1;
      if (state.blocksLeft < 0) return -1;
      const pfn = Math.ceil(next / 2 ** order) * 2 ** order;
      next = pfn + 2 ** order + 1;
      blocks.add(pfn);
      return pfn;
    },
    free: (pfn: number): void => {
      blocks.delete(pfn);
    },
  };
  let succeeded = dma.domain.type === type;
  const pages: number[] = [];
  const buffers: CoherentBuffer[] = [];
  for (let count = 0; count < 12; count += 1) {
    const pfn = device.mapPage(0x100 + count, 0, 4096, BIDIRECTIONAL, count % 2, 0);
    if (pfn === DMA_ERROR) succeeded = false;
    else pages.push(pfn);
  }
  const list = new ScatterList([
    { pfn: 0x200, offset: 0, bytes: 4096 },
    { pfn: 0x300, offset: 256, bytes: 9000 },
  ]);
  const listErrno = device.mapSg(list, BIDIRECTIONAL, 0, 0);
  if (listErrno !== Errno.OK) succeeded = false;
  for (const options of [{ mayBlock: true }, { mayBlock: false }]) {
    const buffer = allocCoherent(device, memory, 12_288, 1, 0, options);
    if (buffer === null) succeeded = false;
    else buffers.push(buffer);
  }
  const range = DmaIovaRange.tryAlloc(device, 0x400, 0, 8192, 0);
  let linked = 0;
  if (range !== null) {
    if (range.link(0, 0x400, 0, 4096, BIDIRECTIONAL) === Errno.OK) linked = 4096;
    if (linked > 0 && range.link(4096, 0x600, 0, 4096, BIDIRECTIONAL) === Errno.OK) linked = 8192;
    if (linked > 0 && range.sync(0, linked) !== Errno.OK) succeeded = false;
  }
  if (range === null || linked < 8192) succeeded = false;

  for (const [index, pfn] of pages.entries()) device.unmapPage(pfn, 0, 4096, index % 2, 1);
  if (listErrno === Errno.OK) device.unmapSg(list, 0, 1);
  for (const buffer of buffers) freeCoherent(device, memory, buffer, 1, 1);
  if (linked > 0 && linked < 8192) {
    range?.unlink(0, linked);
    linked = 0;
  }
  range?.destroy(linked, 0, 1);
  dma.onTimer(0, 20);
  expect(driver.frames.size).toBe(0);
  return succeeded;
}

describe("the n-th failure, for every n until none is left", () => {
  it.each([
    ["strict", DomainType.DMA, "map"],
    ["strict", DomainType.DMA, "memory"],
    ["strict", DomainType.DMA, "blocks"],
    ["strict", DomainType.DMA, "space"],
    ["lazy", DomainType.DMA_FQ, "map"],
    ["lazy", DomainType.DMA_FQ, "memory"],
    ["lazy", DomainType.DMA_FQ, "blocks"],
    ["lazy", DomainType.DMA_FQ, "space"],
  ] as const)("%s: no IOVA, mapping or memory is left behind (type %i, %s)", (_, type, point) => {
    let failed = 0;
    for (let successes = 0; ; successes += 1) {
      const state = world(type, point, successes);
      const succeeded = everything(state, type);
      expect(state.blocks.size).toBe(0);
      expect(state.dma.iova.counts.livePages).toBe(0);
      // With the caches emptied the space is as it was at first.
      state.dma.iova.flushCaches();
      expect([...state.dma.iova.tree]).toEqual([]);
      expect(state.dma.mismatchedUnmaps).toBe(0);
      if (succeeded && point !== "memory") break;
      // Memory for magazines only costs speed; what fails is the queue, then nothing.
      if (point === "memory" && successes > 20) break;
      failed += 1;
      expect(successes).toBeLessThan(200);
    }
    expect(failed).toBeGreaterThan(2);
  });

  it("random lives in a space of 64 pages: what does not fit fails, what is freed comes back", () => {
    for (const type of [DomainType.DMA, DomainType.DMA_FQ]) {
      const { dma, device, driver } = world(type, "space", 64);
      const random = new Random(9);
      const live: [number, number][] = [];
      let failures = 0;
      for (let now = 0; now < 5000; now += 1) {
        if (random.chance(1, 20)) dma.onTimer(random.below(2), now);
        if (random.chance(1, 2)) {
          const bytes = 4096 * (1 + random.below(6));
          const pfn = device.mapPage(0x1000, 0, bytes, BIDIRECTIONAL, random.below(2), now);
          if (pfn === DMA_ERROR) failures += 1;
          else live.push([pfn, bytes]);
        } else if (live.length > 0) {
          const [pfn, bytes] = live.splice(random.below(live.length), 1)[0]!;
          device.unmapPage(pfn, 0, bytes, random.below(2), now);
        }
      }
      expect(failures).toBeGreaterThan(50);
      for (const [pfn, bytes] of live) device.unmapPage(pfn, 0, bytes, 0, 6000);
      dma.onTimer(0, 6000);
      dma.iova.flushCaches();
      expect([...dma.iova.tree]).toEqual([]);
      expect(driver.frames.size).toBe(0);
    }
  });
});
