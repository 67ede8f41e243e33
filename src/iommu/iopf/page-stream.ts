/** What a device's DMA touches, page by page in order. */
import { assert } from "../../errors.ts";

/** A stretch of pages that a device reads or writes. */
export interface DmaSegment {
  readonly iovaPfn: number;
  readonly pages: number;
  /** Bits of `Prot`. */
  readonly access: number;
}

/** Segments one after the other, as a cursor over their pages. */
export class PageStream {
  readonly #segments: readonly DmaSegment[];
  #segment = 0;
  #page = 0;
  #left: number;

  constructor(segments: readonly DmaSegment[]) {
    for (const { pages } of segments) assert(pages >= 1, "a segment has a page");
    this.#segments = segments;
    this.#left = segments.reduce((sum, { pages }) => sum + pages, 0);
  }

  /** Pages not taken yet. */
  get left(): number {
    return this.#left;
  }

  /** The next page's frame. */
  get iovaPfn(): number {
    return this.#segments[this.#segment]!.iovaPfn + this.#page;
  }

  /** What the next page is accessed for. */
  get access(): number {
    return this.#segments[this.#segment]!.access;
  }

  /** Takes the next page. */
  advance(): void {
    assert(this.#left > 0, "there is a next page");
    this.#left -= 1;
    this.#page += 1;
    if (this.#page < this.#segments[this.#segment]!.pages) return;
    this.#segment += 1;
    this.#page = 0;
  }
}
