import { describe, it } from "vitest";
import { crowdedRun } from "./iova-tree.suite.ts";

describe("IOVA tree", () => {
  it("2 million random operations give what a list walked range by range gives", () => {
    for (let seed = 1000; seed < 1040; seed += 1) crowdedRun(seed, 50_000, seed % 8 === 0);
  });
});
