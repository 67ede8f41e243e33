/** Reproduced tables as one HTML file without anything from elsewhere: published beside ours. */
import type { NotReproduced } from "../sim/reproduce/not-reproduced.ts";
import type { ReproducedRow, ReproducedTable } from "../sim/reproduce/table.ts";
import { errorText, figure, targetsMet, targetText } from "./reproduce-text.ts";
import { Drawing, escapeXml, fitText } from "./svg.ts";

const WIDTH = 900;
const LABEL = 250;
const ROW = 18;
/** Room for the figures behind the marks. */
const FIGURES = 170;
const FONT = { size: 12, fill: "#222" } as const;
const QUIET = { size: 11, fill: "#666" } as const;
/** Told apart by people who confuse red and green (P. Tol, "Colour Schemes", 2021, muted). */
const COLOUR = { fitted: "#999933", predicted: "#332288", missed: "#cc6677", line: "#c9c9c9" };
/** From here on, values are drawn by their logarithm. */
const LINEAR_MAX = 30;

const STYLE = `body{font:15px/1.45 system-ui,sans-serif;max-width:960px;margin:2em auto;color:#222}
table{border-collapse:collapse;margin:1em 0}th,td{padding:.1em .8em;text-align:right}
th:first-child,td:first-child{text-align:left}thead th{border-bottom:1px solid #999}
h2{margin-top:2em}.quiet{color:#666}.missed{color:#882255;font-weight:600}
svg{max-width:100%;height:auto}summary{cursor:pointer}`;

/** Makes the file. */
export function reproduceHtml(
  tables: readonly ReproducedTable[],
  missing: readonly NotReproduced[],
): string {
  const { met, of } = targetsMet(tables);
  const title = "Published tables, reproduced";
  const head =
    `<p>${tables.length} tables; ${met} of ${of} targets met. Rings are published values, discs ` +
    "are ours: yellow where the row set a price, blue where it was predicted, red where the " +
    "prediction misses its target.</p>";
  const parts = [
    `<h1>${title}</h1>`,
    head,
    ...tables.flatMap(tableHtml),
    ...(missing.length === 0 ? [] : missingHtml(missing)),
  ];
  return (
    `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">` +
    `<title>${title}</title><style>${STYLE}</style></head>\n` +
    `<body>\n${parts.join("\n")}\n</body></html>\n`
  );
}

function tableHtml(table: ReproducedTable): string[] {
  const { title, source, rows, summary, id } = table;
  const unit = rows[0]?.unit ?? "";
  return [
    `<h2 id="${escapeXml(id)}">${escapeXml(title)}</h2>`,
    `<p class="quiet">${escapeXml(unit)}; published in: ${escapeXml(source)}</p>`,
    chart(table),
    ...summary.map(
      (row) =>
        `<p${row.met ? "" : ' class="missed"'}>${escapeXml(row.name)}: ` +
        `${escapeXml(row.ours === null ? "-" : `${figure(row.ours)} ${row.unit}`)}, ` +
        `asked: ${escapeXml(targetText(row))}</p>`,
    ),
    `<details><summary>figures</summary>${figures(rows)}</details>`,
  ];
}

function figures(rows: readonly ReproducedRow[]): string {
  const heads = ["row", "published", "ours", "error", "target", "role"];
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeXml(cell)}</${tag}>`).join("")}</tr>`;
  const body = rows.map((row) =>
    line("td", [
      row.name,
      figure(row.published),
      row.ours === null ? "unsettled" : figure(row.ours),
      errorText(row),
      targetText(row),
      row.met ? row.role : `${row.role}, missed`,
    ]),
  );
  return (
    `<table><thead>${line("th", heads)}</thead>\n` + `<tbody>${body.join("\n")}</tbody></table>`
  );
}

/** A line for each row, with a ring where it was published and a disc where ours is. */
function chart({ rows, title }: ReproducedTable): string {
  const drawing = new Drawing();
  const scale = scaleOf(rows);
  for (const [index, row] of rows.entries()) {
    const y = index * ROW + ROW / 2;
    drawing.text(0, y + 4, fitText(row.name, LABEL - 10, FONT), FONT);
    const published = scale(row.published);
    if (row.ours === null) {
      drawing.text(WIDTH - FIGURES, y + 4, "unsettled", { ...QUIET, fill: COLOUR.missed });
    } else {
      const ours = scale(row.ours);
      const fill = row.met ? COLOUR[row.role] : COLOUR.missed;
      const text = `${figure(row.published)} → ${figure(row.ours)}, ${errorText(row)}`;
      drawing.group(`${row.name}: ${text} (${row.role})`, () => {
        drawing.path(`M${published} ${y}H${ours}`, { stroke: COLOUR.line, "stroke-width": 2 });
        drawing.path(disc(ours, y, 4), { fill });
      });
      drawing.text(WIDTH - FIGURES + 10, y + 4, text, QUIET);
    }
    drawing.path(disc(published, y, 5), { fill: "none", stroke: "#222", "stroke-width": 1.2 });
  }
  return drawing.document(WIDTH, rows.length * ROW, title);
}

/** From a value to a place, rounded to hundredths. */
function scaleOf(rows: readonly ReproducedRow[]): (value: number) => number {
  const values = rows.flatMap(({ published, ours }) =>
    ours === null ? [published] : [published, ours],
  );
  const positive = values.filter((value) => value > 0);
  const most = Math.max(1e-9, ...positive);
  const least = Math.min(most, ...positive);
  const room = WIDTH - LABEL - FIGURES - 10;
  const place = (share: number) => Math.round((LABEL + 5 + share * room) * 100) / 100;
  if (most / least <= LINEAR_MAX) return (value) => place(Math.max(0, value) / most);
  const decades = Math.log(most / least);
  return (value) => place(value <= least ? 0 : Math.log(value / least) / decades);
}

function disc(x: number, y: number, radius: number): string {
  return `M${x - radius} ${y}a${radius} ${radius} 0 1 0 ${2 * radius} 0a${radius} ${radius} 0 1 0 ${-2 * radius} 0z`;
}

function missingHtml(missing: readonly NotReproduced[]): string[] {
  const items = missing.map(
    ({ name, reason }) =>
      `<li>${escapeXml(name)}<br><span class="quiet">${escapeXml(reason)}</span></li>`,
  );
  return ["<h2>Not reproduced</h2>", `<ul>${items.join("\n")}</ul>`];
}
