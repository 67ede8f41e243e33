/** The verb `reproduce`: published tables beside ours, row by row. */
import { renderReproduced } from "../report/reproduce-text.ts";
import { reproductionsNamed } from "../sim/reproduce/catalog.ts";
import type { ReproducedTable } from "../sim/reproduce/table.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface ReproduceFlags {
  readonly json: boolean;
}

/** The document that `reproduce --json` prints. */
export interface ReproduceDocument {
  readonly schema: "iommukit/reproduce@1";
  readonly result: { readonly tables: readonly ReproducedTable[] };
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
  const tables = reproductionsNamed(names).map(({ id, title, source, run }): ReproducedTable => {
    return { id, title, source, rows: run((what) => terminal.progress(what, null)) };
  });
  if (flags.json) {
    const document: ReproduceDocument = { schema: "iommukit/reproduce@1", result: { tables } };
    terminal.print(`${JSON.stringify(document, null, 2)}\n`);
  } else {
    const texts = tables.map((table) => renderReproduced(table, terminal.width, terminal.style));
    terminal.print(`${texts.map((lines) => lines.join("\n")).join("\n\n")}\n`);
  }
  return tables.every(({ rows }) => rows.every(({ met }) => met)) ? Exit.DONE : Exit.NO;
}
