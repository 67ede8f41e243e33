/** What `verify` says about recordings: plain data, the shape that `--json` prints. */

/** Divergences of a recording that are listed; the rest is only counted. */
export const DIVERGENCES_LISTED_MAX = 10_000;

/** One row of a recording for which our stack gives something else. */
export interface Divergence {
  /** Line of the recording, from 1. */
  readonly line: number;
  /** What the recorded system did. */
  readonly expected: string;
  /** What our stack does. */
  readonly got: string;
  /** Name of the waiver that covers it, names joined by `+` when it takes several, else `null`. */
  readonly waivedBy: string | null;
  /** What the row is about, where the two texts do not say it: the request, for instance. */
  readonly what?: string;
}

/** How often a waiver was needed. */
export interface WaiverUse {
  readonly name: string;
  readonly rows: number;
}

/** One recording's outcome: `compared` = `matched` + `waived` + unwaived divergences. */
export interface RecordingResult {
  readonly file: string;
  readonly kind: string;
  readonly compared: number;
  readonly matched: number;
  readonly waived: number;
  /** Boot traces: allocations that the inferred schedule makes earlier than their event. */
  readonly moves?: number;
  /** Boot traces: flushes of the lazy queue that the inferred schedule contains. */
  readonly flushesInferred?: number;
  /** Mappings from before the recording started, known only by their use or their unmap. */
  readonly inferredBefore: number;
  /** Events that the recording itself says it lost. */
  readonly lostEvents: number;
  readonly lostMarkers: number;
  readonly waivers: readonly WaiverUse[];
  /** The first divergences, unwaived and waived, by line. */
  readonly divergences: readonly Divergence[];
  /** Divergences that are counted but not listed. */
  readonly divergencesOmitted: number;
}

/** Something worth knowing that is not a row. */
export interface Diagnostic {
  readonly severity: "error" | "warning" | "note";
  /** Public interface: `recording/torn-lines` and the like. */
  readonly code: string;
  readonly message: string;
  readonly file: string;
  readonly line?: number;
  readonly offset?: number;
  readonly hint?: string;
}

/** The document that `verify --json` prints. */
export interface VerifyDocument {
  readonly schema: "iommukit/verify@1";
  readonly result: { readonly recordings: readonly RecordingResult[] };
  readonly diagnostics: readonly Diagnostic[];
}

/** Expected, got, and optionally what the row is about. */
export type RowText = readonly [expected: string, got: string, what?: string];

/** Collects rows: counts all, lists the first of each sort up to the bound. */
export class RowTally {
  compared = 0;
  matched = 0;
  waived = 0;
  readonly #unwaived: Divergence[] = [];
  readonly #waived: Divergence[] = [];
  readonly #waivers = new Map<string, number>();

  /** A row that agrees. */
  match(): void {
    this.compared += 1;
    this.matched += 1;
  }

  /** So many rows that agree. */
  matchMany(count: number): void {
    this.compared += count;
    this.matched += count;
  }

  /**
   * A row that does not.
   *
   * @param waivedBy - names of the waivers that explain it, `null` when none does
   * @param text - expected, got, and what the row is about; only called while the list has room
   */
  diverge(line: number, waivedBy: readonly string[] | null, text: () => RowText): void {
    this.compared += 1;
    if (waivedBy !== null) this.#count(1, waivedBy);
    const list = waivedBy === null ? this.#unwaived : this.#waived;
    if (list.length >= DIVERGENCES_LISTED_MAX) return;
    const [expected, got, what] = text();
    const name = waivedBy === null ? null : waivedBy.join("+");
    list.push({ line, expected, got, waivedBy: name, ...(what === undefined ? {} : { what }) });
  }

  /** So many rows that do not, and are not listed. */
  divergeMany(count: number, waivedBy: readonly string[] | null): void {
    this.compared += count;
    if (waivedBy !== null && count > 0) this.#count(count, waivedBy);
  }

  #count(rows: number, waivedBy: readonly string[]): void {
    this.waived += rows;
    for (const name of waivedBy) this.#waivers.set(name, (this.#waivers.get(name) ?? 0) + rows);
  }

  /** Rows that neither match nor are waived. */
  get unwaived(): number {
    return this.compared - this.matched - this.waived;
  }

  get waivers(): WaiverUse[] {
    return [...this.#waivers]
      .map(([name, rows]) => ({ name, rows }))
      .sort((a, b) => b.rows - a.rows || (a.name < b.name ? -1 : 1));
  }

  /** The listed divergences by line: unwaived ones first take the room. */
  get divergences(): Divergence[] {
    const room = Math.max(0, DIVERGENCES_LISTED_MAX - this.#unwaived.length);
    return [...this.#unwaived, ...this.#waived.slice(0, room)].sort((a, b) => a.line - b.line);
  }
}
