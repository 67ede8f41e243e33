/** Walks of memory that nobody sane wrote: they end, and both paths of the walker agree. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import type { FrameChunk, FrameMemory } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import { Random } from "../random.ts";
import { standardFormats } from "./formats/catalog.ts";
import { addressHighOf, addressLowOf, type PageTableFormat } from "./formats/format.ts";
import { forEachLeaf } from "./table-dump.ts";
import { TableWalker, WalkResult } from "./table-walk.ts";

const FIRST = 0x1000;
const FRAMES = 32;

/** 32 frames in pieces of 16, each piece on its node, filled with more or less sensible entries. */
class WildMemory implements FrameMemory {
  readonly #words: readonly Uint32Array[];

  constructor(format: PageTableFormat, seed: number) {
    const random = new Random(seed);
    this.#words = Array.from({ length: FRAMES / 16 }, () => new Uint32Array(16 * 1024));
    const tableFrames = 2 ** format.tableOrder;
    for (const words of this.#words) {
      for (let word = 0; word < words.length; word += 2) {
        if (random.chance(1, 3)) continue;
        const level = 1 + random.below(Math.max(1, format.levels - 1));
        const target = FIRST + tableFrames * random.below(FRAMES / tableFrames);
        const wild = random.chance(1, 4);
        const attributes = format.tableLow[Math.min(level, format.levels - 1)]!;
        words[word] = addressLowOf(format, target) | (wild ? random.bits32() : attributes);
        words[word + 1] = addressHighOf(format, target) | format.tableHigh;
        if (random.chance(1, 8)) words[word + 1] = random.bits32();
        if (random.chance(1, 8)) words[word]! |= random.below(4096);
      }
    }
  }

  chunkAt(pfn: number, out: FrameChunk): boolean {
    const piece = Math.floor((pfn - FIRST) / 16);
    const words = this.#words[piece];
    if (words === undefined) return false;
    Object.assign(out, { words, firstPfn: FIRST + piece * 16, frames: 16, node: piece });
    return true;
  }
}

describe("walks of wild memory", () => {
  it.each(standardFormats().map((format) => [format.name, format] as const))(
    "in the format %s end, by both paths with the same result and the same reads",
    (_name, format) => {
      let found = 0;
      const property = fc.property(fc.nat(), fc.nat(), (seed, position) => {
        const memory = new WildMemory(format, seed);
        const random = new Random(position);
        const meters = [new CountingMeter(), new CountingMeter()] as const;
        const fastWalker = new TableWalker(format, memory, meters[0]);
        const plainWalker = new TableWalker(format, memory, meters[1]);
        const differences: unknown[] = [];
        for (let round = 0; round < 60; round += 1) {
          const level = random.below(format.levels);
          const root = FIRST + random.below(FRAMES);
          const iova = random.below(2 ** 26) * 2 ** 26 + random.below(2 ** 26);
          const fast = new WalkResult();
          const plain = new WalkResult();
          const isFound = fastWalker.walkFrom(level, root, iova, fast);
          const isFoundPlain = plainWalker.walkPlain(level, root, iova, plain);
          if (isFound) found += 1;
          if (isFound !== isFoundPlain || JSON.stringify(fast) !== JSON.stringify(plain)) {
            differences.push({ level, root, iova, fast, plain });
          }
          for (const node of [0, 1]) {
            const [reads, readsPlain] = meters.map((meter) => meter.amountAt("entryRead", node));
            if (reads !== readsPlain) differences.push({ node, reads, readsPlain });
          }
        }
        expect(differences).toEqual([]);
      });
      fc.assert(property, { seed: 5, numRuns: 10 });
      expect(found).toBeGreaterThan(10);
    },
  );

  it("and a visit of all leaves ends, with an error where the tables are no tree", () => {
    let errors = 0;
    for (const [index, format] of standardFormats().entries()) {
      const memory = new WildMemory(format, index);
      const root = { format, memory, rootPfn: FIRST, topLevel: format.levels - 1 };
      let leaves = 0;
      const visit = () => {
        leaves += 1;
      };
      try {
        forEachLeaf(root, visit, 100);
      } catch (error) {
        expect(error).toBeInstanceOf(StackError);
        errors += 1;
      }
      expect(leaves).toBeLessThanOrEqual(100 * 2 ** 15);
    }
    expect(errors).toBeGreaterThan(0);
  });
});
