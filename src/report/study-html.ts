/** A run of a device's workload as one HTML file: the machine, charts, tables, verdicts. */
import { barChart, htmlPage, htmlTable, shareChart } from "./charts.ts";
import { cellText } from "./column.ts";
import { machinePicture } from "./machine-picture.ts";
import { studySections, variantColumn } from "./study-columns.ts";
import { type StudyResult, studyPartNames, studyShare, studyVerdict } from "./study-result.ts";
import { escapeXml } from "./svg.ts";

/** Makes the file. */
export function studyHtml({ machine, seed, kind, title, rows }: StudyResult): string {
  const sections = studySections[kind];
  const [judged] = sections[0]!.columns;
  const bars = rows.map((row) => {
    const value = judged!.value(row);
    const number = typeof value === "number" ? value : null;
    return { name: row.name, value: number, half: (number ?? 0) * row.run.halfWidth };
  });
  const settled = rows.filter(({ run }) => run.speed !== null);
  const verdicts = rows.map((row) => [row.name, studyVerdict(row)]);
  return htmlPage(`${machine.name}: ${title}`, [
    `<h1>${escapeXml(machine.name)}</h1>`,
    `<p>${escapeXml(machine.about)}; seed ${seed}</p>`,
    machinePicture(machine.picture),
    `<h2>${escapeXml(title)}</h2>`,
    `<h3>${escapeXml(judged!.doc)}</h3>`,
    barChart(bars, judged!.unit, `${judged!.title} by policy`),
    "<h3>Where the time goes</h3>",
    shareChart(
      settled,
      ({ name }) => name,
      studyPartNames(settled),
      studyShare,
      "shares of the time by policy",
    ),
    "<h3>What would help most</h3>",
    `<div class="words">${htmlTable(["policy", "verdict"], verdicts)}</div>`,
    ...sections.map((section) => {
      const heads = section.columns.map((column) => column.title);
      const body = rows.map((row) => [
        row.name,
        ...section.columns.map((column) => cellText(column.value(row), column.unit)),
      ]);
      const table = htmlTable([variantColumn.title, ...heads], body);
      return `<h3>${escapeXml(section.title)}</h3>${table}`;
    }),
  ]);
}
