import { describe, it } from "vitest";
import { lifeOfRanges } from "./range-tree.suite.ts";

describe("range tree", () => {
  it("lives of 40 000 and of many few ranges agree with a sorted list", () => {
    for (let seed = 100; seed < 130; seed += 1) lifeOfRanges(seed, 1 + (seed % 40), 200);
    lifeOfRanges(7, 40_000, 8);
  });
});
