/** The IOVA tree beside its plain twin, for the test and, longer, for the fuzzer. */
import { expect } from "vitest";
import { Random } from "../random.ts";
import { IovaTree, NO_IOVA } from "./iova-tree.ts";
import { PlainIovaTree } from "./plain-iova.suite.ts";

/** Runs the same operation on both and compares everything that can be seen. */
export class IovaTreePair {
  readonly fast: IovaTree;
  readonly plain: PlainIovaTree;
  readonly live: number[] = [];

  constructor(startPfn: number, limit32Pfn: number, fromTop: boolean) {
    this.fast = new IovaTree({ startPfn, limit32Pfn, searchFromTop: fromTop });
    this.plain = new PlainIovaTree(startPfn, limit32Pfn, fromTop);
  }

  alloc(pages: number, limit: number, aligned: boolean): void {
    const expected = this.plain.alloc(pages, limit, aligned);
    const got = this.fast.alloc(pages, limit, aligned);
    if (got !== expected || this.fast.visited !== this.plain.visited) {
      expect({ got, visited: this.fast.visited }).toEqual({
        got: expected,
        visited: this.plain.visited,
      });
    }
    if (got !== NO_IOVA) this.live.push(got);
  }

  free(index: number): void {
    const at = index % this.live.length;
    const pfn = this.live[at]!;
    this.live[at] = this.live.at(-1)!;
    this.live.pop();
    const expected = this.plain.free(pfn);
    const got = this.fast.free(pfn);
    if (got !== expected) expect(got).toBe(expected);
  }

  reserve(first: number, last: number): void {
    this.plain.reserve(first, last);
    this.fast.reserve(first, last);
  }

  compare(): void {
    const { ranges } = this.plain;
    expect([...this.fast]).toEqual(ranges.slice(0, -1).map(({ first, last }) => ({ first, last })));
    expect(this.fast.size).toBe(ranges.length - 1);
    const limit = this.fast.limit32Pfn;
    expect(this.fast.largestGapBelow(limit)).toBe(this.plain.largestGapBelow(limit));
    expect(this.fast.failed32Pages).toBe(this.plain.failed32);
  }
}

/** A run in a space small enough to be full often: about 400 ranges in 4096 pages. */
export function crowdedRun(seed: number, operations: number, fromTop: boolean): void {
  const random = new Random(seed);
  const space = 4096;
  const pair = new IovaTreePair(1 + random.below(3), 1024 + 64 * random.below(32), fromTop);
  const sizeMax = 1 + random.below(100);
  const bias = 1 + random.below(9);
  for (let count = 0; count < operations; count += 1) {
    if (random.chance(1, 4000)) {
      const first = random.below(space);
      pair.reserve(first, Math.min(space - 1, first + random.below(40)));
    } else if (pair.live.length === 0 || random.below(10) < bias) {
      const limit = random.chance(3, 4) ? space - 1 : 100 + random.below(space);
      const below4G = random.chance(1, 2) ? Math.min(limit, pair.fast.limit32Pfn - 1) : limit;
      pair.alloc(1 + random.below(sizeMax), below4G, !random.chance(1, 5));
    } else {
      pair.free(random.below(2 ** 20));
    }
    if (random.chance(1, 5000)) pair.compare();
    if (random.chance(1, 20_000)) while (pair.live.length > 0) pair.free(random.below(2 ** 20));
  }
  pair.compare();
}
