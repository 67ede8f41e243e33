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
  /** Of tracks on which several things happen at once: when the last one of each lane ends. */
  readonly #lanes = new Map<string, number[]>();

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

  /** Notes a slice of a track where several overlap: it comes to the first lane that is free. */
  addBeside(track: string, name: string, start: number, end: number): void {
    if (start < this.#from || start >= this.#until) return;
    const lanes = this.#lanes.get(track) ?? [];
    this.#lanes.set(track, lanes);
    let lane = lanes.findIndex((until) => until <= start);
    if (lane < 0) lane = lanes.length;
    lanes[lane] = end;
    this.add(`${track} ${lane + 1}`, name, start, end);
  }
}
