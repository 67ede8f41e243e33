/** A run's result as text for a terminal. */

import type { Column, Section } from "./column.ts";
import {
  cpuShareOf,
  partNames,
  policyColumn,
  type RunRow,
  runSections,
  shareOf,
  verdictOf,
} from "./run-columns.ts";
import type { RunGroup, RunResult } from "./run-result.ts";
import { renderSections, type Style, wrap } from "./table.ts";

/** Parts of the latency that are shown; the rest is below a thousandth most often. */
const PARTS_SHOWN = 14;
const SHARE_SHOWN = 0.0005;

/** Renders all groups. @param width - columns of the terminal */
export function renderRun(run: RunResult, width: number, style: Style): string[] {
  const { name, about } = run.machine;
  const lines = wrap(`${name}: ${about}; seed ${run.seed}`, width);
  for (const group of run.groups) {
    lines.push("", style("title", `Jobs: ${group.jobs.map(jobText).join(", ")}`));
    lines.push(...renderGroup(group, width, style));
  }
  return lines;
}

function jobText({ name, processes, depth }: RunGroup["jobs"][number]): string {
  return `${name} (${processes} x depth ${depth})`;
}

function renderGroup({ rows }: RunGroup, width: number, style: Style): string[] {
  const lines = renderSections(policyColumn, runSections, rows, width, style);
  lines.push(...renderShares("Where the time went: the latency", shareOf, rows, width, style));
  const cpus = "Where the time went: what CPUs were held for";
  lines.push(...renderShares(cpus, cpuShareOf, rows, width, style));
  if (rows.some(({ outcome }) => outcome.result.where.nodes.length > 1)) {
    lines.push("", ...renderNodes(rows, width, style));
  }
  lines.push("", style("title", "What would help most"));
  const longest = Math.max(...rows.map(({ outcome }) => outcome.policy.name.length));
  for (const row of rows) {
    const head = row.outcome.policy.name.padEnd(longest + 2);
    const [first = "", ...rest] = wrap(verdictOf(row), width, head, " ".repeat(longest + 2));
    lines.push(`${style("name", head)}${first.slice(head.length)}`, ...rest);
  }
  return lines;
}

/** A column for each policy, a row for each part. */
function renderShares(
  title: string,
  share: (row: RunRow, part: string) => number | null,
  rows: readonly RunRow[],
  width: number,
  style: Style,
): string[] {
  const settled = rows.filter(({ outcome }) => outcome.result.requests.kind === "steady");
  const names = partNames(settled)
    .filter((name) => settled.some((row) => (share(row, name) ?? 0) >= SHARE_SHOWN))
    .slice(0, PARTS_SHOWN);
  const name: Column<string> = {
    key: "part",
    title: "",
    unit: "text",
    doc: "what a request does or waits for",
    value: (part) => part,
  };
  const columns = settled.map((row): Column<string> => {
    const { name: policy } = row.outcome.policy;
    // Long names would make the table wider than it need be.
    const heading = policy.replace("+", "\n+");
    const value = (part: string) => share(row, part);
    return { key: policy, title: heading, unit: "share", doc: "its share", value };
  });
  if (names.length === 0) return [];
  return ["", ...renderSections(name, [{ key: "where", title, columns }], names, width, style)];
}

function renderNodes(rows: readonly RunRow[], width: number, style: Style): string[] {
  const lines = rows.flatMap(({ outcome }) =>
    outcome.result.where.nodes
      .filter(({ requests }) => requests > 0)
      .map((node) => ({ policy: outcome.policy.name, ...node })),
  );
  type Line = (typeof lines)[number];
  const name: Column<Line> = {
    key: "policy",
    title: "policy",
    unit: "text",
    doc: "policy",
    value: ({ policy }) => policy,
  };
  const section: Section<Line> = {
    key: "nodes",
    title: "By node of the process",
    columns: [
      { key: "node", title: "node", unit: "count", doc: "node", value: ({ node }) => node },
      {
        key: "latencyNs",
        title: "latency",
        unit: "ns",
        doc: "mean latency of its requests",
        value: ({ latency, requests }) => latency / requests / 1000,
      },
      {
        key: "remoteShare",
        title: "for the way to node 0",
        unit: "share",
        doc: "share of it that was paid because the IOMMU is on another node",
        value: ({ remote, latency }) => remote / latency,
      },
    ],
  };
  return renderSections(name, [section], lines, width, style);
}
