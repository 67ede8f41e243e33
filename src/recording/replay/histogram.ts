/** Exact counts of small whole numbers, such as the requests that one sync waited for. */

const VALUE_MAX = 65_536;

/** Counts values 0 … 65 536; larger ones count as 65 536. */
export class SmallHistogram {
  #counts = new Float64Array(64);
  #total = 0;
  #sum = 0;
  #max = 0;

  add(value: number): void {
    const place = Math.min(value, VALUE_MAX);
    if (place >= this.#counts.length) this.#grow(place);
    this.#counts[place]! += 1;
    this.#total += 1;
    this.#sum += value;
    if (value > this.#max) this.#max = value;
  }

  /** How many values were counted. */
  get total(): number {
    return this.#total;
  }

  get sum(): number {
    return this.#sum;
  }

  /** The largest value, `null` when there is none. */
  get max(): number | null {
    return this.#total === 0 ? null : this.#max;
  }

  /** The mean, `null` when there is no value. */
  get mean(): number | null {
    return this.#total === 0 ? null : this.#sum / this.#total;
  }

  /** The smallest value that at least `percent` % of all values do not exceed. */
  percentile(percent: number): number | null {
    if (this.#total === 0) return null;
    const wanted = Math.max(1, Math.ceil((this.#total * percent) / 100));
    let seen = 0;
    for (let value = 0; value < this.#counts.length; value += 1) {
      seen += this.#counts[value]!;
      if (seen >= wanted) return value;
    }
    return this.#max;
  }

  #grow(place: number): void {
    const counts = new Float64Array(Math.min(VALUE_MAX + 1, Math.max(place + 1, place * 2)));
    counts.set(this.#counts);
    this.#counts = counts;
  }
}
