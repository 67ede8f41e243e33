/** The verb `replay`: one recording under several policies, side by side. */

import type { Policy } from "../dma/policy.ts";
import { policies as allPolicies } from "../dma/policy.ts";
import { StackError } from "../errors.ts";
import { openFile } from "../recording/node/file-source.ts";
import { type ReplayOutcome, replayRecording } from "../recording/replay/replay.ts";
import type { IommuKind } from "../recording/replay/result.ts";
import { countText } from "../report/column.ts";
import { replayCsv, replayJson } from "../report/replay-report.ts";
import { renderReplay } from "../report/replay-text.ts";
import { noteDiagnostics } from "./diagnostics.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface ReplayFlags {
  readonly policy?: readonly Policy[];
  readonly iommu: IommuKind;
  readonly fqSize?: number;
  readonly fqTimeout?: number;
  readonly json: boolean;
  readonly csv: boolean;
}

/**
 * Runs the verb. Nothing is printed unless every recording could be read.
 *
 * @returns `Exit.BAD_INPUT` when lines had to be left out, though the result is printed
 */
export async function replay(
  flags: ReplayFlags,
  files: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  if (flags.json && flags.csv) {
    throw new StackError({
      code: "usage/two-formats",
      kind: "usage",
      message: "--json and --csv exclude each other",
    });
  }
  const chosen = new Set(flags.policy ?? allPolicies);
  const options = {
    policies: allPolicies.filter((policy) => chosen.has(policy)),
    iommu: flags.iommu,
    ...(flags.fqSize === undefined ? {} : { flushQueueSlots: flags.fqSize }),
    ...(flags.fqTimeout === undefined ? {} : { flushTimeoutNs: flags.fqTimeout }),
  };
  const outcomes: ReplayOutcome[] = [];
  for (const file of files) {
    const name = file === "-" ? "(standard input)" : file;
    const progress = (events: number) =>
      terminal.progress(`${name}: ${countText(events)} events replayed`, null);
    outcomes.push(await replayRecording(name, openFile(file), options, progress));
  }
  const diagnostics = outcomes.flatMap((outcome) => outcome.diagnostics);
  noteDiagnostics(diagnostics, terminal);
  terminal.print(textOf(outcomes, flags, terminal));
  return diagnostics.some(({ severity }) => severity === "error") ? Exit.BAD_INPUT : Exit.DONE;
}

function textOf(
  outcomes: readonly ReplayOutcome[],
  flags: ReplayFlags,
  terminal: Terminal,
): string {
  if (flags.json) return `${JSON.stringify(replayJson(outcomes), null, 2)}\n`;
  const replays = outcomes.map((outcome) => outcome.replay);
  if (flags.csv) return replayCsv(replays);
  return replays
    .map((one) => `${renderReplay(one, terminal.width, terminal.style).join("\n")}\n`)
    .join("\n");
}
