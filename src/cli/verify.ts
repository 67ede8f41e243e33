/** The verb `verify`: replays each recording against the stack and lists every divergence. */
import { verifyFiles } from "../recording/node/verify-files.ts";
import { verifyTrace } from "../recording/schedule/verify-trace.ts";
import { countText } from "../report/column.ts";
import { renderVerified } from "../report/verify-text.ts";
import { noteDiagnostics } from "./diagnostics.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface VerifyFlags {
  readonly json: boolean;
}

/**
 * Runs the verb: results by `terminal.print` in one piece, diagnostics by `terminal.note`.
 *
 * @param files - paths, or `-` for standard input
 * @returns `Exit.DONE` when every row matches or is waived, `Exit.BAD_INPUT` when a file is no
 *   recording or rows of it cannot be read, though the others are printed, else `Exit.NO`
 */
export async function verify(
  flags: VerifyFlags,
  files: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  const outcome = await verifyFiles(files, {
    schedule: verifyTrace,
    progress: (file, events) =>
      terminal.progress(`${file}: ${countText(events)} events verified`, null),
  });
  const { document } = outcome;
  noteDiagnostics(document.diagnostics, terminal);
  if (flags.json) {
    terminal.print(`${JSON.stringify(document, null, 2)}\n`);
  } else {
    const { recordings } = document.result;
    const texts = recordings.map((one) => renderVerified(one, terminal.width, terminal.style));
    if (texts.length > 0)
      terminal.print(`${texts.map((lines) => lines.join("\n")).join("\n\n")}\n`);
  }
  if (outcome.failure !== null) {
    return outcome.failure.kind === "internal" ? Exit.INTERNAL : Exit.BAD_INPUT;
  }
  const isPartial = document.diagnostics.some(({ severity }) => severity === "error");
  if (isPartial) return Exit.BAD_INPUT;
  return outcome.verified ? Exit.DONE : Exit.NO;
}
