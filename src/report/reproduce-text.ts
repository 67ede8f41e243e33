/** Reproduced tables as text: published, ours, error, and what the row is allowed to be off. */
import type { NotReproduced } from "../sim/reproduce/not-reproduced.ts";
import type { ReproducedRow, ReproducedTable } from "../sim/reproduce/table.ts";
import type { Column, Section } from "./column.ts";
import { renderSections, type Style, wrap } from "./table.ts";

const nameColumn: Column<ReproducedRow> = {
  key: "name",
  title: "row",
  unit: "text",
  doc: "row of the published table",
  value: ({ name }) => name,
};

function text(
  key: string,
  title: string,
  doc: string,
  value: (row: ReproducedRow) => string,
): Column<ReproducedRow> {
  return { key, title, unit: "text", doc, value: (row) => value(row).padStart(title.length) };
}

const section: Section<ReproducedRow> = {
  key: "rows",
  title: "",
  columns: [
    text("published", "published", "value as published", ({ published }) => figure(published)),
    text("ours", "     ours", "value of our run", ({ ours }) =>
      ours === null ? "unsettled" : figure(ours),
    ),
    text("error", "    error", "how far off ours is", errorText),
    text("target", "   target", "how far off it may be", targetText),
    text("role", "role", "whether the row set prices or tests them", ({ role }) => role),
    text("met", "met", "whether the target is met", ({ role, target, met }) =>
      role === "fitted" || (target === null && met) ? "-" : met ? "yes" : "NO",
    ),
  ],
};

/** Renders one table. @param width - columns of the terminal */
export function renderReproduced(table: ReproducedTable, width: number, style: Style): string[] {
  const unit = table.rows[0]?.unit ?? "";
  const heading = { ...section, title: `${table.title} (${unit})` };
  return [
    ...renderSections(nameColumn, [heading], [...table.rows, ...table.summary], width, style),
    ...wrap(`published in: ${table.source}`, width).map((line) => style("quiet", line)),
  ];
}

/** How many targets are met: of rows that have one, and of tables as a whole. */
export function targetsMet(tables: readonly ReproducedTable[]): { met: number; of: number } {
  const asked = tables
    .flatMap(({ rows, summary }) => [...rows, ...summary])
    .filter(({ role, target, met }) => role === "predicted" && (target !== null || !met));
  return { met: asked.filter(({ met }) => met).length, of: asked.length };
}

/** What all tables come to. */
export function renderTotal(tables: readonly ReproducedTable[]): string[] {
  const rows = tables.flatMap((table) => table.rows);
  const fitted = rows.filter(({ role }) => role === "fitted").length;
  const { met, of } = targetsMet(tables);
  return [
    `${tables.length} tables, ${rows.length} published cells: ${fitted} fitted, ` +
      `${rows.length - fitted} predicted; ${met} of ${of} targets met`,
  ];
}

/** What was published and is not here. */
export function renderMissing(missing: readonly NotReproduced[], width: number): string[] {
  return [
    "Not reproduced",
    ...missing.flatMap(({ name, reason }) => [
      ...wrap(`- ${name}`, width),
      ...wrap(reason, width - 2).map((line) => `  ${line}`),
    ]),
  ];
}

/** A value with three or four digits. */
export function figure(value: number): string {
  if (value > 0 && value < 0.0995) return value.toFixed(3);
  return value >= 99.995 ? value.toFixed(1) : value.toFixed(2);
}

export function errorText({ error, errorKind }: ReproducedRow): string {
  if (error === null) return "-";
  const sign = error < 0 ? "-" : "+";
  const size = Math.abs(error);
  return errorKind === "points" ? `${sign}${size.toFixed(1)} pt` : `${sign}${percent(size)}`;
}

export function targetText({ target, errorKind }: ReproducedRow): string {
  if (target === null) return "-";
  return errorKind === "points" ? `<= ${target} pt` : `<= ${percent(target)}`;
}

function percent(share: number): string {
  return `${(share * 100).toFixed(1)} %`;
}
