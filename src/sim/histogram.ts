/**
 * A histogram of whole numbers with log-linear buckets: exact below 64, above that 64 buckets for
 * each power of two, so that a percentile is at most 1.6 % too high. Two can be added up.
 *
 * The buckets are those of fio's completion-latency statistics (stat.h, FIO_IO_U_PLAT_BITS 6).
 */
import { assert } from "../errors.ts";

const BUCKETS_PER_OCTAVE = 64;
const EXACT_BITS = 6;
/** Values have up to 53 bits. */
const BUCKETS = (53 - EXACT_BITS + 1) * BUCKETS_PER_OCTAVE;

/** The bucket that a value, 0 … 2^53 − 1, falls into. */
export function bucketOf(value: number): number {
  if (value < BUCKETS_PER_OCTAVE) return value;
  const high = Math.floor(value / 2 ** 32);
  const top = high > 0 ? 63 - Math.clz32(high) : 31 - Math.clz32(value);
  const octave = top - EXACT_BITS + 1;
  const scaled = Math.floor(value / 2 ** (octave - 1));
  return octave * BUCKETS_PER_OCTAVE + scaled - BUCKETS_PER_OCTAVE;
}

/** The largest value of a bucket. */
export function bucketLast(bucket: number): number {
  if (bucket < BUCKETS_PER_OCTAVE) return bucket;
  const octave = Math.floor(bucket / BUCKETS_PER_OCTAVE);
  const scaled = (bucket % BUCKETS_PER_OCTAVE) + BUCKETS_PER_OCTAVE;
  return (scaled + 1) * 2 ** (octave - 1) - 1;
}

/** A histogram. */
export class Histogram {
  readonly #counts = new Float64Array(BUCKETS);
  #count = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = 0;

  /** Values added. */
  get count(): number {
    return this.#count;
  }

  /** Arithmetic mean, 0 when empty. */
  get mean(): number {
    return this.#count === 0 ? 0 : this.#sum / this.#count;
  }

  /** Smallest value, 0 when empty. */
  get min(): number {
    return this.#count === 0 ? 0 : this.#min;
  }

  get max(): number {
    return this.#max;
  }

  /** Adds a value, 0 … 2^53 − 1. */
  add(value: number): void {
    this.#counts[bucketOf(value)]! += 1;
    this.#count += 1;
    this.#sum += value;
    if (value < this.#min) this.#min = value;
    if (value > this.#max) this.#max = value;
  }

  /** Adds all values of another histogram. */
  merge(other: Histogram): void {
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      this.#counts[bucket]! += other.#counts[bucket]!;
    }
    this.#count += other.#count;
    this.#sum += other.#sum;
    this.#min = Math.min(this.#min, other.#min);
    this.#max = Math.max(this.#max, other.#max);
  }

  /**
   * The smallest bucket bound that at least a share of the values do not pass.
   *
   * @param share - 0 … 1
   * @returns 0 when empty; never more than the largest value
   */
  percentile(share: number): number {
    assert(share >= 0 && share <= 1, "a percentile lies between 0 and 1");
    if (this.#count === 0) return 0;
    const wanted = Math.max(1, Math.ceil(share * this.#count));
    let seen = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      seen += this.#counts[bucket]!;
      if (seen >= wanted) return Math.min(bucketLast(bucket), this.#max);
    }
    return this.#max;
  }

  /** Calls `visit` for every bucket in use with its largest value and count, ascending. */
  forEach(visit: (last: number, count: number) => void): void {
    for (let bucket = 0; bucket < BUCKETS; bucket += 1) {
      if (this.#counts[bucket]! > 0) visit(bucketLast(bucket), this.#counts[bucket]!);
    }
  }
}
