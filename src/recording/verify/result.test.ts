import { describe, expect, it } from "vitest";
import { DIVERGENCES_LISTED_MAX, RowTally } from "./result.ts";

describe("RowTally", () => {
  it("counts what matches, what is waived and what diverges", () => {
    const tally = new RowTally();
    tally.match();
    tally.matchMany(4);
    tally.diverge(9, null, () => ["a", "b"]);
    tally.diverge(7, ["quirk"], () => ["c", "d", "e"]);
    tally.diverge(8, ["quirk", "other"], () => ["c", "d"]);
    tally.divergeMany(2, ["other"]);
    tally.divergeMany(3, null);
    expect(tally).toMatchObject({ compared: 13, matched: 5, waived: 4, unwaived: 4 });
    expect(tally.waivers).toEqual([
      { name: "other", rows: 3 },
      { name: "quirk", rows: 2 },
    ]);
    expect(tally.divergences).toEqual([
      { line: 7, expected: "c", got: "d", waivedBy: "quirk", what: "e" },
      { line: 8, expected: "c", got: "d", waivedBy: "quirk+other" },
      { line: 9, expected: "a", got: "b", waivedBy: null },
    ]);
  });

  it("lists unwaived rows first when there are more than fit", () => {
    const tally = new RowTally();
    for (let line = 1; line <= DIVERGENCES_LISTED_MAX; line += 1) {
      tally.diverge(line, ["quirk"], () => ["a", "b"]);
    }
    let texts = 0;
    tally.diverge(1, null, () => ["x", "y"]);
    tally.diverge(2, ["quirk"], () => {
      texts += 1;
      return ["a", "b"];
    });
    const { divergences } = tally;
    expect(divergences).toHaveLength(DIVERGENCES_LISTED_MAX);
    expect(divergences.filter(({ waivedBy }) => waivedBy === null)).toHaveLength(1);
    expect(texts).toBe(0);
    expect(tally.compared).toBe(DIVERGENCES_LISTED_MAX + 2);
  });
});
