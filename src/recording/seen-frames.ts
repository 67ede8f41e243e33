/**
 * Which frames a recording has mapped or unmapped so far, to tell an unmap of something older than
 * the recording from one that makes no sense. Bounded: frames past the bound count as unseen.
 */

const CHUNK_FRAMES = 32_768;
const CHUNKS_MAX = 1024;

/** A set of frames that only grows. */
export class SeenFrames {
  readonly #chunks = new Map<number, Uint8Array>();
  #last: Uint8Array = new Uint8Array(0);
  #lastStart = -(2 ** 53);

  /** Adds a range of frames. */
  add(pfn: number, pages: number): void {
    const from = pfn - this.#lastStart;
    if (from >= 0 && from + pages <= CHUNK_FRAMES) {
      setBits(this.#last, from, from + pages);
      return;
    }
    const end = pfn + pages;
    for (let at = pfn; at < end; ) {
      const index = Math.floor(at / CHUNK_FRAMES);
      const chunkStart = index * CHUNK_FRAMES;
      const stop = Math.min(end, chunkStart + CHUNK_FRAMES);
      if (!this.#open(index)) return;
      setBits(this.#last, at - chunkStart, stop - chunkStart);
      at = stop;
    }
  }

  #open(index: number): boolean {
    let chunk = this.#chunks.get(index);
    if (chunk === undefined) {
      if (this.#chunks.size === CHUNKS_MAX) return false;
      chunk = new Uint8Array(CHUNK_FRAMES / 8);
      this.#chunks.set(index, chunk);
    }
    this.#last = chunk;
    this.#lastStart = index * CHUNK_FRAMES;
    return true;
  }

  /** Whether any frame of a range is in the set. */
  hasAny(pfn: number, pages: number): boolean {
    const end = pfn + pages;
    const chunks = Math.floor((end - 1) / CHUNK_FRAMES) - Math.floor(pfn / CHUNK_FRAMES) + 1;
    if (chunks > CHUNKS_MAX) {
      for (const [index, chunk] of this.#chunks) {
        const start = index * CHUNK_FRAMES;
        const from = Math.max(pfn, start);
        const to = Math.min(end, start + CHUNK_FRAMES);
        if (from < to && anyBit(chunk, from - start, to - start)) return true;
      }
      return false;
    }
    for (let at = pfn; at < end; ) {
      const index = Math.floor(at / CHUNK_FRAMES);
      const start = index * CHUNK_FRAMES;
      const stop = Math.min(end, start + CHUNK_FRAMES);
      const chunk = this.#chunks.get(index);
      if (chunk !== undefined && anyBit(chunk, at - start, stop - start)) return true;
      at = stop;
    }
    return false;
  }
}

function setBits(chunk: Uint8Array, from: number, to: number): void {
  let at = from;
  while (at < to) {
    if ((at & 7) !== 0 || to - at < 8) {
      chunk[at >> 3]! |= 1 << (at & 7);
      at += 1;
    } else if (to - at < 256) {
      chunk[at >> 3] = 0xff;
      at += 8;
    } else {
      const bytes = (to - at) >> 3;
      chunk.fill(0xff, at >> 3, (at >> 3) + bytes);
      at += bytes * 8;
    }
  }
}

function anyBit(chunk: Uint8Array, from: number, to: number): boolean {
  let at = from;
  while (at < to) {
    if ((at & 7) === 0 && to - at >= 8) {
      if (chunk[at >> 3] !== 0) return true;
      at += 8;
    } else {
      if ((chunk[at >> 3]! & (1 << (at & 7))) !== 0) return true;
      at += 1;
    }
  }
  return false;
}
