/**
 * When a run has settled, and how sure its mean is: MSER-5 finds where the warm-up ends, batch
 * means give the confidence interval of what is left.
 *
 * Source: K. P. White, "An effective truncation heuristic for bias reduction in simulation output",
 * Simulation 69 (1997); K. P. White, M. J. Cobb, S. C. Spratt (2000) for batches of five;
 * G. S. Fishman, "Discrete-Event Simulation" (2001), 6 for batch means; Student's t by the
 * expansion of G. W. Hill, Communications of the ACM 13 (1970), algorithm 396.
 */
import { assert } from "../errors.ts";

const MSER_BATCH = 5;
/** Batches into which the settled part is cut for the confidence interval. */
const MEAN_BATCHES = 20;
const OBSERVATIONS_MIN = MEAN_BATCHES * MSER_BATCH;
/** A difference between the halves of a series that nobody would act upon, relative to the mean. */
const DRIFT_NEGLIGIBLE = 0.002;

/** What a series of observations says about its long-run mean. */
export type SteadyState =
  | {
      readonly kind: "steady";
      readonly mean: number;
      /** Half the width of the 95 % confidence interval of the mean. */
      readonly halfWidth95: number;
      /** Observations left out at the start. */
      readonly warmUp: number;
      readonly observations: number;
    }
  | {
      readonly kind: "unsettled";
      /** Why no mean is given. */
      readonly reason: "too-short" | "still-moving" | "too-noisy";
      readonly observations: number;
    };

/**
 * Judges a series of observations made at equal intervals, for instance operations completed in
 * each millisecond.
 *
 * @returns `too-short` below 100 observations; `still-moving` when what is left after the warm-up,
 *   half of the series at least, drifts by more than 0.2 % and than its own noise allows
 */
export function steadyState(series: ArrayLike<number>): SteadyState {
  const observations = series.length;
  if (observations < OBSERVATIONS_MIN) {
    return { kind: "unsettled", reason: "too-short", observations };
  }
  const batches = batchMeans(series, 0, MSER_BATCH);
  const warmUp = truncation(batches) * MSER_BATCH;
  const size = Math.floor((observations - warmUp) / MEAN_BATCHES);
  const means = batchMeans(series, observations - size * MEAN_BATCHES, size);
  const mean = average(means);
  const halfWidth95 =
    studentT975(MEAN_BATCHES - 1) * Math.sqrt(variance(means, mean) / MEAN_BATCHES);
  if (isDrifting(means, mean)) return { kind: "unsettled", reason: "still-moving", observations };
  return { kind: "steady", mean, halfWidth95, warmUp, observations };
}

/**
 * The number of batches to leave out, at most half of them: where the standard error of the rest is
 * least.
 */
function truncation(batches: Float64Array): number {
  let sum = 0;
  let squares = 0;
  let best = 0;
  let bestError = Number.POSITIVE_INFINITY;
  const center = average(batches);
  for (let from = batches.length - 1; from >= 0; from -= 1) {
    const value = batches[from]! - center;
    sum += value;
    squares += value * value;
    const count = batches.length - from;
    if (from * 2 > batches.length) continue;
    const error = (squares - (sum * sum) / count) / (count * count);
    if (error <= bestError) {
      bestError = error;
      best = from;
    }
  }
  return best;
}

/** Whether the halves differ by more than three standard errors. */
function isDrifting(means: Float64Array, mean: number): boolean {
  const half = means.length / 2;
  const first = means.subarray(0, half);
  const second = means.subarray(half);
  const firstMean = average(first);
  const secondMean = average(second);
  const spread = variance(first, firstMean) / half + variance(second, secondMean) / half;
  const noise = Math.max(3 * Math.sqrt(spread), DRIFT_NEGLIGIBLE * Math.abs(mean));
  return Math.abs(firstMean - secondMean) > noise;
}

function batchMeans(series: ArrayLike<number>, from: number, size: number): Float64Array {
  const count = Math.floor((series.length - from) / size);
  const means = new Float64Array(count);
  for (let batch = 0; batch < count; batch += 1) {
    let sum = 0;
    for (let index = 0; index < size; index += 1) sum += series[from + batch * size + index]!;
    means[batch] = sum / size;
  }
  return means;
}

function average(values: Float64Array): number {
  let sum = 0;
  for (const value of values) sum += value;
  return sum / values.length;
}

function variance(values: Float64Array, mean: number): number {
  let sum = 0;
  for (const value of values) sum += (value - mean) ** 2;
  return sum / (values.length - 1);
}

/** The 97.5 % point of Student's t distribution, by the Cornish-Fisher expansion in 1/n. */
export function studentT975(freedom: number): number {
  assert(freedom >= 5, "the expansion holds from 5 degrees of freedom on");
  const z = 1.959963984540054;
  const g1 = (z ** 3 + z) / 4;
  const g2 = (5 * z ** 5 + 16 * z ** 3 + 3 * z) / 96;
  const g3 = (3 * z ** 7 + 19 * z ** 5 + 17 * z ** 3 - 15 * z) / 384;
  return z + g1 / freedom + g2 / freedom ** 2 + g3 / freedom ** 3;
}
