/** What every verifier of a kind of recording is: bytes in, rows out. */
import type { Diagnostic, RowTally } from "./result.ts";

/** The outcome of one recording, before it is put into a document. */
export interface CheckOutcome {
  readonly tally: RowTally;
  readonly moves?: number;
  readonly flushesInferred?: number;
  readonly inferredBefore: number;
  readonly lostEvents: number;
  readonly lostMarkers: number;
  readonly diagnostics: readonly Diagnostic[];
}

/** Verifies one recording; call `push` for each chunk and `end` once. */
export interface Checker {
  push(chunk: Uint8Array): void;
  /** Lines read so far. */
  readonly lines: number;
  end(): CheckOutcome;
}
