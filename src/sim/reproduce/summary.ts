/**
 * What is asked of a published table as a whole: the median error of the rows predicted, and that
 * any two rows lie in the published order.
 */
import { compareRow, type PublishedRow, type ReproducedRow } from "./table.ts";

/** A row that has no target of its own. */
export type TableRow = Pick<PublishedRow, "name" | "published" | "role">;

const MEDIAN_MAX = 15;

/**
 * Compares rows of one unit, and puts the median error and the pairs in another order behind them.
 *
 * @param scale - unit, and one of the last digit published: values so near may be equal
 * @param ours - what we got, by row; null for a run that did not settle
 */
export function compareTable(
  scale: { readonly unit: string; readonly resolution: number },
  rows: readonly TableRow[],
  ours: readonly (number | null)[],
): ReproducedRow[] {
  const { unit, resolution } = scale;
  const compared = rows.map((row, index) =>
    compareRow({ ...row, unit, errorKind: "relative", target: null }, ours[index] ?? null),
  );
  const predicted = compared.filter(({ role }) => role === "predicted");
  // What did not settle is as far off as can be.
  const errors = predicted.map(({ error }) => Math.abs(error ?? Number.MAX_VALUE));
  const summary = { published: 0, role: "predicted", errorKind: "points" } as const;
  const together = [
    compareRow(
      { ...summary, name: "median error of predictions", unit: "%", target: MEDIAN_MAX },
      100 * median(errors),
    ),
    compareRow(
      { ...summary, name: "pairs in another order", unit: "%", target: 0 },
      100 * shareDisordered(rows, ours, resolution),
    ),
  ];
  return [...compared, ...together.map((row) => ({ ...row, isSummary: true as const }))];
}

/** What did not settle lies in no order. */
function placeOf(ours: number | null | undefined): number {
  return ours ?? Number.NaN;
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const upper = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[upper]! : (sorted[upper - 1]! + sorted[upper]!) / 2;
}

/** Of the pairs whose published values differ, the share that ours has not in that order. */
function shareDisordered(
  rows: readonly TableRow[],
  ours: readonly (number | null)[],
  resolution: number,
): number {
  // What was rounded to neighbours may have been the same.
  const least = resolution * 1.5;
  let pairs = 0;
  let disordered = 0;
  for (let a = 0; a < rows.length; a += 1) {
    for (let b = 0; b < a; b += 1) {
      const difference = rows[a]!.published - rows[b]!.published;
      if (Math.abs(difference) < least) continue;
      const published = Math.sign(difference);
      pairs += 1;
      if (Math.sign(placeOf(ours[a]) - placeOf(ours[b])) !== published) disordered += 1;
    }
  }
  return pairs === 0 ? 0 : disordered / pairs;
}
