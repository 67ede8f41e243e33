import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { createChunk, createLocation, PagePool } from "./page-pool.ts";

function createPool(frameCount = 600): PagePool {
  return new PagePool([
    { node: 0, basePfn: 0x1000, frameCount },
    { node: 1, basePfn: 0x10_0000_0000, frameCount },
    { node: 5, basePfn: 0x4000, frameCount: 3 },
  ]);
}

describe("PagePool", () => {
  it("gives frames of the preferred node, lowest first, and counts them there", () => {
    const pool = createPool(512);
    expect(pool.allocate(1)).toBe(0x10_0000_0000);
    expect(pool.allocate(1)).toBe(0x10_0000_0001);
    expect(pool.allocate(0)).toBe(0x1000);
    expect([pool.usedFramesOf(0), pool.usedFramesOf(1), pool.usedFrames]).toEqual([1, 2, 3]);
    expect(pool.nodes).toEqual([0, 1, 5]);
    expect(pool.usedFramesOf(7)).toBe(0);
  });

  it("falls back to other nodes when the preferred one is full: a node is no binding", () => {
    const pool = createPool();
    const nodes = Array.from({ length: 5 }, () => pool.nodeOf(pool.allocate(5)));
    expect(nodes).toEqual([5, 5, 5, 0, 0]);
    expect(pool.peakFramesOf(5)).toBe(3);
    expect(pool.nodeOf(pool.allocate(-1))).toBe(0);
  });

  it("serves who has no preference from the node of the CPU that asks", () => {
    const pool = createPool();
    pool.cpuNode = 1;
    expect([pool.nodeOf(pool.allocate(-1)), pool.nodeOf(pool.allocate(7))]).toEqual([1, 0]);
  });

  it("falls back to the nearest node where distances are known", () => {
    const nodes = [0, 1, 2].map((node) => ({ node, basePfn: node * 4096, frameCount: 1 }));
    const pool = new PagePool(nodes, [
      [10, 30, 20],
      [30, 10, 20],
      [20, 20, 10],
    ]);
    expect([1, 1, 1, 1].map((node) => pool.nodeOf(pool.allocate(node)))).toEqual([1, 2, 0, -1]);
    expect(pool.allocate(0)).toBe(-1);
  });

  it("zeroes a frame when it is taken, not when it is given back", () => {
    const pool = createPool();
    const at = createLocation();
    const pfn = pool.allocate(0);
    pool.locate(pfn, at);
    at.words.fill(0xffff_ffff, at.index, at.index + 1024);
    pool.free(pfn);
    expect(at.words[at.index]).toBe(0xffff_ffff);
    expect(pool.allocate(0)).toBe(pfn);
    expect(at.words.subarray(at.index, at.index + 1024).some((word) => word !== 0)).toBe(false);
  });

  it("aligns a block to its size and keeps it in one chunk", () => {
    const pool = createPool(8192);
    pool.allocate(0);
    for (const order of [4, 8, 2, 8, 1, 0]) {
      const pfn = pool.allocate(0, order);
      expect(pfn % 2 ** order).toBe(0);
      expect(pool.orderAt(pfn)).toBe(order);
      const first = createLocation();
      const last = createLocation();
      pool.locate(pfn, first);
      pool.locate(pfn + 2 ** order - 1, last);
      expect(last.words).toBe(first.words);
      expect(last.index - first.index).toBe((2 ** order - 1) * 1024);
    }
    expect(() => pool.allocate(0, 9)).toThrow("1 … 256 frames");
  });

  it("refuses what is given back twice, from the middle, or from elsewhere", () => {
    const pool = createPool();
    const pfn = pool.allocate(0, 2);
    expect(() => pool.free(pfn + 1)).toThrow("freed once");
    expect(pool.free(pfn)).toBe(4);
    expect(() => pool.free(pfn)).toThrow("freed once");
    expect(() => pool.free(0x1000 + 599)).toThrow("freed once");
    expect(() => pool.free(3)).toThrow("belongs to a node");
    expect(pool.orderAt(3)).toBe(-1);
  });

  it("has memory behind the chunks that were made, and nowhere else", () => {
    const pool = createPool(10_000);
    const at = createLocation();
    const chunk = createChunk();
    expect(pool.locate(0x1000, at)).toBe(false);
    pool.allocate(0);
    expect(pool.chunkAt(0x1000 + 4095, chunk)).toBe(true);
    expect(chunk).toMatchObject({ firstPfn: 0x1000, frames: 4096, node: 0 });
    for (const pfn of [0x1000 + 4096, 0xfff, 0x1000 + 10_000, 2 ** 40, 2 ** 52]) {
      expect(pool.chunkAt(pfn, chunk)).toBe(false);
      expect(pool.locate(pfn, at)).toBe(false);
    }
    expect(pool.nodeOf(0xfff)).toBe(-1);
  });

  it("keeps the words of a frame in place while it grows", () => {
    const pool = new PagePool([{ node: 0, basePfn: 0x1000, frameCount: 20_000 }]);
    const first = createLocation();
    pool.locate(pool.allocate(0), first);
    first.words[first.index] = 77;
    const pfns = Array.from({ length: 77 }, () => pool.allocate(0, 8));
    expect(pfns.every((pfn) => pfn >= 0)).toBe(true);
    const chunk = createChunk();
    const starts = new Set<number>();
    for (const pfn of pfns) {
      expect(pool.chunkAt(pfn, chunk)).toBe(true);
      expect(pfn - chunk.firstPfn).toBeLessThan(chunk.frames);
      starts.add(chunk.firstPfn - 0x1000);
    }
    expect([...starts].sort((a, b) => a - b)).toEqual([0, 4096, 8192, 16_384]);
    const again = createLocation();
    pool.locate(0x1000, again);
    expect(again.words[again.index]).toBe(77);
  });

  it("fails the allocations it is told to fail", () => {
    const pool = createPool();
    pool.failAfter(1, 2);
    expect([0, 0, 0, 0].map((node) => pool.allocate(node) < 0)).toEqual([false, true, true, false]);
    expect(pool.injectedFailures).toBe(2);
    pool.failAfter(0);
    expect([0, 0].map((node) => pool.allocate(node))).toEqual([-1, -1]);
    pool.failAfter(Number.POSITIVE_INFINITY);
    expect(pool.allocate(0)).toBeGreaterThan(0);
    expect(pool.injectedFailures).toBe(0);
  });

  it("refuses nodes that overlap, share a number, are empty or begin off a MiB", () => {
    const node = { node: 0, basePfn: 0, frameCount: 512 };
    expect(() => new PagePool([])).toThrow("1 … 1024 nodes");
    expect(() => new PagePool([node, { ...node, node: 1, basePfn: 256 }])).toThrow("overlap");
    expect(() => new PagePool([node, { ...node, basePfn: 1024 }])).toThrow("differ");
    expect(() => new PagePool([{ ...node, basePfn: 100 }])).toThrow("1 MiB");
    expect(() => new PagePool([{ ...node, frameCount: 0 }])).toThrow("frames");
  });

  it("against a plain set: no frame twice, none lost, all there again at the end", () => {
    const step = fc.record({ order: fc.nat(8), node: fc.constantFrom(0, 1, 5), pick: fc.nat() });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.nat(900), (steps, extra) => {
        const pool = createPool(300 + extra);
        const taken = new Set<number>();
        const blocks: [number, number][] = [];
        for (const { order, node, pick } of steps) {
          if (pick % 3 === 0 && blocks.length > 0) {
            const [[pfn, frames]] = blocks.splice(pick % blocks.length, 1) as [[number, number]];
            expect(pool.free(pfn)).toBe(frames);
            for (let frame = 0; frame < frames; frame += 1) taken.delete(pfn + frame);
            continue;
          }
          const pfn = pool.allocate(node, order);
          if (pfn < 0) continue;
          for (let frame = 0; frame < 2 ** order; frame += 1) {
            expect(taken.has(pfn + frame)).toBe(false);
            taken.add(pfn + frame);
          }
          blocks.push([pfn, 2 ** order]);
        }
        expect(pool.usedFrames).toBe(taken.size);
        for (const [pfn] of blocks) pool.free(pfn);
        expect(pool.usedFrames).toBe(0);
        // Buddies came together again: as many largest blocks as a fresh pool gives.
        const largest = 2 * Math.floor((300 + extra) / 256);
        const big: number[] = [];
        for (let pfn = pool.allocate(0, 8); pfn >= 0; pfn = pool.allocate(0, 8)) big.push(pfn);
        expect(big).toHaveLength(largest);
        for (const pfn of big) pool.free(pfn);
        const all = 2 * (300 + extra) + 3;
        let count = 0;
        while (pool.allocate(0) >= 0) count += 1;
        expect(count).toBe(all);
        expect(pool.peakFrames).toBe(all);
      }),
      { seed: 3, numRuns: 40 },
    );
  });
});
