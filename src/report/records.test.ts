import { describe, expect, it } from "vitest";
import type { Column, Section } from "./column.ts";
import { csvOf, recordOf } from "./records.ts";

type Row = { readonly name: string; readonly value: number | null };
const name: Column<Row> = { key: "name", title: "n", unit: "text", doc: "", value: (r) => r.name };
const value: Column<Row> = {
  key: "value",
  title: "v",
  unit: "bytes",
  doc: "",
  value: (r) => r.value,
};
const section: Section<Row> = { key: "part", title: "Part", columns: [value] };

describe("records", () => {
  it("keeps exact numbers and nests by section", () => {
    expect(recordOf(name, [section], { name: "a", value: 65537 })).toEqual({
      name: "a",
      part: { value: 65537 },
    });
  });

  it("writes CSV with quoted cells and empty cells for the unknown", () => {
    const rows = [
      { name: 'say "hi", you', value: 1.5 },
      { name: "line\nbreak", value: null },
    ];
    expect(csvOf([name], [section], rows)).toBe(
      'name,part.value\n"say ""hi"", you",1.5\n"line\nbreak",\n',
    );
  });
});
