/**
 * A range map's B+tree: the way to a leaf, and room for one more range. Removal is
 * range-map-removal.ts's business, what the keys stand for range-map.ts's.
 *
 * Growth of the arrays is the only step that can fail. It happens in `reserve`, before any change.
 */
import {
  HIGH,
  LEAF_FLOATS,
  LEAF_MAX,
  LEAF_MIN,
  LOW,
  NONE,
  RangeLeaves,
} from "./range-map-leaves.ts";
import { NODE_MAX, NODE_MIN, RangeNodes } from "./range-map-nodes.ts";

/** Levels that a tree may need at most: 2^26 leaves at NODE_MIN − 2 a node take 11. */
const LEVELS_MAX = 12;
/** Hints for each leaf that there is room for; a power of two. */
const HINTS_PER_LEAF = 2;
/** Hints that the frames of a typical leaf are spread over: more hit a leaf, fewer share a hint. */
const HINTS_USED_PER_LEAF = 2.5;
/** Leaves that are looked at to find a typical one. */
const SAMPLES = 31;

/** Asked before each growth with the bytes it takes; `false` makes it fail. */
export type AllowGrowth = (bytes: number) => boolean;

/** The tree. */
export class RangeTree {
  leaves = new RangeLeaves();
  nodes = new RangeNodes();
  /** A leaf at height 0, an inner node above, NONE when empty. */
  root = NONE;
  /** Levels of inner nodes above the leaves. */
  height = 0;
  count = 0;
  /** 0 while every range starts and ends with a frame, so that frames alone tell their order. */
  splitsFrames: 0 | 1 = 0;
  /** The leaf that `add` took a slot of. */
  leafAdded = NONE;
  /** Leaves by hash of a frame number: where a look-up ended before. */
  #hints = new Int32Array(0);
  /** Hints for each frame, mostly a fraction. */
  #hintScale = 0.25;
  readonly #allow: AllowGrowth | null;
  /** What the last split made, or NONE, and the key it starts at. */
  #split = NONE;
  #splitPfn = 0;
  #splitOffset = 0;

  constructor(allow: AllowGrowth | null) {
    this.#allow = allow;
  }

  /** Bytes held, used or not. */
  get bytes(): number {
    const { leaves, nodes } = this;
    return (
      leaves.bytesFor(leaves.capacity) + nodes.bytesFor(nodes.capacity) + this.#hints.length * 4
    );
  }

  /**
   * Makes room for one more range, whatever it splits.
   *
   * @returns false when growth is not allowed or memory is short; then nothing has changed
   */
  reserve(): boolean {
    const { leaves, nodes } = this;
    if (!leaves.hasRoom && !this.#growLeaves(Math.max(leaves.capacity * 2, 2))) return false;
    if (this.height === 0 && (this.root === NONE || leaves.count(this.root) < LEAF_MAX))
      return true;
    return nodes.room >= LEVELS_MAX || this.#growNodes(Math.max(nodes.capacity * 2, LEVELS_MAX));
  }

  /** The leaf that (pfn, offset) belongs to; the tree must not be empty. */
  leafOf(pfn: number, offset: number): number {
    // Frames near each other share a hint, neighbours have neighbouring ones, far ones spread.
    const bucket = (pfn * this.#hintScale) | 0;
    const hint = (bucket ^ (bucket >>> 8) ^ (bucket >>> 18)) & (this.#hints.length - 1);
    const leaf = this.#hints[hint]!;
    if (this.leaves.owns(leaf, pfn)) {
      // Where offsets count, the low fence may lie inside a frame.
      if (this.splitsFrames === 0 || this.leaves.floats[leaf * LEAF_FLOATS + LOW] !== pfn)
        return leaf;
    }
    return this.#leafAnew(pfn, offset, hint, leaf);
  }

  /** Rank of the last range of a leaf that starts at or below (pfn, offset); −1 when none does. */
  rankIn(leaf: number, pfn: number, offset: number): number {
    const leaves = this.leaves;
    let rank = leaves.countUpTo(leaf, pfn) - 1;
    if (this.splitsFrames === 0) return rank;
    while (rank >= 0 && leaves.startPfn(leaf, rank) === pfn) {
      if ((leaves.offsets(leaf, rank) & 0xfff) <= offset) break;
      rank -= 1;
    }
    return rank;
  }

  /**
   * Takes a slot for a range that starts at (pfn, offset); room must be reserved.
   *
   * @param leaf - the leaf it belongs to, or NONE in an empty tree
   * @param rank - its rank there
   * @returns the slot, in `leafAdded`, which the caller fills
   */
  add(leaf: number, rank: number, pfn: number, offset: number): number {
    this.count += 1;
    if (leaf === NONE) this.root = this.leaves.take(-1, Infinity);
    else if (this.leaves.count(leaf) < LEAF_MAX) {
      this.leafAdded = leaf;
      return this.leaves.insertAt(leaf, rank);
    } else {
      this.#splitPath(this.root, this.height, pfn, offset);
      if (this.#split !== NONE) this.#growRoot();
    }
    this.leafAdded = this.#descend(pfn, offset);
    return this.leaves.insertAt(this.leafAdded, this.rankIn(this.leafAdded, pfn, offset) + 1);
  }

  /** Forgets everything and lets the memory go. */
  clear(): void {
    this.leaves = new RangeLeaves();
    this.nodes = new RangeNodes();
    this.#hints = new Int32Array(0);
    this.root = NONE;
    this.height = 0;
    this.count = 0;
    this.splitsFrames = 0;
  }

  #growLeaves(capacity: number): boolean {
    const hintCount = capacity * HINTS_PER_LEAF;
    if (this.#allow?.(this.leaves.bytesFor(capacity) + 4 * hintCount) === false) return false;
    try {
      const hints = new Int32Array(hintCount);
      this.leaves.grow(capacity);
      this.#hints = hints;
      this.#fitHints(capacity / 2);
      return true;
    } catch {
      return false; // The engine has no memory for arrays of this size.
    }
  }

  /** Fits the hints to the width of a typical leaf, the median of some out of `count`. */
  #fitHints(count: number): void {
    const floats = this.leaves.floats;
    const widths = new Float64Array(SAMPLES).fill(Infinity);
    for (let sample = 0; sample < SAMPLES; sample += 1) {
      const at = Math.floor((sample * count) / SAMPLES) * LEAF_FLOATS;
      const low = floats[at + LOW]!;
      if (low >= 0) widths[sample] = Math.max(floats[at + HIGH]! - low, 1);
    }
    widths.sort();
    const median = widths[SAMPLES >>> 1]!;
    if (median < Infinity && median > 0) this.#hintScale = HINTS_USED_PER_LEAF / median;
  }

  #growNodes(capacity: number): boolean {
    if (this.#allow?.(this.nodes.bytesFor(capacity)) === false) return false;
    try {
      this.nodes.grow(capacity);
      return true;
    } catch {
      return false;
    }
  }

  /** The leaf that (pfn, offset) belongs to, where the hint was no help: perhaps a neighbour. */
  #leafAnew(pfn: number, offset: number, hint: number, hinted: number): number {
    const leaves = this.leaves;
    let leaf = NONE;
    const low = leaves.floats[hinted * LEAF_FLOATS + LOW]!;
    if (low !== Infinity && this.splitsFrames === 0)
      leaf = pfn < low ? leaves.before(hinted) : leaves.after(hinted);
    if (leaf === NONE || !leaves.owns(leaf, pfn)) {
      leaf = this.#descend(pfn, offset);
      this.#widen(leaf, pfn);
    }
    this.#hints[hint] = leaf;
    return leaf;
  }

  /** Moves a fence of the leaf that a frame belongs to, so that the frame lies between them. */
  #widen(leaf: number, pfn: number): void {
    const leaves = this.leaves;
    const floats = leaves.floats;
    const at = leaf * LEAF_FLOATS;
    // Where offsets count, a part of the frame may belong to the next leaf.
    const end = this.splitsFrames === 0 ? pfn + 1 : pfn;
    if (end > floats[at + HIGH]!) floats[at + HIGH] = end;
    if (pfn >= floats[at + LOW]!) return;
    const before = leaves.before(leaf);
    if (before === NONE || leaves.lastPfn(before, leaves.count(before) - 1) < pfn)
      floats[at + LOW] = pfn;
  }

  #descend(pfn: number, offset: number): number {
    const nodes = this.nodes;
    let node = this.root;
    for (let level = this.height; level > 0; level -= 1) {
      node = nodes.children[node * NODE_MAX + nodes.childAt(node, pfn, offset)]!;
    }
    return node;
  }

  /** Splits the full leaf that (pfn, offset) belongs to, and the full nodes above it. */
  #splitPath(node: number, level: number, pfn: number, offset: number): void {
    if (level === 0) {
      this.#splitLeaf(node, this.rankIn(node, pfn, offset) + 1);
      return;
    }
    const index = this.nodes.childAt(node, pfn, offset);
    this.#splitPath(this.nodes.children[node * NODE_MAX + index]!, level - 1, pfn, offset);
    if (this.#split !== NONE) this.#addChild(node, index + 1);
  }

  /**
   * Splits a full leaf before a range of rank `rank` is added. Allocators fill address spaces from
   * one end, so an addition at either end of a leaf splits off few ranges instead of half of them.
   */
  #splitLeaf(leaf: number, rank: number): void {
    const leaves = this.leaves;
    const at = splitPoint(rank, LEAF_MAX, LEAF_MIN);
    const right = leaves.take(0, leaves.floats[leaf * LEAF_FLOATS + HIGH]!);
    for (let index = 0; index < LEAF_MAX - at; index += 1) leaves.move(leaf, at, right, index);
    leaves.linkAfter(leaf, right);
    this.#split = right;
    this.#splitPfn = leaves.startPfn(right, 0);
    this.#splitOffset = leaves.offsets(right, 0) & 0xfff;
    leaves.setFence(leaf, right, this.#splitPfn);
  }

  /** Puts what the last split made beside the child it came from, and splits a full node. */
  #addChild(node: number, index: number): void {
    const nodes = this.nodes;
    const child = this.#split;
    const pfn = this.#splitPfn;
    const offset = this.#splitOffset;
    // Child 0 may hold ranges below the key it was once given; keys must ascend all the same.
    if (index === 1) nodes.setKey(node, 0, -1, 0);
    this.#split = NONE;
    if (nodes.counts[node]! < NODE_MAX) {
      nodes.insertAt(node, index, pfn, offset, child);
      return;
    }
    const at = splitPoint(index, NODE_MAX, NODE_MIN);
    const right = nodes.take();
    nodes.copy(node, at, right, 0, NODE_MAX - at);
    nodes.setCount(right, NODE_MAX - at);
    nodes.setCount(node, at);
    if (index > at) nodes.insertAt(right, index - at, pfn, offset, child);
    else nodes.insertAt(node, index, pfn, offset, child);
    this.#split = right;
    this.#splitPfn = nodes.keys[2 * right * NODE_MAX]!;
    this.#splitOffset = nodes.keys[2 * right * NODE_MAX + 1]!;
  }

  #growRoot(): void {
    const nodes = this.nodes;
    const root = nodes.take();
    nodes.insertAt(root, 0, -1, 0, this.root);
    nodes.insertAt(root, 1, this.#splitPfn, this.#splitOffset, this.#split);
    this.#split = NONE;
    this.root = root;
    this.height += 1;
  }
}

/** How many of `max` stay on the left when something is added at `index`. */
function splitPoint(index: number, max: number, min: number): number {
  if (index === max) return max - min;
  return index <= 1 ? min : max >>> 1;
}
