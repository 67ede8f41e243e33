/** Remarks on a recording as lines on standard error. */
import { positionText } from "../errors.ts";
import type { Diagnostic } from "../recording/verify/result.ts";
import type { Terminal } from "./terminal.ts";

/** Writes `file:line: severity: message` for each remark. */
export function noteDiagnostics(remarks: readonly Diagnostic[], terminal: Terminal): void {
  for (const { severity, message, file, line, offset, hint } of remarks) {
    const where = positionText({
      file,
      ...(line === undefined ? {} : { line }),
      ...(offset === undefined ? {} : { offset }),
    });
    terminal.note(`${where}: ${severity}: ${message}`);
    if (hint !== undefined) terminal.note(`  hint: ${hint}`);
  }
}
