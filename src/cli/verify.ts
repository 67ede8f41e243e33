/** The verb `verify`: replays each recording against the stack and lists every divergence. */
import { StackError } from "../errors.ts";
import type { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface VerifyFlags {
  readonly json: boolean;
}

/**
 * Runs the verb: results by `terminal.print` in one piece, diagnostics by `terminal.note`.
 *
 * @param files - paths, or `-` for standard input
 * @returns `Exit.DONE` when every row matches or is waived, else `Exit.NO`
 */
export async function verify(
  _flags: VerifyFlags,
  files: readonly string[],
  _terminal: Terminal,
): Promise<Exit> {
  throw new StackError({
    code: "verify/not-built",
    kind: "internal",
    message: `verify cannot read ${files[0] ?? "-"} yet`,
  });
}
