/** Rows of a result as plain records, for JSON, and as CSV (RFC 4180), from the same columns. */
import type { Cell, Column, Section } from "./column.ts";

/** One row: the naming column's key, then an object per section. */
export type RowRecord = { [key: string]: Cell | { [key: string]: Cell } };

/** Makes a row's record. Numbers stay exact; what a recording cannot tell is `null`. */
export function recordOf<Row>(
  name: Column<Row>,
  sections: readonly Section<Row>[],
  row: Row,
): RowRecord {
  const record: RowRecord = { [name.key]: name.value(row) };
  for (const section of sections) {
    const values: { [key: string]: Cell } = {};
    for (const column of section.columns) values[column.key] = column.value(row);
    record[section.key] = values;
  }
  return record;
}

/** Makes CSV: a heading of `section.key` names, then a line per row, each ended by a line feed. */
export function csvOf<Row>(
  names: readonly Column<Row>[],
  sections: readonly Section<Row>[],
  rows: readonly Row[],
): string {
  const columns: [string, Column<Row>][] = names.map((column) => [column.key, column]);
  for (const section of sections) {
    for (const column of section.columns) columns.push([`${section.key}.${column.key}`, column]);
  }
  const lines = [columns.map(([key]) => csvCell(key)).join(",")];
  for (const row of rows) {
    lines.push(columns.map(([, column]) => csvCell(column.value(row))).join(","));
  }
  return `${lines.join("\n")}\n`;
}

function csvCell(value: Cell): string {
  if (value === null) return "";
  const text = String(value);
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}
