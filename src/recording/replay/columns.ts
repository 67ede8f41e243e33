/** Growing columns of numbers. */

/** A copy of twice the length. */
export function doubled(column: Float64Array): Float64Array<ArrayBuffer> {
  const next = new Float64Array(column.length * 2);
  next.set(column);
  return next;
}
