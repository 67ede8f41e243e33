import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { Column, Section } from "./column.ts";
import { renderSections, wrap } from "./table.ts";

interface Row {
  readonly name: string;
  readonly bytes: number | null;
  readonly count: number;
}

const name: Column<Row> = {
  key: "name",
  title: "name",
  unit: "text",
  doc: "",
  value: (r) => r.name,
};
const bytes: Column<Row> = {
  key: "bytes",
  title: "peak\nbytes",
  unit: "bytes",
  doc: "",
  value: (r) => r.bytes,
};
const count: Column<Row> = {
  key: "count",
  title: "count",
  unit: "count",
  doc: "",
  value: (r) => r.count,
};
const section: Section<Row> = { key: "all", title: "All", columns: [bytes, count] };
const rows: Row[] = [
  { name: "short", bytes: 1536, count: 5 },
  { name: "a longer name", bytes: 65536, count: 12345 },
  { name: "none", bytes: null, count: 0 },
];

describe("renderSections", () => {
  it("lines numbers up by decimal point and unit", () => {
    expect(renderSections(name, [section], rows, 80)).toEqual([
      "All",
      "                   peak",
      "name              bytes   count",
      "short           1.5 KiB       5",
      "a longer name  64   KiB  12,345",
      "none            -             0",
    ]);
  });

  it("breaks a section that is too wide into blocks that repeat the names", () => {
    expect(renderSections(name, [section], rows, 26)).toEqual([
      "All",
      "                   peak",
      "name              bytes",
      "short           1.5 KiB",
      "a longer name  64   KiB",
      "none            -",
      "name            count",
      "short               5",
      "a longer name  12,345",
      "none                0",
    ]);
  });

  it("never exceeds the width while one column fits beside the names", () => {
    const columns = fc.array(fc.constantFrom(bytes, count), { minLength: 1, maxLength: 12 });
    fc.assert(
      fc.property(columns, fc.integer({ min: 26, max: 160 }), (chosen, width) => {
        const lines = renderSections(name, [{ ...section, columns: chosen }], rows, width);
        expect(lines.every((line) => line.length <= width)).toBe(true);
        const cells = lines.filter((line) => line.startsWith("short"));
        expect(cells.join(" ").match(/1\.5 KiB|\b5\b(?! KiB)/g)?.length).toBe(chosen.length);
      }),
      { seed: 7, numRuns: 200 },
    );
  });

  it("marks pieces for the caller's colours without changing their place", () => {
    const marked = renderSections(name, [section], rows, 80, (role, text) => `<${role}>${text}`);
    const plain = renderSections(name, [section], rows, 80);
    expect(marked.map((line) => line.replace(/<\w+>/g, ""))).toEqual(plain);
    expect(marked[0]).toBe("<title>All");
  });
});

describe("wrap", () => {
  it("keeps every word and the width", () => {
    const text = fc.array(fc.stringMatching(/^[a-z]{1,12}$/), { maxLength: 40 });
    fc.assert(
      fc.property(text, fc.integer({ min: 20, max: 60 }), (words, width) => {
        const lines = wrap(words.join("  "), width, "- ", "  ");
        expect(lines.every((line) => line.length <= width)).toBe(true);
        expect(lines.map((line) => line.slice(2)).join(" ")).toBe(words.join(" "));
      }),
      { seed: 8, numRuns: 200 },
    );
  });

  it("gives an overlong word its own line", () => {
    expect(wrap("a bbbbbbbbbbbb c", 6)).toEqual(["a", "bbbbbbbbbbbb", "c"]);
  });
});
