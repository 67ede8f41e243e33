import { describe, expect, it } from "vitest";
import { lifeOfRanges } from "./range-tree.suite.ts";
import { RangeTree } from "./range-tree.ts";

describe("range tree", () => {
  it("lives of up to 20, 300 and 4000 ranges agree with a sorted list throughout", () => {
    for (let seed = 1; seed <= 20; seed += 1) lifeOfRanges(seed, 20, 60);
    for (let seed = 1; seed <= 4; seed += 1) lifeOfRanges(seed, 300, 60);
    lifeOfRanges(5, 4000, 20);
  });

  it("ranges in descending and in ascending order are all found again", () => {
    for (const order of [1, -1]) {
      const tree = new RangeTree();
      for (let count = 0; count < 20_000; count += 1) {
        const first = 1_000_000 + order * 10 * count;
        tree.seek(first);
        tree.insert(first, first + 3);
      }
      expect(tree.size).toBe(20_000);
      expect(tree.findBelow(2 ** 40, 6, false)).toBeGreaterThan(1_000_000);
      const firsts = [...tree].map(({ first }) => first);
      expect(firsts).toEqual([...firsts].sort((a, b) => a - b));
    }
  });

  it("a range that is not in the gap below the cursor is refused", () => {
    const tree = new RangeTree();
    tree.insert(100, 200);
    tree.seek(150);
    expect(() => tree.insert(90, 100)).toThrow("gap below the cursor");
    expect(() => tree.extendDown(101)).toThrow("grows into the gap");
  });

  it("the sentinel cannot be removed", () => {
    const tree = new RangeTree();
    tree.seek(5);
    expect(() => tree.remove()).toThrow("sentinel");
  });
});
