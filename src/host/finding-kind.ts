/** What one entry of the register of findings holds. */

/** `error`: something cannot work; `warning`: it costs or risks something; `note`: worth knowing. */
export type Severity = "error" | "warning" | "note";

/** One entry of the register. */
export interface FindingKind {
  readonly severity: Severity;
  /** What it is, in a few words. */
  readonly title: string;
  /** Why it is so, and what comes of it. */
  readonly cause: string;
  /** What to do. */
  readonly remedy: string;
}
