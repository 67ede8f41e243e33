/**
 * What must hold in a range map's tree between any two changes, as assertions; for tests.
 */
import { assert } from "../errors.ts";
import { PFN_LAST } from "../units.ts";
import { HIGH, LEAF_FLOATS, LEAF_MAX, LEAF_MIN, LOW, NONE } from "./range-map-leaves.ts";
import { NODE_MAX, NODE_MIN } from "./range-map-nodes.ts";
import type { RangeTree } from "./range-map-tree.ts";

/** Keys that a subtree may hold: from `low` to below `high`. */
interface Bounds {
  readonly lowPfn: number;
  readonly lowOffset: number;
  readonly highPfn: number;
  readonly highOffset: number;
}

/** Asserts everything; visits everything. */
export function checkTree(tree: RangeTree): void {
  const whole = { lowPfn: -1, lowOffset: 0, highPfn: Infinity, highOffset: 0 };
  const seen: number[] = [];
  if (tree.root !== NONE) checkNode(tree, tree.root, tree.height, whole, seen);
  let count = 0;
  for (const [index, leaf] of seen.entries()) {
    assert(tree.leaves.before(leaf) === (seen[index - 1] ?? NONE), "leaves are linked backwards");
    assert(tree.leaves.after(leaf) === (seen[index + 1] ?? NONE), "leaves are linked forwards");
    count += tree.leaves.count(leaf);
  }
  assert(count === tree.count, "the count is the number of ranges in the leaves");
  checkOrder(tree, seen);
}

/** Ranges ascend, do not overlap and lie inside the space. */
function checkOrder(tree: RangeTree, seen: readonly number[]): void {
  const leaves = tree.leaves;
  let endPfn = -1;
  let endOffset = 0xfff;
  for (const leaf of seen) {
    for (let rank = 0; rank < leaves.count(leaf); rank += 1) {
      const offsets = leaves.offsets(leaf, rank);
      const startPfn = leaves.startPfn(leaf, rank);
      const startOffset = offsets & 0xfff;
      const lastPfn = leaves.lastPfn(leaf, rank);
      const lastOffset = (offsets >>> 12) & 0xfff;
      const isApart = startPfn > endPfn || (startPfn === endPfn && startOffset > endOffset);
      assert(isApart, "ranges ascend and do not overlap");
      const isForward = lastPfn > startPfn || (lastPfn === startPfn && lastOffset >= startOffset);
      assert(isForward, "a range does not end before it starts");
      assert(lastPfn <= PFN_LAST, "a range ends inside the space");
      const low = leaves.floats[leaf * LEAF_FLOATS + LOW]!;
      const isBelow = endPfn < low || endPfn === -1 || tree.splitsFrames === 1;
      assert(rank > 0 || isBelow, "no earlier range reaches LOW");
      const isWhole = startOffset === 0 && lastOffset === 0xfff;
      assert(isWhole || tree.splitsFrames === 1, "a paged tree holds whole frames");
      endPfn = lastPfn;
      endOffset = lastOffset;
    }
  }
}

function checkNode(
  tree: RangeTree,
  node: number,
  level: number,
  bounds: Bounds,
  seen: number[],
): void {
  if (level === 0) {
    checkLeaf(tree, node, bounds);
    seen.push(node);
    return;
  }
  const { keys, children, counts } = tree.nodes;
  const count = counts[node]!;
  assert(count > 1 && count <= NODE_MAX, "a node has children, and not too many");
  assert(node === tree.root || count >= NODE_MIN - 2, "no node but the root is thin");
  let { lowPfn, lowOffset } = bounds;
  for (let index = 0; index < count; index += 1) {
    const at = node * NODE_MAX + index;
    if (index > 0) {
      checkBetween(keys[2 * at]!, keys[2 * at + 1]!, { ...bounds, lowPfn, lowOffset });
      lowPfn = keys[2 * at]!;
      lowOffset = keys[2 * at + 1]!;
    }
    const isLast = index + 1 === count;
    const highPfn = isLast ? bounds.highPfn : keys[2 * at + 2]!;
    const highOffset = isLast ? bounds.highOffset : keys[2 * at + 3]!;
    assert(keys[2 * at]! <= highPfn, "the key of child 0 is not above the others");
    const below = { lowPfn, lowOffset, highPfn, highOffset };
    checkNode(tree, children[at]!, level - 1, below, seen);
  }
  for (let index = count; index < NODE_MAX; index += 1) {
    assert(keys[2 * (node * NODE_MAX + index)] === Infinity, "unused keys are infinite");
  }
}

function checkLeaf(tree: RangeTree, leaf: number, bounds: Bounds): void {
  const leaves = tree.leaves;
  const count = leaves.count(leaf);
  assert(count >= 1 && count <= LEAF_MAX, "a leaf is neither empty nor over-full");
  assert(leaf === tree.root || count >= LEAF_MIN - 1, "no leaf but the root is thin");
  assert(leaves.countUpTo(leaf, PFN_LAST) === count, "unused slots are infinite");
  const slots = new Set(Array.from({ length: LEAF_MAX }, (_, rank) => leaves.slotAt(leaf, rank)));
  assert(slots.size === LEAF_MAX, "the order names each slot once");
  const low = leaves.floats[leaf * LEAF_FLOATS + LOW]!;
  const high = leaves.floats[leaf * LEAF_FLOATS + HIGH]!;
  assert(low >= bounds.lowPfn, "the low fence is not below what the tree sends here");
  assert(high <= bounds.highPfn, "the high fence is not above what the tree sends here");
  for (let rank = 0; rank < count; rank += 1) {
    const pfn = leaves.startPfn(leaf, rank);
    checkBetween(pfn, leaves.offsets(leaf, rank) & 0xfff, bounds);
    assert(pfn >= low && pfn <= high, "ranges start between the fences");
  }
}

function checkBetween(pfn: number, offset: number, bounds: Bounds): void {
  const { lowPfn, lowOffset, highPfn, highOffset } = bounds;
  assert(pfn > lowPfn || (pfn === lowPfn && offset >= lowOffset), "keys stay above their bound");
  assert(pfn < highPfn || (pfn === highPfn && offset < highOffset), "keys stay below the next");
}
