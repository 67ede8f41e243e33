/**
 * The buffers of a simulated fio process: memory whose pages lie scattered, as those of a process
 * do, and are used again and again.
 */
import { ScatterList, type ScatterSegment } from "../../dma/scatterlist.ts";
import type { Random } from "../../random.ts";
import { PAGE_BYTES, pagesOf } from "../../units.ts";

/** How scattered the pages of a buffer are. */
export interface Scatter {
  /** In how many of a thousand places the next page lies elsewhere: 0 contiguous, 1000 never. */
  readonly breaksPerMille: number;
}

const PER_MILLE = 1000;
/** Buffers lie above 4 GiB of a guest's memory, apart from each other. */
const FIRST_PFN = 2 ** 20;

/**
 * Makes buffers, one after the other. Of every thousand places exactly as many are breaks as asked
 * for, at random positions, so that a few hundred buffers are as scattered as a million.
 */
export class BufferSource {
  readonly #random: Random;
  readonly #scatter: Scatter;
  #nextPfn = FIRST_PFN;
  #placesLeft = 0;
  #breaksLeft = 0;

  constructor(random: Random, scatter: Scatter) {
    this.#random = random;
    this.#scatter = scatter;
  }

  /** Frames of a new buffer, page by page. */
  frames(bytes: number): Float64Array {
    const frames = new Float64Array(pagesOf(bytes));
    for (let page = 0; page < frames.length; page += 1) {
      // A frame left out keeps neighbours apart.
      if (page === 0 || this.#isBreak()) this.#nextPfn += 1;
      frames[page] = this.#nextPfn;
      this.#nextPfn += 1;
    }
    return frames;
  }

  #isBreak(): boolean {
    if (this.#placesLeft === 0) {
      this.#placesLeft = PER_MILLE;
      this.#breaksLeft = this.#scatter.breaksPerMille;
    }
    const isBreak = this.#random.chance(this.#breaksLeft, this.#placesLeft);
    this.#placesLeft -= 1;
    if (isBreak) this.#breaksLeft -= 1;
    return isBreak;
  }
}

/** The first `bytes` of a buffer as the segments that the block layer makes of it. */
export function segmentsOf(frames: Float64Array, bytes: number): ScatterList {
  const segments: ScatterSegment[] = [];
  let left = bytes;
  for (let page = 0; left > 0; page += 1) {
    const pfn = frames[page]!;
    let length = Math.min(left, PAGE_BYTES);
    left -= length;
    while (left > 0 && frames[page + 1] === frames[page]! + 1) {
      const more = Math.min(left, PAGE_BYTES);
      length += more;
      left -= more;
      page += 1;
    }
    segments.push({ pfn, offset: 0, bytes: length });
  }
  return new ScatterList(segments);
}
