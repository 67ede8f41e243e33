import { describe, expect, it } from "vitest";
import { compareTable } from "../sim/reproduce/summary.ts";
import type { ReproducedTable } from "../sim/reproduce/table.ts";
import { reproduceHtml } from "./reproduce-html.ts";

const rows = compareTable(
  { unit: "s", resolution: 0.1 },
  [
    { name: "a <b>", published: 1, role: "fitted" },
    { name: "c", published: 400_000, role: "predicted" },
    { name: "d", published: 7, role: "predicted" },
  ],
  [1, 380_000, null],
);
const table: ReproducedTable = {
  id: "t",
  title: "A table & more",
  source: "a list",
  rows: rows.filter(({ isSummary }) => isSummary !== true),
  summary: rows.filter(({ isSummary }) => isSummary === true),
};

describe("tables as HTML", () => {
  const html = reproduceHtml([table], [{ name: "x", reason: "no <mechanism>" }]);

  it("are one file that asks for nothing from elsewhere", () => {
    expect(html).not.toMatch(/<(script|link|img)|src=|@import|https?:\/\/(?!www\.w3\.org)/);
    expect(html.startsWith("<!doctype html>")).toBe(true);
  });

  it("show every row with its figures, escaped, and what did not settle as such", () => {
    expect(html).toContain("a &lt;b&gt;");
    expect(html).toContain("no &lt;mechanism&gt;");
    expect(html).toContain("400000.0 → 380000.0, -5.0 %");
    expect(html).toContain("unsettled");
    expect(html.match(/<path[^>]*fill="none"/g)).toHaveLength(3);
  });

  it("place nothing outside the drawing, over five orders of magnitude", () => {
    const places = [...html.matchAll(/<path d="M([\d.]+) ([\d.]+)/g)].map(([, x]) => Number(x));
    expect(places.length).toBeGreaterThan(3);
    for (const x of places) {
      expect(x).toBeGreaterThanOrEqual(240);
      expect(x).toBeLessThanOrEqual(900);
    }
  });
});
