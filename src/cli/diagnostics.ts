/** Remarks on a recording as lines on standard error. */
import { positionText } from "../errors.ts";
import type { Terminal } from "./terminal.ts";

/** One remark, of whatever verb. */
export interface Remark {
  readonly severity: "error" | "warning" | "note";
  readonly message: string;
  readonly file: string;
  readonly line: number | null;
}

/** Writes `file:line: severity: message` for each remark. */
export function noteDiagnostics(remarks: readonly Remark[], terminal: Terminal): void {
  for (const { severity, message, file, line } of remarks) {
    const where = positionText(line === null ? { file } : { file, line });
    terminal.note(`${where}: ${severity}: ${message}`);
  }
}
