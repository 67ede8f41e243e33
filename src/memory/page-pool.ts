/**
 * Page frames of several NUMA nodes, with real contents: where page tables live.
 *
 * Source: drivers/iommu/iommu-pages.c:iommu_alloc_pages_node_sz (zeroed, the node is a preference,
 * counted on the node that served).
 *
 * Frames lie side by side in chunks that never move. Whoever reads many of them keeps the chunk
 * that held the last one, and asks again when a frame lies outside:
 *
 *     pfn ──chunkAt──▶ words, firstPfn, frames, node
 *     first word of pfn = words[(pfn − firstPfn) · 1024]
 */
import { assert } from "../errors.ts";
import {
  BLOCK_ORDER_MAX,
  chunkIndexOf,
  chunkStartOf,
  FRAME_WORDS,
  NodeFrames,
} from "./node-frames.ts";

/** Frames side by side: 1024 words of `words` each, from `firstPfn` on, in the memory of `node`. */
export interface FrameChunk {
  words: Uint32Array;
  firstPfn: number;
  frames: number;
  node: number;
}

/** Memory that a page-table walker can read: a pool, a dump, somebody else's tables. */
export interface FrameMemory {
  /**
   * Finds the chunk that a frame lies in. The words of a chunk stay where they are.
   *
   * @param out - receives the chunk; unchanged when there is none
   * @returns false when no memory is behind the frame number
   */
  chunkAt(pfn: number, out: FrameChunk): boolean;
}

/** Where one frame's contents lie: 1024 words of `words`, from `index` on. */
export interface FrameLocation {
  words: Uint32Array;
  index: number;
  node: number;
}

/** A chunk record without frames, to be filled by {@link FrameMemory.chunkAt}. */
export function createChunk(): FrameChunk {
  return {
    words: new Uint32Array(0),
    firstPfn: 0,
    frames: 0,
    node: 0,
  };
}

/** A location record, to be filled by {@link PagePool.locate}. */
export function createLocation(): FrameLocation {
  return { words: new Uint32Array(0), index: 0, node: 0 };
}

/** What one NUMA node has to offer. */
export interface NodeMemory {
  /** Number of the node, small and unique. */
  readonly node: number;
  /** First frame, a multiple of 256 (1 MiB). */
  readonly basePfn: number;
  readonly frameCount: number;
}

const NODES_MAX = 1024;

/** Allocator of page frames over NUMA nodes. */
export class PagePool implements FrameMemory {
  /** Node of the CPU that allocates, for callers that have no preference. */
  cpuNode: number;
  readonly #nodes: readonly NodeFrames[];
  readonly #fallbacks: readonly NodeFrames[][];
  #recent: NodeFrames;
  #allocationsLeft = Number.POSITIVE_INFINITY;
  #failuresLeft = 0;
  #injectedFailures = 0;
  #peakFrames = 0;

  /**
   * @param nodes - at least one; frame ranges must not overlap
   * @param distances - `distances[a][b]` as in a SLIT, by position in `nodes`; orders the
   *   fallback. Without it, nodes are tried in the order given
   */
  constructor(nodes: readonly NodeMemory[], distances?: readonly (readonly number[])[]) {
    assert(nodes.length >= 1 && nodes.length <= NODES_MAX, "a pool has 1 … 1024 nodes");
    assert(new Set(nodes.map((node) => node.node)).size === nodes.length, "node numbers differ");
    const byBase = [...nodes].sort((a, b) => a.basePfn - b.basePfn);
    for (let index = 1; index < byBase.length; index += 1) {
      const below = byBase[index - 1]!;
      assert(below.basePfn + below.frameCount <= byBase[index]!.basePfn, "nodes do not overlap");
    }
    this.#nodes = nodes.map((node) => new NodeFrames(node.node, node.basePfn, node.frameCount));
    this.#fallbacks = this.#nodes.map((_, own) => {
      const distance = (index: number) =>
        index === own ? -1 : (distances?.[own]?.[index] ?? index);
      const order = nodes.map((_, index) => index).sort((a, b) => distance(a) - distance(b));
      return order.map((index) => this.#nodes[index]!);
    });
    this.#recent = this.#nodes[0]!;
    this.cpuNode = this.#recent.node;
  }

  /**
   * Takes 2^order zeroed frames, aligned to their size, from a node or else from its fallbacks.
   *
   * @param node - preferred node; −1 means that of the CPU, one that the pool lacks the first
   * @param order - 0 … 8
   * @returns the first frame's number, or −1 when no node has room
   */
  allocate(node: number, order = 0): number {
    assert(order >= 0 && order <= BLOCK_ORDER_MAX, "a block has 1 … 256 frames");
    if (this.#fails()) return -1;
    for (const frames of this.#fallbacks[this.#position(node)]!) {
      const offset = frames.allocate(order);
      if (offset < 0) continue;
      const used = this.usedFrames;
      if (used > this.#peakFrames) this.#peakFrames = used;
      return frames.basePfn + offset;
    }
    return -1;
  }

  /**
   * Gives a block back by its first frame.
   *
   * @returns how many frames it had
   * @throws AssertionError when the frame is not the first of a block in use (double free)
   */
  free(pfn: number): number {
    const frames = this.#find(pfn);
    assert(frames !== null, "a freed frame belongs to a node");
    return frames.free(pfn - frames.basePfn);
  }

  /** log2 of the frames of the block in use that starts at `pfn`; −1 when none does. */
  orderAt(pfn: number): number {
    const frames = this.#find(pfn);
    return frames === null ? -1 : frames.orderAt(pfn - frames.basePfn);
  }

  chunkAt(pfn: number, out: FrameChunk): boolean {
    const frames = this.#find(pfn);
    if (frames === null) return false;
    const chunkIndex = chunkIndexOf(pfn - frames.basePfn);
    if (chunkIndex >= frames.chunks.length) return false;
    const words = frames.chunks[chunkIndex]!;
    out.words = words;
    out.firstPfn = frames.basePfn + chunkStartOf(chunkIndex);
    out.frames = words.length / FRAME_WORDS;
    out.node = frames.node;
    return true;
  }

  /** Finds one frame. @returns false, `out` being unchanged, when no memory is behind it */
  locate(pfn: number, out: FrameLocation): boolean {
    const frames = this.#find(pfn);
    if (frames === null) return false;
    const offset = pfn - frames.basePfn;
    const chunkIndex = chunkIndexOf(offset);
    if (chunkIndex >= frames.chunks.length) return false;
    out.words = frames.chunks[chunkIndex]!;
    out.index = (offset - chunkStartOf(chunkIndex)) * FRAME_WORDS;
    out.node = frames.node;
    return true;
  }

  /** Number of the node whose memory a frame is, or −1. */
  nodeOf(pfn: number): number {
    return this.#find(pfn)?.node ?? -1;
  }

  /** Frames in use, on one node or on all. */
  usedFramesOf(node: number): number {
    return this.#byNode(node)?.usedFrames ?? 0;
  }

  /** Frames in use on all nodes. */
  get usedFrames(): number {
    let sum = 0;
    for (const frames of this.#nodes) sum += frames.usedFrames;
    return sum;
  }

  /** The most frames that were in use on a node at once. */
  peakFramesOf(node: number): number {
    return this.#byNode(node)?.peakFrames ?? 0;
  }

  /** The most frames that were in use on all nodes at once. */
  get peakFrames(): number {
    return this.#peakFrames;
  }

  /** Numbers of the nodes, in the order given. */
  get nodes(): number[] {
    return this.#nodes.map((frames) => frames.node);
  }

  /**
   * Makes allocations fail on purpose, to test what their callers do then.
   *
   * @param successes - how many allocations succeed first; infinity switches the failure off
   * @param failures - how many fail after that, all by default
   */
  failAfter(successes: number, failures = Number.POSITIVE_INFINITY): void {
    this.#allocationsLeft = successes;
    this.#failuresLeft = failures;
    this.#injectedFailures = 0;
  }

  /** How many allocations failed on purpose since the last {@link failAfter}. */
  get injectedFailures(): number {
    return this.#injectedFailures;
  }

  #fails(): boolean {
    if (this.#allocationsLeft > 0) {
      this.#allocationsLeft -= 1;
      return false;
    }
    if (this.#failuresLeft <= 0) return false;
    this.#failuresLeft -= 1;
    this.#injectedFailures += 1;
    return true;
  }

  #position(node: number): number {
    const wanted = node < 0 ? this.cpuNode : node;
    const position = this.#nodes.findIndex((frames) => frames.node === wanted);
    return Math.max(position, 0);
  }

  #byNode(node: number): NodeFrames | undefined {
    return this.#nodes.find((frames) => frames.node === node);
  }

  #find(pfn: number): NodeFrames | null {
    const recent = this.#recent;
    if (pfn >= recent.basePfn && pfn < recent.basePfn + recent.frameCount) return recent;
    for (const frames of this.#nodes) {
      if (pfn < frames.basePfn || pfn >= frames.basePfn + frames.frameCount) continue;
      this.#recent = frames;
      return frames;
    }
    return null;
  }
}
