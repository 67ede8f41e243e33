/**
 * One NUMA node's page frames: their contents and a buddy allocator over them.
 *
 * Frames lie in chunks of 256 (1 MiB) that are made on demand, so that a node of any size costs
 * only what is used. A block of 2^order frames is aligned to its own size and never leaves a chunk.
 * Inside, a frame is an offset from the node's first frame, below 2^31.
 *
 * Source of the method: D. Knuth, The Art of Computer Programming, vol. 1, 2.5, "buddy system".
 */
import { assert } from "../errors.ts";

/** log2 of the frames in the largest block: 1 MiB, the largest page-table root there is. */
export const BLOCK_ORDER_MAX = 8;
/** 32-bit words in a frame. */
export const FRAME_WORDS = 1024;

const CHUNK_FRAMES = 2 ** BLOCK_ORDER_MAX;
const FRAMES_MAX = 2 ** 31 - CHUNK_FRAMES;
const NONE = -1;
/** State of a frame that is not the first of a block. */
const INSIDE = 0;
const FREE = 0x10;
const USED = 0x20;
const ORDER = 0x0f;

/** The frames of one node. */
export class NodeFrames {
  readonly node: number;
  readonly basePfn: number;
  readonly frameCount: number;
  /** Contents, 256 frames each, as 32-bit words. */
  readonly chunks: Uint32Array[] = [];
  usedFrames = 0;
  peakFrames = 0;
  readonly #heads = new Int32Array(BLOCK_ORDER_MAX + 1).fill(NONE);
  #next = new Int32Array(CHUNK_FRAMES);
  #previous = new Int32Array(CHUNK_FRAMES);
  #state = new Uint8Array(CHUNK_FRAMES);

  /**
   * @param node - number of the NUMA node
   * @param basePfn - its first frame, a multiple of 256
   * @param frameCount - how many frames it has, 1 … 2^31 − 256
   */
  constructor(node: number, basePfn: number, frameCount: number) {
    assert(basePfn % CHUNK_FRAMES === 0, "a node starts at a multiple of 1 MiB");
    assert(frameCount >= 1 && frameCount <= FRAMES_MAX, "a node has 1 … 2^31 - 256 frames");
    this.node = node;
    this.basePfn = basePfn;
    this.frameCount = frameCount;
  }

  /** Takes a zeroed block of 2^order frames. @returns its first offset, or −1 when there is none */
  allocate(order: number): number {
    let from = order;
    while (from <= BLOCK_ORDER_MAX && this.#heads[from] === NONE) from += 1;
    if (from > BLOCK_ORDER_MAX) {
      if (!this.#grow()) return NONE;
      return this.allocate(order);
    }
    const offset = this.#heads[from]!;
    this.#unlink(offset, from);
    while (from > order) {
      from -= 1;
      this.#link(offset + 2 ** from, from);
    }
    this.#state[offset] = USED | order;
    const frames = 2 ** order;
    const start = (offset % CHUNK_FRAMES) * FRAME_WORDS;
    this.chunks[offset >> BLOCK_ORDER_MAX]!.fill(0, start, start + frames * FRAME_WORDS);
    this.usedFrames += frames;
    if (this.usedFrames > this.peakFrames) this.peakFrames = this.usedFrames;
    return offset;
  }

  /**
   * Gives a block back.
   *
   * @returns its frames
   * @throws AssertionError when no block starts there that is in use, as after a double free
   */
  free(offset: number): number {
    const state = this.#state[offset] ?? INSIDE;
    assert((state & USED) !== 0, "a block is freed once, by its first frame");
    let order = state & ORDER;
    const frames = 2 ** order;
    let first = offset;
    this.#state[first] = INSIDE;
    while (order < BLOCK_ORDER_MAX) {
      const buddy = first ^ (1 << order);
      if (this.#state[buddy] !== (FREE | order)) break;
      this.#unlink(buddy, order);
      this.#state[buddy] = INSIDE;
      first = Math.min(first, buddy);
      order += 1;
    }
    this.#link(first, order);
    this.usedFrames -= frames;
    return frames;
  }

  /** log2 of the frames of the block in use that starts at an offset; −1 when none does. */
  orderAt(offset: number): number {
    const state = this.#state[offset] ?? INSIDE;
    return (state & USED) === 0 ? NONE : state & ORDER;
  }

  #grow(): boolean {
    const start = this.chunks.length * CHUNK_FRAMES;
    const frames = Math.min(CHUNK_FRAMES, this.frameCount - start);
    if (frames <= 0) return false;
    this.chunks.push(new Uint32Array(frames * FRAME_WORDS));
    if (start + CHUNK_FRAMES > this.#state.length) this.#growState();
    // A last chunk that is not full is cut into the powers of two it is made of.
    let offset = start;
    for (let order = BLOCK_ORDER_MAX; order >= 0; order -= 1) {
      if ((frames & (1 << order)) === 0) continue;
      this.#link(offset, order);
      offset += 2 ** order;
    }
    return true;
  }

  #growState(): void {
    const length = this.#state.length * 2;
    const next = new Int32Array(length);
    const previous = new Int32Array(length);
    const state = new Uint8Array(length);
    next.set(this.#next);
    previous.set(this.#previous);
    state.set(this.#state);
    this.#next = next;
    this.#previous = previous;
    this.#state = state;
  }

  #link(offset: number, order: number): void {
    const head = this.#heads[order]!;
    this.#next[offset] = head;
    this.#previous[offset] = NONE;
    if (head !== NONE) this.#previous[head] = offset;
    this.#heads[order] = offset;
    this.#state[offset] = FREE | order;
  }

  #unlink(offset: number, order: number): void {
    const next = this.#next[offset]!;
    const previous = this.#previous[offset]!;
    if (previous === NONE) this.#heads[order] = next;
    else this.#next[previous] = next;
    if (next !== NONE) this.#previous[next] = previous;
  }
}
