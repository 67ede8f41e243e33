import { describe, expect, it } from "vitest";
import { Random } from "../../random.ts";
import { contains, type Interval, IntervalTree } from "./quirks-interval-tree.ts";

const interval = (start: number, last: number): Interval => ({
  startPfn: Math.floor(start / 4096),
  startOffset: start % 4096,
  lastPfn: Math.floor(last / 4096),
  lastOffset: last % 4096,
});

describe("interval tree", () => {
  it("finds the interval nearest the root of those that overlap", () => {
    const tree = new IntervalTree();
    // Three ascending insertions make the second the root.
    for (const start of [0, 10, 20]) tree.insert(interval(start, start + 9));
    expect(tree.find(interval(0, 29))).toEqual(interval(10, 19));
    expect(tree.find(interval(20, 20))).toEqual(interval(20, 29));
    expect(tree.find(interval(30, 39))).toBe(null);
  });

  it("puts the successor in the place of a removed root", () => {
    const tree = new IntervalTree();
    for (const start of [20, 10, 30, 0, 40]) tree.insert(interval(start, start + 9));
    expect(tree.remove(interval(20, 29))).toBe(true);
    expect(tree.find(interval(0, 49))).toEqual(interval(30, 39));
    expect(tree.remove(interval(20, 29))).toBe(false);
    expect(tree.count).toBe(4);
  });

  it("holds what a sorted list holds, whatever comes and goes", () => {
    const random = new Random(2);
    const tree = new IntervalTree();
    const present = new Set<number>();
    for (let step = 0; step < 8_000; step += 1) {
      const start = random.below(600) * 1000;
      const one = interval(start, start + 999);
      if (random.chance(1, 2)) {
        if (present.has(start)) expect(tree.find(one)).toEqual(one);
        else tree.insert(one);
        present.add(start);
      } else {
        expect(tree.remove(one)).toBe(present.delete(start));
      }
      expect(tree.count).toBe(present.size);
    }
    // Emptied from the root, each at most once.
    let found = tree.find(interval(0, 600_000));
    while (found !== null) {
      expect(present.delete(found.startPfn * 4096 + found.startOffset)).toBe(true);
      tree.remove(found);
      found = tree.find(interval(0, 600_000));
    }
    expect(present.size).toBe(0);
  });

  it("finds an inverted interval by none that covers it from outside, as comparison has it", () => {
    const tree = new IntervalTree();
    tree.insert(interval(30, 19));
    expect(tree.find(interval(10, 40))).toEqual(interval(30, 19));
    expect(tree.find(interval(10, 25))).toBe(null);
    expect(tree.remove(interval(30, 19))).toBe(false);
  });

  it("tells whether one interval lies in another, ends included", () => {
    expect(contains(interval(0, 9000), interval(0, 9000))).toBe(true);
    expect(contains(interval(0, 9000), interval(1, 8999))).toBe(true);
    expect(contains(interval(1, 9000), interval(0, 9000))).toBe(false);
    expect(contains(interval(0, 8999), interval(0, 9000))).toBe(false);
  });
});
