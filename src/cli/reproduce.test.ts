import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { renderReproduced } from "../report/reproduce-text.ts";
import { reproductions, reproductionsNamed } from "../sim/reproduce/catalog.ts";
import { compareRow, type PublishedRow } from "../sim/reproduce/table.ts";

const row: PublishedRow = {
  name: "lazy mq",
  unit: "% of host",
  published: 91.5,
  role: "predicted",
  errorKind: "points",
  target: 1.5,
};

describe("a row of a published table", () => {
  it("meets its target within so many points or percent, and not beyond", () => {
    expect(compareRow(row, 93)).toMatchObject({ error: 1.5, met: true });
    expect(compareRow(row, 93.1).met).toBe(false);
    expect(compareRow({ ...row, errorKind: "relative", target: 0.03 }, 94).met).toBe(true);
    expect(compareRow({ ...row, errorKind: "relative", target: 0.03 }, 88.7).met).toBe(false);
  });

  it("is missed by a run that did not settle, also where it was fitted", () => {
    expect(compareRow({ ...row, role: "fitted", target: null }, null)).toMatchObject({
      ours: null,
      error: null,
      met: false,
    });
  });

  it("says in text what it is", () => {
    const table = {
      id: "t",
      title: "A table",
      source: "a list",
      rows: [compareRow(row, 94)],
      summary: [],
    };
    expect(renderReproduced(table, 80, (_, text) => text)).toMatchInlineSnapshot(`
      [
        "A table (% of host)",
        "row      published       ours      error     target  role       met",
        "lazy mq      91.50      94.00    +2.5 pt  <= 1.5 pt  predicted   NO",
        "published in: a list",
      ]
    `);
  });
});

describe("tables by name", () => {
  it("are all tables when no name is given, and each once", () => {
    const names = [...reproductions.keys()];
    expect(reproductionsNamed([])).toEqual(reproductionsNamed([...names, ...names]));
  });

  it("of a name that there is none of are refused", () => {
    expect(() => reproductionsNamed(["7"])).toThrow(StackError);
  });
});
