/**
 * Sections of columns as text for a terminal: numbers lined up by decimal point and unit, and a
 * section that is too wide broken into several blocks, each with the row names in front.
 */
import { type CellText, type Column, cellParts, cellText, type Section } from "./column.ts";

/** How a piece of the table is meant; the command line turns it into colour. */
export type Role = "title" | "heading" | "name" | "quiet";

/** Receives the finished, padded text of a piece and returns it decorated. */
export type Style = (role: Role, text: string) => string;

const plain: Style = (_role, text) => text;
const GAP = 2;

interface PrintedColumn {
  readonly heading: readonly string[];
  readonly cells: readonly string[];
  readonly width: number;
  readonly isText: boolean;
}

/**
 * Renders sections one below the other.
 *
 * @param name - the column that names a row; repeated in front of every block
 * @param width - columns of the terminal, at least 20
 */
export function renderSections<Row>(
  name: Column<Row>,
  sections: readonly Section<Row>[],
  rows: readonly Row[],
  width: number,
  style: Style = plain,
): string[] {
  const lines: string[] = [];
  const names = printColumn(name, rows);
  for (const section of sections) {
    if (lines.length > 0) lines.push("");
    lines.push(style("title", section.title));
    const columns = section.columns.map((column) => printColumn(column, rows));
    for (const block of blocksOf(names, columns, width)) {
      lines.push(...renderBlock(names, block, rows.length, style));
    }
  }
  return lines;
}

function printColumn<Row>(column: Column<Row>, rows: readonly Row[]): PrintedColumn {
  const heading = column.title.split("\n");
  const texts = rows.map((row) => cellText(column.value(row), column.unit));
  const isText = column.unit === "text";
  const cells = isText ? texts : lineUp(texts.map(cellParts));
  const width = Math.max(...heading.map((line) => line.length), ...cells.map((c) => c.length), 1);
  return { heading, cells, width, isText };
}

/** Pads so that decimal points and units stand in columns. */
function lineUp(parts: readonly CellText[]): string[] {
  const wholeWidth = Math.max(0, ...parts.map((part) => part.whole.length));
  const fractionWidth = Math.max(0, ...parts.map((part) => part.fraction.length));
  const suffixWidth = Math.max(0, ...parts.map((part) => part.suffix.length));
  return parts.map(
    (part) =>
      part.whole.padStart(wholeWidth) +
      part.fraction.padEnd(fractionWidth) +
      part.suffix.padEnd(suffixWidth),
  );
}

function blocksOf(
  names: PrintedColumn,
  columns: readonly PrintedColumn[],
  width: number,
): PrintedColumn[][] {
  const blocks: PrintedColumn[][] = [];
  let block: PrintedColumn[] = [];
  let used = names.width;
  for (const column of columns) {
    const needs = GAP + column.width;
    if (block.length > 0 && used + needs > width) {
      blocks.push(block);
      block = [];
      used = names.width;
    }
    block.push(column);
    used += needs;
  }
  if (block.length > 0) blocks.push(block);
  return blocks;
}

function renderBlock(
  names: PrintedColumn,
  columns: readonly PrintedColumn[],
  rowCount: number,
  style: Style,
): string[] {
  const lines: string[] = [];
  const headingLines = Math.max(names.heading.length, ...columns.map((c) => c.heading.length));
  for (let line = 0; line < headingLines; line += 1) {
    const pieces = [names, ...columns].map((column, index) => {
      const text = column.heading[line - (headingLines - column.heading.length)] ?? "";
      return index === 0 || column.isText ? text.padEnd(column.width) : text.padStart(column.width);
    });
    lines.push(style("heading", pieces.join(" ".repeat(GAP)).trimEnd()));
  }
  for (let row = 0; row < rowCount; row += 1) {
    const name = style("name", names.cells[row]!.padEnd(names.width));
    const cells = columns.map((column) =>
      column.isText
        ? column.cells[row]!.padEnd(column.width)
        : column.cells[row]!.padStart(column.width),
    );
    lines.push(`${name}${" ".repeat(GAP)}${cells.join(" ".repeat(GAP))}`.trimEnd());
  }
  return lines;
}

/**
 * Breaks a paragraph at spaces.
 *
 * @param width - columns at most, unless one word is longer
 * @param first - put in front of the first line
 * @param rest - put in front of every other line
 */
export function wrap(text: string, width: number, first = "", rest = first): string[] {
  const lines: string[] = [];
  let line = first;
  let isEmpty = true;
  for (const word of text.split(/\s+/)) {
    if (word === "") continue;
    if (!isEmpty && line.length + 1 + word.length > width) {
      lines.push(line);
      line = rest;
      isEmpty = true;
    }
    line += isEmpty ? word : ` ${word}`;
    isEmpty = false;
  }
  if (!isEmpty) lines.push(line);
  return lines;
}
