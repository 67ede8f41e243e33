/** A run of a device's workload as text for a terminal. */
import type { StudyOutcome } from "../sim/study/study.ts";
import type { QueueUse } from "../sim/where-time.ts";
import type { Column, Section } from "./column.ts";
import { studySections, variantColumn } from "./study-columns.ts";
import { type StudyResult, studyPartNames, studyShare, studyVerdict } from "./study-result.ts";
import { renderSections, type Style, wrap } from "./table.ts";

/** Parts of the time, and queues, that are shown. */
const PARTS_SHOWN = 12;
const QUEUES_SHOWN = 6;
const SHARE_SHOWN = 0.0005;
const PS_PER_NS = 1000;

/** Renders it. @param width - columns of the terminal */
export function renderStudy(result: StudyResult, width: number, style: Style): string[] {
  const { machine, seed, kind, title, rows } = result;
  const lines = wrap(`${machine.name}: ${machine.about}; seed ${seed}`, width);
  lines.push("", ...wrap(title, width).map((line) => style("title", line)));
  lines.push(...renderSections(variantColumn, studySections[kind], rows, width, style));
  lines.push(...renderShares(rows, width, style));
  lines.push(...renderNodes(rows, width, style));
  lines.push(...renderQueues(rows, width, style));
  lines.push("", style("title", "What would help most"));
  const longest = Math.max(...rows.map(({ name }) => name.length));
  for (const row of rows) {
    const head = row.name.padEnd(longest + 2);
    const [first = "", ...rest] = wrap(studyVerdict(row), width, head, " ".repeat(longest + 2));
    lines.push(`${style("name", head)}${first.slice(head.length)}`, ...rest);
  }
  return lines;
}

function renderShares(rows: readonly StudyOutcome[], width: number, style: Style): string[] {
  const settled = rows.filter(({ run }) => run.speed !== null);
  const names = studyPartNames(settled)
    .filter((name) => settled.some((row) => studyShare(row, name) >= SHARE_SHOWN))
    .slice(0, PARTS_SHOWN);
  if (names.length === 0) return [];
  const columns = settled.map(
    (row): Column<string> => ({
      key: row.name,
      title: row.name,
      unit: "share",
      doc: "its share",
      value: (part) => studyShare(row, part),
    }),
  );
  const name = naming<string>("", (part) => part);
  const section = { key: "where", title: "Where the time went", columns };
  return ["", ...renderSections(name, [section], names, width, style)];
}

function naming<Row>(title: string, value: (row: Row) => string): Column<Row> {
  return { key: "name", title, unit: "text", doc: "name", value };
}

function renderNodes(rows: readonly StudyOutcome[], width: number, style: Style): string[] {
  const lines = rows.flatMap(({ name, run }) =>
    run.nodes.filter(({ requests }) => requests > 0).map((node) => ({ name, ...node })),
  );
  if (!rows.some(({ run }) => run.nodes.length > 1)) return [];
  type Line = (typeof lines)[number];
  const section: Section<Line> = {
    key: "nodes",
    title: "By node of the device",
    columns: [
      { key: "node", title: "node", unit: "count", doc: "node", value: ({ node }) => node },
      {
        key: "meanNs",
        title: "latency",
        unit: "ns",
        doc: "mean latency of its requests",
        value: ({ latency, requests }) => latency / requests / PS_PER_NS,
      },
      {
        key: "remoteShare",
        title: "reading other nodes",
        unit: "share",
        doc: "share of it in which walks read page tables of another node",
        value: ({ remote, latency }) => remote / latency,
      },
    ],
  };
  return [
    "",
    ...renderSections(
      naming<Line>("policy", ({ name }) => name),
      [section],
      lines,
      width,
      style,
    ),
  ];
}

/** The queues that were waited for longest. */
function renderQueues(rows: readonly StudyOutcome[], width: number, style: Style): string[] {
  const lines = rows.flatMap(({ name, run }) =>
    [...run.queues]
      .filter(({ granted, waitTime }) => granted > 0 && waitTime > 0)
      .sort((a, b) => b.waitTime - a.waitTime || (a.name < b.name ? -1 : 1))
      .slice(0, QUEUES_SHOWN)
      .map((queue) => ({ policy: name, time: run.time, queue })),
  );
  if (lines.length === 0) return [];
  type Line = (typeof lines)[number];
  const column = (
    key: string,
    title: string,
    unit: "text" | "count" | "share" | "ns",
    value: (queue: QueueUse, time: number) => string | number | null,
  ): Column<Line> => ({
    key,
    title,
    unit,
    doc: title,
    value: ({ queue, time }) => value(queue, time),
  });
  const section: Section<Line> = {
    key: "queues",
    title: "Queues that were waited for",
    columns: [
      column("name", "queue", "text", ({ name }) => name),
      column("busy", "busy", "share", ({ busyTime, servers }, time) => busyTime / servers / time),
      column("wait", "mean wait", "ns", ({ waitTime, waited }) =>
        waited === 0 ? 0 : waitTime / waited / PS_PER_NS,
      ),
      column("most", "most at once", "count", ({ waitingMax }) => waitingMax),
    ],
  };
  return [
    "",
    ...renderSections(
      naming<Line>("policy", ({ policy }) => policy),
      [section],
      lines,
      width,
      style,
    ),
  ];
}
