/** Writes timelines of runs for ui.perfetto.dev. */
import { writeFileSync } from "node:fs";
import { StackError } from "../errors.ts";
import type { Slice } from "../sim/workload/slices.ts";

/** A run and who held what in it. */
export interface Timeline {
  readonly name: string;
  readonly slices: readonly Slice[];
}

/** Writes them. @throws StackError `cli/unwritable` */
export async function writeTimeline(path: string, timelines: readonly Timeline[]): Promise<void> {
  const { perfettoTrace } = await import("../report/perfetto.ts");
  try {
    writeFileSync(path, perfettoTrace(timelines));
  } catch (cause) {
    throw new StackError({
      code: "cli/unwritable",
      kind: "input",
      message: `the timeline cannot be written (${(cause as NodeJS.ErrnoException).code})`,
      at: { file: path },
      cause,
    });
  }
}
