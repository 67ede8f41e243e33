/** What `inspect` found, as lines for a terminal: totals, units, the tree of devices, page tables. */
import type { Finding } from "../host/findings.ts";
import type { InspectedGroup, InspectResult } from "../host/inspect-result.ts";
import { numberListText } from "../topology/number-list.ts";
import { sizeText } from "../units.ts";
import { type Column, countText } from "./column.ts";
import { deviceTree, type TreeLine } from "./inspect-tree.ts";
import { renderSections, type Style, wrap } from "./table.ts";

/** What stands above the result. */
export interface InspectHeading {
  readonly name: string;
  readonly release: string | null;
  readonly architecture: string | null;
}

/** Devices that one finding lists in a terminal. */
const FINDING_DEVICES_MAX = 6;
/** Findings of one code that are printed. */
const SAME_CODE_MAX = 5;

const kindNames = new Map([
  ["vtd", "VT-d"],
  ["amd", "AMD-Vi"],
  ["smmuv2", "SMMUv2"],
  ["smmuv3", "SMMUv3"],
  ["virtio-pci", "virtio-iommu"],
  ["virtio-mmio", "virtio-iommu"],
  ["other", "IOMMU"],
]);

/** Renders a result. @param width - columns of the terminal */
export function renderInspected(
  result: InspectResult,
  heading: InspectHeading,
  width: number,
  style: Style,
): string[] {
  const { release, architecture, name } = heading;
  const lines = [style("title", [name, architecture, release].filter(Boolean).join("  "))];
  lines.push(...wrap(totals(result), width, "  "));
  for (const section of [nodeLines, iommuLines, treeLines, tableLines, groupLines, regionLines]) {
    const part = section(result, width, style);
    if (part.length > 0) lines.push("", ...part);
  }
  const findings = renderFindings(result.findings, width, style);
  if (findings.length > 0) lines.push("", ...findings);
  return lines;
}

function totals({ nodes, iommus, devices, groups }: InspectResult): string {
  const agreeing = groups.filter(({ agrees }) => agrees === true).length;
  const known = groups.filter(({ agrees }) => agrees !== null).length;
  const verdict =
    known === 0
      ? ""
      : agreeing === known
        ? `; ${known === groups.length ? "each is" : `${countText(known)} are`} what the rules of PCI isolation make of it`
        : `; ${countText(known - agreeing)} of them NOT what the rules of PCI isolation make of it`;
  return (
    `${plural(nodes.length, "NUMA node")}, ${plural(iommus.length, "IOMMU")}, ` +
    `${plural(devices.length, "device")} in ${plural(groups.length, "group")}${verdict}`
  );
}

function plural(count: number, one: string): string {
  return `${countText(count)} ${one}${count === 1 ? "" : "s"}`;
}

function column<Row>(
  key: string,
  value: (row: Row) => string | number | null,
  unit: "text" | "count" = "text",
  title = key,
): Column<Row> {
  return { key, title, unit, doc: key, value };
}

function nodeLines(result: InspectResult, width: number, style: Style): string[] {
  if (result.nodes.length === 0) return [];
  type Row = InspectResult["nodes"][number];
  const columns = [
    column<Row>("memory", ({ memoryBytes }) => sizeText(memoryBytes)),
    column<Row>("CPUs", ({ cpus }) => (cpus === "" ? "none" : cpus)),
    column<Row>("distances", ({ distances }) => distances.join(" ")),
  ];
  const name = column<Row>("node", ({ id }) => `${id}`);
  const section = { key: "nodes", title: "NUMA nodes", columns };
  return renderSections(name, [section], result.nodes, width, style);
}

function iommuLines(result: InspectResult, width: number, style: Style): string[] {
  if (result.iommus.length === 0) return [];
  type Row = InspectResult["iommus"][number];
  const columns = [
    column<Row>("kind", ({ kind }) => kindNames.get(kind)!),
    column<Row>("node", ({ node, nodeIsInferred }) =>
      node === null ? null : `${node}${nodeIsInferred ? " (of its devices)" : ""}`,
    ),
    column<Row>("at", ({ registers, bdf }) => registers ?? bdf),
    column<Row>("devices", ({ deviceCount }) => deviceCount, "count"),
  ];
  const name = column<Row>("IOMMU", ({ name }) => name);
  const section = { key: "iommus", title: "IOMMUs", columns };
  return renderSections(name, [section], result.iommus, width, style);
}

function treeLines(result: InspectResult, width: number, style: Style): string[] {
  const lines = deviceTree(result);
  if (lines.length === 0) return [];
  const nameWidth = Math.max(...lines.map((line) => line.depth * 2 + line.name.length));
  const groupWidth = Math.max(5, ...lines.map(({ group }) => group.length));
  const heading = `${"".padEnd(nameWidth)}  ${"group".padStart(groupWidth)}`;
  return [
    style("title", "Devices"),
    style("heading", heading),
    ...lines.map((line) => treeText(line, nameWidth, groupWidth, width, style)),
  ];
}

function treeText(
  line: TreeLine,
  nameWidth: number,
  groupWidth: number,
  width: number,
  style: Style,
): string {
  const indent = "  ".repeat(line.depth);
  if (line.isPlace) return `${indent}${style("heading", line.name)}`;
  const name = indent + style("name", line.name.padEnd(nameWidth - indent.length));
  const left = width - nameWidth - groupWidth - 4;
  const facts = line.facts === "" ? "" : `  ${line.facts}`;
  const room = Math.max(12, left - facts.length);
  const what = line.what.length > room ? `${line.what.slice(0, room - 1)}…` : line.what;
  return `${name}  ${line.group.padStart(groupWidth)}  ${what}${style("quiet", facts)}`;
}

/** Groups by a key, in the order of first appearance. */
function collect<T>(items: readonly T[], key: (item: T) => string): [string, T[]][] {
  const found = new Map<string, T[]>();
  for (const item of items) {
    const name = key(item);
    const list = found.get(name);
    if (list === undefined) found.set(name, [item]);
    else list.push(item);
  }
  return [...found];
}

/** Ids as `0-3,8`. */
function idsText(groups: readonly { readonly id: number }[]): string {
  return numberListText(groups.map(({ id }) => id).sort((a, b) => a - b));
}

/** One line for all groups whose tables live and are walked alike. */
function tableLines(result: InspectResult, width: number, style: Style): string[] {
  if (result.groups.length === 0) return [];
  const lines = [style("title", "Page tables of each group's default domain")];
  const alike = collect(result.groups, tablesText);
  for (const [text, groups] of alike) {
    const types = [...new Set(groups.map(({ type }) => type))].filter((type) => type !== null);
    const name = `group${groups.length === 1 ? "" : "s"} ${idsText(groups)}`;
    const type = types.length === 0 ? "" : ` (${types.join(", ")})`;
    lines.push(...wrap(`${name}${type}: ${text}`, width, "  ", "    "));
  }
  return lines;
}

function tablesText({ pageTables: tables }: InspectedGroup): string {
  if (tables.home === "none") return `none: ${tables.why}`;
  if (tables.home === "unknown") return `not known: ${tables.why}`;
  const walker = tables.walker ?? "nobody known";
  const where = tables.home === "node" ? `on node ${tables.node}` : "on no fixed node";
  const from =
    tables.walkerNode === null ? ", whose node is not known" : ` from node ${tables.walkerNode}`;
  const away =
    tables.isRemote === null
      ? ""
      : tables.isRemote
        ? `: FROM AFAR, distance ${tables.distance}`
        : ": local";
  return `${where} (${tables.why}), walked by ${walker}${from}${away}`;
}

/** Groups with several devices, and those that are not as they should be. */
function groupLines({ groups }: InspectResult, width: number, style: Style): string[] {
  const shown = groups.filter(({ devices, agrees }) => devices.length > 1 || agrees === false);
  if (shown.length === 0) return [];
  const lines = [style("title", "Groups of several devices")];
  for (const { id, devices, agrees, derived } of shown) {
    const differs = agrees === false ? `; by the rules: ${(derived ?? []).join(" ")}` : "";
    lines.push(...wrap(`group ${id}: ${devices.join(" ")}${differs}`, width, "  ", "    "));
  }
  return lines;
}

function regionLines({ groups }: InspectResult, width: number, style: Style): string[] {
  const alike = collect(
    groups.filter(({ regions }) => regions.length > 0),
    ({ regions }) => regions.map((one) => `${one.start}-${one.last} ${one.type}`).join(", "),
  );
  if (alike.length === 0) return [];
  const lines = [style("title", "Reserved I/O virtual addresses")];
  for (const [text, list] of alike) {
    const name = `group${list.length === 1 ? "" : "s"} ${idsText(list)}`;
    lines.push(...wrap(`${name}: ${text}`, width, "  ", "    "));
  }
  return lines;
}

/** Renders findings, those of one code together. */
export function renderFindings(
  findings: readonly Finding[],
  width: number,
  style: Style,
): string[] {
  if (findings.length === 0) return [];
  const lines = [style("title", "Findings")];
  for (const [, alike] of collect(findings, ({ code }) => code)) {
    for (const one of alike.slice(0, SAME_CODE_MAX)) {
      lines.push(...wrap(`${one.severity}: ${one.message} [${one.code}]`, width, "  ", "    "));
      for (const text of detailsOf(one)) lines.push(...wrap(text, width, "    ", "      "));
    }
    const more = alike.length - SAME_CODE_MAX;
    if (more > 0) lines.push(style("quiet", `    ${countText(more)} more like it; see --json`));
  }
  return lines;
}

function detailsOf({ devices, evidence, next }: Finding): string[] {
  const details = [...evidence.slice(0, SAME_CODE_MAX)];
  const shown = devices.slice(0, FINDING_DEVICES_MAX).join(" ");
  const more = devices.length - FINDING_DEVICES_MAX;
  if (shown !== "") details.push(more > 0 ? `${shown} and ${countText(more)} more` : shown);
  if (next !== null) details.push(`next: ${next}`);
  return details;
}
