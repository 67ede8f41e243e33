/** A run's result as one HTML file without anything from elsewhere: charts, tables, verdicts. */
import { barChart, htmlPage, htmlTable, shareChart } from "./charts.ts";
import { cellText } from "./column.ts";
import { machinePicture } from "./machine-picture.ts";
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
import { escapeXml } from "./svg.ts";

/** Makes the file. */
export function runHtml(run: RunResult): string {
  const { name, about, picture } = run.machine;
  return htmlPage(`${name}: ${run.groups.map(jobNames).join("; ")}`, [
    `<h1>${escapeXml(name)}</h1>`,
    `<p>${escapeXml(about)}; seed ${run.seed}</p>`,
    machinePicture(picture),
    ...run.groups.flatMap(groupHtml),
  ]);
}

function jobNames({ jobs }: RunGroup): string {
  return jobs.map(({ name }) => name).join(", ");
}

function groupHtml(group: RunGroup): string[] {
  const jobs = group.jobs
    .map(({ name, processes, depth }) => `${name} (${processes} x depth ${depth})`)
    .join(", ");
  const { rows } = group;
  const settled = rows.filter((row) => rateOf(row) !== null);
  const nameOf = (row: RunRow) => row.outcome.policy.name;
  const verdicts = rows.map((row) => [nameOf(row), verdictOf(row)]);
  return [
    `<h2>${escapeXml(jobs)}</h2>`,
    "<h3>Requests a second</h3>",
    barChart(rows.map(barOf), "count", "requests a second by policy"),
    "<h3>Where the time of a request goes</h3>",
    shareChart(settled, nameOf, partNames(settled), shareOf, "shares of the latency by policy"),
    "<h3>What would help most</h3>",
    `<div class="words">${htmlTable(["policy", "verdict"], verdicts)}</div>`,
    ...runSections.map((section) => {
      const heads = section.columns.map(({ title }) => title);
      const body = rows.map((row) => [
        nameOf(row),
        ...section.columns.map((column) => cellText(column.value(row), column.unit)),
      ]);
      return `<h3>${escapeXml(section.title)}</h3>${htmlTable([policyColumn.title, ...heads], body)}`;
    }),
  ];
}

function barOf(row: RunRow) {
  const { requests } = row.outcome.result;
  const half = requests.kind === "steady" ? requests.halfWidth95 : 0;
  return { name: row.outcome.policy.name, value: rateOf(row), half };
}
