/** Who held what when: the slices of a bounded window of a run, for a timeline. */

/** Slices that are kept. */
export const SLICES_MAX = 20_000;

/** A stretch in which a track was busy; picoseconds. */
export interface Slice {
  readonly track: string;
  readonly name: string;
  readonly start: number;
  readonly end: number;
}

/** Keeps the slices that begin in a window, up to {@link SLICES_MAX}. */
export class SliceRecorder {
  readonly slices: Slice[] = [];
  readonly #from: number;
  readonly #until: number;

  /** @param from - picoseconds; `until` likewise */
  constructor(from: number, until: number) {
    this.#from = from;
    this.#until = until;
  }

  /** Notes a slice if it begins in the window. */
  add(track: string, name: string, start: number, end: number): void {
    if (start < this.#from || start >= this.#until) return;
    if (this.slices.length < SLICES_MAX) this.slices.push({ track, name, start, end });
  }
}
