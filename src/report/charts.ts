/** The two charts of a run: a bar for each policy, whole or cut into shares; and the page around. */
import { cellText, type Unit } from "./column.ts";
import { Drawing, escapeXml, fitText } from "./svg.ts";

const WIDTH = 900;
const LABEL = 120;
const BAR = 22;
const GAP = 8;
const FONT = { size: 13, fill: "#222" } as const;
const REST = "#c9c9c9";
/** Told apart by people who confuse red and green (P. Tol, "Colour Schemes", 2021, muted). */
const COLOURS = [
  "#332288",
  "#88ccee",
  "#44aa99",
  "#117733",
  "#999933",
  "#ddcc77",
  "#cc6677",
  "#882255",
  "#aa4499",
] as const;

const STYLE = `body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;color:#222}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.2em .8em;text-align:right}
th:first-child,td:first-child,.words *{text-align:left}thead th{border-bottom:1px solid #999}
h2{margin-top:2em}.quiet{color:#666}svg{max-width:100%;height:auto}`;

/** A bar; null without a steady state. */
export interface Bar {
  readonly name: string;
  readonly value: number | null;
  /** Half its confidence interval, in the same unit. */
  readonly half: number;
}

/** One file that fetches nothing. @param parts - HTML */
export function htmlPage(title: string, parts: readonly string[]): string {
  return (
    `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">` +
    `<title>${escapeXml(title)}</title><style>${STYLE}</style></head>\n` +
    `<body>\n${parts.join("\n")}\n</body></html>\n`
  );
}

/** A table of texts. */
export function htmlTable(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeXml(cell)}</${tag}>`).join("")}</tr>`;
  const body = rows.map((cells) => line("td", cells)).join("\n");
  return `<table><thead>${line("th", heads)}</thead>\n<tbody>${body}</tbody></table>`;
}

/** A bar for each, with its confidence interval. */
export function barChart(bars: readonly Bar[], unit: Unit, title: string): string {
  const drawing = new Drawing();
  const most = Math.max(1e-9, ...bars.map(({ value }) => value ?? 0));
  const scale = (WIDTH - LABEL - 150) / most;
  for (const [index, { name, value, half }] of bars.entries()) {
    const y = index * (BAR + GAP);
    drawing.text(0, y + 16, name, FONT);
    if (value === null) {
      drawing.text(LABEL, y + 16, "no steady state", { ...FONT, fill: "#882255" });
      continue;
    }
    const width = value * scale;
    const side = half * scale;
    drawing.rect(LABEL, y, width, BAR, { fill: COLOURS[0] });
    if (side > 0) {
      drawing.rect(LABEL + width - side, y + BAR / 2 - 1, 2 * side, 2, { fill: COLOURS[5] });
    }
    drawing.text(LABEL + width + side + 8, y + 16, cellText(value, unit), FONT);
  }
  return drawing.document(WIDTH, bars.length * (BAR + GAP), title);
}

/**
 * A bar for each row, cut into shares.
 *
 * @param names - of parts, the largest first; those beyond the colours are one
 */
export function shareChart<Row>(
  rows: readonly Row[],
  nameOf: (row: Row) => string,
  names: readonly string[],
  shareOf: (row: Row, name: string) => number,
  title: string,
): string {
  const drawing = new Drawing();
  const shown = names.slice(0, COLOURS.length);
  const width = WIDTH - LABEL;
  for (const [index, row] of rows.entries()) {
    const y = index * (BAR + GAP);
    drawing.text(0, y + 16, nameOf(row), FONT);
    let x = LABEL;
    const piece = (name: string, share: number, fill: string) => {
      if (share <= 0) return;
      drawing.group(`${name}: ${cellText(share, "share")}`, () =>
        drawing.rect(x, y, share * width, BAR, { fill }),
      );
      x += share * width;
    };
    for (const [at, name] of shown.entries()) piece(name, shareOf(row, name), COLOURS[at]!);
    piece("everything else", 1 - (x - LABEL) / width, REST);
  }
  const top = rows.length * (BAR + GAP) + GAP;
  for (const [at, name] of [...shown, "everything else"].entries()) {
    const x = (at % 3) * (WIDTH / 3);
    const y = top + Math.floor(at / 3) * 20;
    drawing.rect(x, y, 12, 12, { fill: COLOURS[at] ?? REST });
    drawing.text(x + 18, y + 11, fitText(name, WIDTH / 3 - 24, FONT), FONT);
  }
  const height = top + Math.ceil((shown.length + 1) / 3) * 20;
  return drawing.document(WIDTH, height, title);
}
