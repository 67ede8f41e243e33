/** A run's result as one HTML file without anything from elsewhere: charts, tables, verdicts. */
import { cellText } from "./column.ts";
import {
  partNames,
  policyColumn,
  type RunRow,
  rateOf,
  runSections,
  shareOf,
  verdictOf,
} from "./run-columns.ts";
import type { RunGroup, RunResult } from "./run-result.ts";
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

/** Makes the file. */
export function runHtml(run: RunResult): string {
  const { name, about } = run.machine;
  const title = `${name}: ${run.groups.map(jobNames).join("; ")}`;
  const parts = [
    `<h1>${escapeXml(name)}</h1>`,
    `<p>${escapeXml(about)}; seed ${run.seed}</p>`,
    ...run.groups.flatMap(groupHtml),
  ];
  return (
    `<!doctype html>\n<html lang="en"><head><meta charset="utf-8">` +
    `<title>${escapeXml(title)}</title><style>${STYLE}</style></head>\n` +
    `<body>\n${parts.join("\n")}\n</body></html>\n`
  );
}

function jobNames({ jobs }: RunGroup): string {
  return jobs.map(({ name }) => name).join(", ");
}

function groupHtml(group: RunGroup): string[] {
  const jobs = group.jobs
    .map(({ name, processes, depth }) => `${name} (${processes} x depth ${depth})`)
    .join(", ");
  return [
    `<h2>${escapeXml(jobs)}</h2>`,
    "<h3>Requests a second</h3>",
    throughputChart(group.rows),
    "<h3>Where the time of a request goes</h3>",
    whereChart(group.rows),
    "<h3>What would help most</h3>",
    verdictTable(group.rows),
    ...runSections.map((section) => {
      const heads = section.columns.map(({ title }) => title);
      const body = group.rows.map((row) => [
        row.outcome.policy.name,
        ...section.columns.map((column) => cellText(column.value(row), column.unit)),
      ]);
      return `<h3>${escapeXml(section.title)}</h3>${table([policyColumn.title, ...heads], body)}`;
    }),
  ];
}

function table(heads: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (tag: string, cells: readonly string[]) =>
    `<tr>${cells.map((cell) => `<${tag}>${escapeXml(cell)}</${tag}>`).join("")}</tr>`;
  const body = rows.map((cells) => line("td", cells)).join("\n");
  return `<table><thead>${line("th", heads)}</thead>\n<tbody>${body}</tbody></table>`;
}

function verdictTable(rows: readonly RunRow[]): string {
  const lines = rows.map((row) => [row.outcome.policy.name, verdictOf(row)]);
  return `<div class="words">${table(["policy", "verdict"], lines)}</div>`;
}

/** A bar for each policy, with its confidence interval. */
function throughputChart(rows: readonly RunRow[]): string {
  const drawing = new Drawing();
  const most = Math.max(1e-9, ...rows.map((row) => rateOf(row) ?? 0));
  const scale = (WIDTH - LABEL - 150) / most;
  for (const [index, row] of rows.entries()) {
    const y = index * (BAR + GAP);
    drawing.text(0, y + 16, row.outcome.policy.name, FONT);
    const { requests } = row.outcome.result;
    if (requests.kind !== "steady") {
      drawing.text(LABEL, y + 16, "no steady state", { ...FONT, fill: "#882255" });
      continue;
    }
    const width = requests.mean * scale;
    const half = requests.halfWidth95 * scale;
    drawing.rect(LABEL, y, width, BAR, { fill: COLOURS[0] });
    drawing.rect(LABEL + width - half, y + BAR / 2 - 1, 2 * half, 2, { fill: COLOURS[5] });
    drawing.text(LABEL + width + half + 8, y + 16, cellText(requests.mean, "count"), FONT);
  }
  return drawing.document(WIDTH, rows.length * (BAR + GAP), "requests a second by policy");
}

/** A bar for each policy, cut into the parts of its latency. */
function whereChart(rows: readonly RunRow[]): string {
  const drawing = new Drawing();
  const settled = rows.filter((row) => rateOf(row) !== null);
  const names = partNames(settled).slice(0, COLOURS.length);
  const width = WIDTH - LABEL;
  for (const [index, row] of settled.entries()) {
    const y = index * (BAR + GAP);
    drawing.text(0, y + 16, row.outcome.policy.name, FONT);
    let x = LABEL;
    const piece = (name: string, share: number, fill: string) => {
      if (share <= 0) return;
      drawing.group(`${name}: ${cellText(share, "share")}`, () =>
        drawing.rect(x, y, share * width, BAR, { fill }),
      );
      x += share * width;
    };
    for (const [at, name] of names.entries()) piece(name, shareOf(row, name), COLOURS[at]!);
    piece("everything else", 1 - (x - LABEL) / width, REST);
  }
  const top = settled.length * (BAR + GAP) + GAP;
  for (const [at, name] of [...names, "everything else"].entries()) {
    const x = (at % 3) * (WIDTH / 3);
    const y = top + Math.floor(at / 3) * 20;
    drawing.rect(x, y, 12, 12, { fill: COLOURS[at] ?? REST });
    drawing.text(x + 18, y + 11, fitText(name, WIDTH / 3 - 24, FONT), FONT);
  }
  const height = top + Math.ceil((names.length + 1) / 3) * 20;
  return drawing.document(WIDTH, height, "shares of the latency by policy");
}
