/**
 * Buckets of latencies: four to each power of two of a quarter microsecond, so that a percentile is
 * right to a fifth, from 0.25 µs to nine minutes.
 */

/** How many buckets there are. */
export const BUCKET_COUNT = 120;
const VALUE_MAX = 2 ** 31 - 1;

/** The bucket of a latency in microseconds; 0 for what is negative or no number. */
export function bucketOf(microseconds: number): number {
  const value = Math.min(microseconds * 4, VALUE_MAX) | 0;
  if (value < 4) return Math.max(value, 0);
  const exponent = 31 - Math.clz32(value);
  return (exponent - 1) * 4 + ((value >>> (exponent - 2)) & 3);
}

/** First latency, in microseconds, that is above the bucket. */
export function bucketEnd(bucket: number): number {
  if (bucket < 4) return (bucket + 1) / 4;
  const exponent = (bucket >> 2) + 1;
  return ((4 + (bucket & 3) + 1) * 2 ** (exponent - 2)) / 4;
}
