/**
 * A published table beside ours: which rows were used to set a machine's prices, which are
 * predictions, how far off each is, and how far off it may be.
 */

/** How an error is measured. */
export type ErrorKind =
  /** Difference of two percentages, in percentage points. */
  | "points"
  /** Difference as a share of the published value. */
  | "relative";

/** A row of a published table. */
export interface PublishedRow {
  readonly name: string;
  readonly unit: string;
  readonly published: number;
  readonly role: "fitted" | "predicted";
  readonly errorKind: ErrorKind;
  /** The largest error that counts as reproduced; null for a row that was fitted. */
  readonly target: number | null;
}

/** A row with our value. Plain data, as `reproduce --json` prints it. */
export interface ReproducedRow extends PublishedRow {
  /** Null when our run did not settle. */
  readonly ours: number | null;
  readonly error: number | null;
  /** Whether the target is met; a fitted row has none to meet. */
  readonly met: boolean;
  /** Set when it is no published cell, but says something of all of them. */
  readonly isSummary?: true;
}

/** A published table reproduced. */
export interface ReproducedTable {
  readonly id: string;
  readonly title: string;
  /** Where it was published. */
  readonly source: string;
  /** One for each published cell. */
  readonly rows: readonly ReproducedRow[];
  /** What is asked of all of them together; empty where each has a target of its own. */
  readonly summary: readonly ReproducedRow[];
}

/** One published table and the runs that give ours. */
export interface Reproduction {
  readonly id: string;
  readonly title: string;
  readonly source: string;
  /** @param progress - told what is run next */
  run(progress: (what: string) => void): ReproducedRow[];
}

/** Runs what gives a table. */
export function reproduce(of: Reproduction, progress: (what: string) => void): ReproducedTable {
  const all = of.run(progress);
  return {
    id: of.id,
    title: of.title,
    source: of.source,
    rows: all.filter(({ isSummary }) => isSummary !== true),
    summary: all.filter(({ isSummary }) => isSummary === true),
  };
}

/** Puts our value beside the published one. */
export function compareRow(row: PublishedRow, ours: number | null): ReproducedRow {
  if (ours === null || !Number.isFinite(ours))
    return { ...row, ours: null, error: null, met: false };
  const difference = ours - row.published;
  const error = row.errorKind === "points" ? difference : difference / row.published;
  return { ...row, ours, error, met: row.target === null || Math.abs(error) <= row.target };
}
