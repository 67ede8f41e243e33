/** The verb `reproduce`: published tables beside ours, row by row. */

import { StackError } from "../errors.ts";
import { renderMissing, renderReproduced, renderTotal } from "../report/reproduce-text.ts";
import { reproductionsNamed } from "../sim/reproduce/catalog.ts";
import { type NotReproduced, notReproduced } from "../sim/reproduce/not-reproduced.ts";
import { type ReproducedTable, reproduce as run } from "../sim/reproduce/table.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface ReproduceFlags {
  readonly json: boolean;
  readonly html: boolean;
}

/** The document that `reproduce --json` prints. */
export interface ReproduceDocument {
  readonly schema: "iommukit/reproduce@1";
  readonly result: {
    readonly tables: readonly ReproducedTable[];
    /** What was published and is not here; empty when tables were asked for by name. */
    readonly notReproduced: readonly NotReproduced[];
  };
}

/**
 * Runs the verb.
 *
 * @param names - which tables, all when empty
 * @returns `Exit.NO` when a target is missed, else `Exit.DONE`
 */
export async function reproduce(
  flags: ReproduceFlags,
  names: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  if (flags.json && flags.html) {
    throw new StackError({
      code: "cli/usage",
      kind: "usage",
      message: "--json and --html exclude each other",
      hint: "`iommukit reproduce --help` shows what goes together",
    });
  }
  const progress = (what: string) => terminal.progress(what, null);
  const tables = reproductionsNamed(names).map((table) => run(table, progress));
  const missing = names.length === 0 ? notReproduced : [];
  terminal.print(await textOf(tables, missing, flags, terminal));
  const all = tables.flatMap(({ rows, summary }) => [...rows, ...summary]);
  return all.every(({ met }) => met) ? Exit.DONE : Exit.NO;
}

async function textOf(
  tables: readonly ReproducedTable[],
  missing: readonly NotReproduced[],
  flags: ReproduceFlags,
  { width, style }: Terminal,
): Promise<string> {
  if (flags.json) {
    const result = { tables, notReproduced: missing };
    const document: ReproduceDocument = { schema: "iommukit/reproduce@1", result };
    return `${JSON.stringify(document, null, 2)}\n`;
  }
  if (flags.html) {
    const { reproduceHtml } = await import("../report/reproduce-html.ts");
    return reproduceHtml(tables, missing);
  }
  const parts = tables.map((table) => renderReproduced(table, width, style));
  if (tables.length > 1) parts.push(renderTotal(tables));
  if (missing.length > 0) parts.push(renderMissing(missing, width));
  return `${parts.map((lines) => lines.join("\n")).join("\n\n")}\n`;
}
