/**
 * One NUMA node's page frames: their contents and a buddy allocator over them.
 *
 * Frames lie in chunks that are made on demand and never move, so that a node of any size costs
 * only what is used: 4096 frames (16 MiB), then as much again as there is, and from 65 536 frames
 * (256 MiB) on, that many each. A block of 2^order frames is aligned to its own size and never
 * leaves a chunk. Inside, a frame is an offset from the node's first frame, below 2^31.
 *
 * Source of the method: D. Knuth, The Art of Computer Programming, vol. 1, 2.5, "buddy system".
 */
import { assert } from "../errors.ts";

/** log2 of the frames in the largest block: 1 MiB, the largest page-table root there is. */
export const BLOCK_ORDER_MAX = 8;
/** 32-bit words in a frame. */
export const FRAME_WORDS = 1024;

const BLOCK_FRAMES_MAX = 1 << BLOCK_ORDER_MAX;
const CHUNK_ORDER_MIN = 12;
const CHUNK_ORDER_MAX = 16;
const CHUNK_FRAMES_MIN = 1 << CHUNK_ORDER_MIN;
const CHUNK_FRAMES_MAX = 1 << CHUNK_ORDER_MAX;
const FRAMES_MAX = 2 ** 31 - CHUNK_FRAMES_MAX;
const NONE = -1;
/** State of a frame that is not the first of a block. */
const INSIDE = 0;
const FREE = 0x10;
const USED = 0x20;
const ORDER = 0x0f;

/** Position of the chunk that holds the frame at an offset. */
export function chunkIndexOf(offset: number): number {
  if (offset < CHUNK_FRAMES_MAX) return 32 - Math.clz32(offset >>> CHUNK_ORDER_MIN);
  return CHUNK_ORDER_MAX - CHUNK_ORDER_MIN + (offset >>> CHUNK_ORDER_MAX);
}

/** Offset of the first frame of a chunk. */
export function chunkStartOf(chunkIndex: number): number {
  const doublings = CHUNK_ORDER_MAX - CHUNK_ORDER_MIN;
  if (chunkIndex > doublings) return (chunkIndex - doublings) * CHUNK_FRAMES_MAX;
  return chunkIndex === 0 ? 0 : CHUNK_FRAMES_MIN << (chunkIndex - 1);
}

/** The frames of one node. */
export class NodeFrames {
  readonly node: number;
  readonly basePfn: number;
  readonly frameCount: number;
  /** Contents as 32-bit words; see {@link chunkIndexOf}. */
  readonly chunks: Uint32Array[] = [];
  usedFrames = 0;
  peakFrames = 0;
  readonly #heads = new Int32Array(BLOCK_ORDER_MAX + 1).fill(NONE);
  #next = new Int32Array(0);
  #previous = new Int32Array(0);
  #state = new Uint8Array(0);

  /**
   * @param node - number of the NUMA node
   * @param basePfn - its first frame, a multiple of 256
   * @param frameCount - how many frames it has, 1 … 2^31 − 65 536
   */
  constructor(node: number, basePfn: number, frameCount: number) {
    assert(basePfn % BLOCK_FRAMES_MAX === 0, "a node starts at a multiple of 1 MiB");
    assert(frameCount >= 1 && frameCount <= FRAMES_MAX, "a node has 1 … 2^31 - 65536 frames");
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
      this.#link(offset + (1 << from), from);
    }
    this.#state[offset] = USED | order;
    const frames = 1 << order;
    const chunkIndex = chunkIndexOf(offset);
    const start = (offset - chunkStartOf(chunkIndex)) * FRAME_WORDS;
    this.chunks[chunkIndex]!.fill(0, start, start + frames * FRAME_WORDS);
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
    const frames = 1 << order;
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
    const start = chunkStartOf(this.chunks.length);
    const end = Math.min(chunkStartOf(this.chunks.length + 1), this.frameCount);
    if (start >= end) return false;
    this.chunks.push(new Uint32Array((end - start) * FRAME_WORDS));
    this.#growState(end);
    // What is not a whole block at the end is cut into the powers of two it is made of. The block
    // linked last is taken first: the lowest.
    const wholeEnd = end - (end % BLOCK_FRAMES_MAX);
    let offset = wholeEnd;
    for (let order = BLOCK_ORDER_MAX - 1; order >= 0; order -= 1) {
      if (((end - wholeEnd) & (1 << order)) === 0) continue;
      this.#link(offset, order);
      offset += 1 << order;
    }
    for (let block = wholeEnd - BLOCK_FRAMES_MAX; block >= start; block -= BLOCK_FRAMES_MAX) {
      this.#link(block, BLOCK_ORDER_MAX);
    }
    return true;
  }

  #growState(length: number): void {
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
