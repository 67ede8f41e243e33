/** Turns whatever was thrown into a message for a person and an exit status. */
import { AssertionError, positionText, StackError } from "../errors.ts";
import type { Terminal } from "./terminal.ts";

/** Exit status: done, the answer is "no", bad input or usage, a mistake of this program. */
export const Exit = { DONE: 0, NO: 1, BAD_INPUT: 2, INTERNAL: 3 } as const;
export type Exit = (typeof Exit)[keyof typeof Exit];

/**
 * Says what went wrong on standard error.
 *
 * @param isDebug - whether a stack trace is wanted
 * @returns the exit status
 */
export function reportProblem(thrown: unknown, terminal: Terminal, isDebug: boolean): Exit {
  if (isDebug && thrown instanceof Error && thrown.stack !== undefined) terminal.note(thrown.stack);
  if (thrown instanceof StackError) {
    const where = thrown.at === undefined ? "iommukit" : positionText(thrown.at);
    terminal.note(`${where}: ${thrown.message}`);
    if (thrown.hint !== undefined) terminal.note(`  hint: ${thrown.hint}`);
    return thrown.kind === "internal" ? Exit.INTERNAL : Exit.BAD_INPUT;
  }
  const what = thrown instanceof Error ? thrown.message : String(thrown);
  const kind = thrown instanceof AssertionError ? "assertion failed: " : "";
  terminal.note(`iommukit: internal error: ${kind}${what}`);
  terminal.note("  hint: this is a mistake of iommukit; IOMMUKIT_DEBUG=1 shows where it happened");
  return Exit.INTERNAL;
}
