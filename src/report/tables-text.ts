/** Firmware tables as lines for a terminal: the tree with offsets, and what was found. */

import type { DescriptionDocument } from "../firmware/table-description.ts";
import type { DumpNode } from "../firmware/table-dump.ts";
import type { TableFinding } from "../firmware/table-finding.ts";
import { type Style, wrap } from "./table.ts";

/** Structures of one table that are printed; `--json` has all of them. */
const PRINTED_MAX = 20_000;
/** Columns that the longest value of a structure may claim for all of its values. */
const VALUE_WIDTH_MAX = 32;

/** Renders the tree of one table. @param width - columns of the terminal */
export function renderTree(document: DescriptionDocument, width: number, style: Style): string[] {
  const { file, kind, bytes } = document;
  const tree = document.tree();
  const lines = [`${style("title", `${file}  ${kind}`)}  ${tree.title}, ${bytes} bytes`];
  const digits = Math.max(4, bytes.toString(16).length);
  const state = { left: PRINTED_MAX };
  renderNode(tree, 0, { digits, width, style, lines, state });
  if (state.left <= 0) lines.push(style("quiet", "  … more; --json has everything"));
  return lines;
}

interface Page {
  readonly digits: number;
  readonly width: number;
  readonly style: Style;
  readonly lines: string[];
  readonly state: { left: number };
}

function renderNode(node: DumpNode, depth: number, page: Page): void {
  const { digits, style, lines, state } = page;
  if (state.left <= 0) return;
  state.left -= 1;
  const place = (at: number) => style("quiet", at.toString(16).padStart(digits, "0"));
  const indent = "  ".repeat(depth);
  if (depth > 0) {
    const size = style("quiet", `${node.length} bytes`);
    lines.push(`${place(node.at)} ${indent}${style("heading", node.title)}  ${size}`);
  }
  const lead = digits + 3 + indent.length;
  const nameWidth = Math.max(0, ...node.fields.map((field) => field.name.length));
  const longest = Math.max(0, ...node.fields.map((field) => field.text.length));
  const valueWidth = Math.min(VALUE_WIDTH_MAX, longest);
  for (const { at, name, text, doc } of node.fields) {
    const shown = `${name.padEnd(nameWidth)}  ${text.padEnd(valueWidth)}`;
    const room = page.width - lead - shown.length - 2;
    const told = room >= doc.length ? `  ${style("quiet", doc)}` : "";
    lines.push(`${place(at)} ${indent}  ${shown}${told}`.trimEnd());
  }
  for (const item of node.items) renderNode(item, depth + 1, page);
}

/** What {@link renderFindings} shows of a file. */
export type CheckedFile = Pick<DescriptionDocument, "file" | "kind" | "findings">;

/** Renders the findings of one file; a file without any is one line. */
export function renderFindings(document: CheckedFile, width: number, style: Style): string[] {
  const { file, kind, findings } = document;
  const lines = [`${style("title", `${file}  ${kind}`)}  ${verdictOf(findings)}`];
  for (const finding of findings) {
    const where = kind === "topology" ? "" : `+0x${finding.at.toString(16)} `;
    const head = `${where}${finding.severity} ${finding.code}: ${finding.message}`;
    lines.push(...wrap(head, width, "  ", "    "));
    if (finding.effect !== undefined) lines.push(...wrap(finding.effect, width, "    ", "    "));
    if (finding.source !== undefined) lines.push(style("quiet", `    ${finding.source}`));
  }
  return lines;
}

function verdictOf(findings: readonly TableFinding[]): string {
  const count = (severity: string) => findings.filter((one) => one.severity === severity).length;
  const parts = (["error", "warning", "note"] as const)
    .map((severity) => [severity, count(severity)] as const)
    .filter(([, many]) => many > 0)
    .map(([severity, many]) => `${many} ${severity}${many === 1 ? "" : "s"}`);
  return parts.length === 0 ? "nothing to say" : parts.join(", ");
}
