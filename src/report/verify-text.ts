/** What `verify` found, as lines for a terminal. */
import type { Divergence, RecordingResult } from "../recording/verify/result.ts";
import { waiverOf } from "../recording/verify/waivers.ts";
import { countText } from "./column.ts";
import { type Style, wrap } from "./table.ts";

/** Divergences of a recording that are printed; `--json` has the rest. */
const PRINTED_MAX = 20;

/** Renders one recording's outcome. @param width - columns of the terminal */
export function renderVerified(result: RecordingResult, width: number, style: Style): string[] {
  const { compared, matched, waived } = result;
  const unwaived = compared - matched - waived;
  const verdict = compared === 0 ? "nothing to compare" : unwaived === 0 ? "verified" : "DIVERGES";
  const lines = [style("title", `${result.file}  ${result.kind}: ${verdict}`)];
  for (const fact of factsOf(result, unwaived)) lines.push(...wrap(fact, width, "  ", "  "));
  for (const { name, rows } of result.waivers) {
    const clause = name === "" ? undefined : waiverOf(name)?.clause;
    const text = `${countText(rows)} waived by ${name}${clause === undefined ? "" : `: ${clause}`}`;
    lines.push(...wrap(text, width, "  ", "    "));
  }
  const shown = result.divergences.filter(({ waivedBy }) => waivedBy === null);
  for (const divergence of shown.slice(0, PRINTED_MAX)) {
    lines.push(...wrap(divergenceText(result.file, divergence), width, "  ", "    "));
  }
  const more = unwaived - Math.min(unwaived, PRINTED_MAX);
  if (more > 0) {
    lines.push(style("quiet", `  ${countText(more)} more divergences; --json lists them`));
  }
  return lines;
}

function factsOf(result: RecordingResult, unwaived: number): string[] {
  const { compared, matched, waived, moves, flushesInferred } = result;
  const facts: string[] = [];
  // Rounded down, so that 100 % means every row.
  const percent = (Math.floor((10_000 * matched) / compared) / 100).toFixed(2);
  const share = compared === 0 ? "" : ` (${percent} %)`;
  facts.push(
    `${countText(compared)} rows compared: ${countText(matched)} match${share}, ` +
      `${countText(waived)} waived, ${countText(unwaived)} diverge`,
  );
  if (moves !== undefined || flushesInferred !== undefined) {
    facts.push(
      `schedule inferred: ${countText(moves ?? 0)} allocations moved before their event, ` +
        `${countText(flushesInferred ?? 0)} flushes`,
    );
  }
  if (result.inferredBefore > 0) {
    facts.push(`${countText(result.inferredBefore)} mappings from before the recording inferred`);
  }
  if (result.lostMarkers > 0) {
    const many = result.lostEvents > 0 ? `${countText(result.lostEvents)} events` : "events";
    facts.push(`LOST: the recording says that ${many} are missing`);
  }
  return facts;
}

function divergenceText(file: string, divergence: Divergence): string {
  const { line, expected, got, what } = divergence;
  const about = what === undefined ? "" : `${what}: `;
  return `${file}:${line}: ${about}expected ${expected}, got ${got}`;
}
