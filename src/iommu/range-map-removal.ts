/**
 * Removal from a range map's B+tree: single ranges, whole subtrees at a time, and the joins that keep
 * nodes from getting thin.
 *
 * Bounds: no node but the root has fewer than its minimum less two, so that memory stays
 * proportional to the ranges however they come and go (each of the two walks that mend the tree
 * brings a node to its minimum before it may take one child away from it).
 */
import { PFN_LAST } from "../units.ts";
import { HIGH, LEAF_FLOATS, LEAF_MAX, LEAF_MIN, NONE } from "./range-map-leaves.ts";
import { NODE_MAX, NODE_MIN } from "./range-map-nodes.ts";
import type { RangeTree } from "./range-map-tree.ts";

/** Takes one range out. */
export function removeOne(tree: RangeTree, leaf: number, rank: number): void {
  const leaves = tree.leaves;
  tree.count -= 1;
  if (leaves.count(leaf) > LEAF_MIN) {
    leaves.removeAt(leaf, rank);
    return;
  }
  const pfn = leaves.startPfn(leaf, rank);
  const offset = leaves.offsets(leaf, rank) & 0xfff;
  leaves.removeAt(leaf, rank);
  if (tree.height === 0) shrinkRoot(tree);
  else mend(tree, pfn, offset);
}

/**
 * Takes every range from the one at `low` to the one at `high` out, whole subtrees at a time.
 *
 * @returns how many
 */
export function removeSpan(
  tree: RangeTree,
  lowPfn: number,
  lowOffset: number,
  highPfn: number,
  highOffset: number,
): number {
  const before = tree.count;
  drop(tree, tree.root, tree.height, lowPfn, lowOffset, highPfn, highOffset);
  shrinkRoot(tree);
  if (tree.height > 0) mend(tree, lowPfn, lowOffset);
  if (tree.height > 0) mend(tree, highPfn, highOffset);
  return before - tree.count;
}

/** Lets an empty root, and inner roots with one child, go. */
function shrinkRoot(tree: RangeTree): void {
  const nodes = tree.nodes;
  while (tree.height > 0 && nodes.counts[tree.root]! === 1) {
    const child = nodes.children[tree.root * NODE_MAX]!;
    nodes.release(tree.root);
    tree.root = child;
    tree.height -= 1;
  }
  if (countOf(tree, tree.root, tree.height) > 0) return;
  release(tree, tree.root, tree.height);
  tree.root = NONE;
  tree.height = 0;
  tree.splitsFrames = 0;
}

function countOf(tree: RangeTree, node: number, level: number): number {
  return level === 0 ? tree.leaves.count(node) : tree.nodes.counts[node]!;
}

function release(tree: RangeTree, node: number, level: number): void {
  if (level === 0) tree.leaves.release(node);
  else tree.nodes.release(node);
}

function drop(
  tree: RangeTree,
  node: number,
  level: number,
  lowPfn: number,
  lowOffset: number,
  highPfn: number,
  highOffset: number,
): void {
  if (level === 0) {
    dropFromLeaf(tree, node, lowPfn, lowOffset, highPfn, highOffset);
    return;
  }
  const { leaves, nodes } = tree;
  const base = node * NODE_MAX;
  const first = nodes.childAt(node, lowPfn, lowOffset);
  const last = nodes.childAt(node, highPfn, highOffset);
  const firstChild = nodes.children[base + first]!;
  const lastChild = nodes.children[base + last]!;
  if (first === last) {
    drop(tree, firstChild, level - 1, lowPfn, lowOffset, highPfn, highOffset);
  } else {
    drop(tree, firstChild, level - 1, lowPfn, lowOffset, PFN_LAST, 0xfff);
    drop(tree, lastChild, level - 1, -1, 0, highPfn, highOffset);
  }
  if (last > first + 1) {
    const left = edgeLeaf(tree, nodes.children[base + first + 1]!, level - 1, false);
    const right = edgeLeaf(tree, nodes.children[base + last - 1]!, level - 1, true);
    leaves.unlink(left, right);
  }
  for (let index = first + 1; index < last; index += 1) {
    forgetSubtree(tree, nodes.children[base + index]!, level - 1);
  }
  // The children between, and an edge child that was emptied, leave the node together.
  let from = first + 1;
  let end = Math.max(last, first + 1);
  if (last > first && countOf(tree, lastChild, level - 1) === 0) {
    release(tree, lastChild, level - 1);
    end = last + 1;
  }
  if (countOf(tree, firstChild, level - 1) === 0) {
    release(tree, firstChild, level - 1);
    from = first;
  }
  nodes.remove(node, from, end);
}

function dropFromLeaf(
  tree: RangeTree,
  leaf: number,
  lowPfn: number,
  lowOffset: number,
  highPfn: number,
  highOffset: number,
): void {
  const leaves = tree.leaves;
  const below = tree.rankIn(leaf, lowPfn, lowOffset);
  const isHit =
    below >= 0 &&
    leaves.startPfn(leaf, below) === lowPfn &&
    (leaves.offsets(leaf, below) & 0xfff) === lowOffset;
  const from = isHit ? below : below + 1;
  const end = tree.rankIn(leaf, highPfn, highOffset) + 1;
  for (let rank = end - 1; rank >= from; rank -= 1) leaves.removeAt(leaf, rank);
  tree.count -= end - from;
}

/** The first or the last leaf below a node. */
function edgeLeaf(tree: RangeTree, node: number, level: number, isLast: boolean): number {
  const nodes = tree.nodes;
  let at = node;
  for (let below = level; below > 0; below -= 1) {
    at = nodes.children[at * NODE_MAX + (isLast ? nodes.counts[at]! - 1 : 0)]!;
  }
  return at;
}

/** Gives everything below a node back; its leaves are out of the chain. */
function forgetSubtree(tree: RangeTree, node: number, level: number): void {
  const { leaves, nodes } = tree;
  if (level === 0) {
    tree.count -= leaves.count(node);
    leaves.forget(node);
    return;
  }
  const base = node * NODE_MAX;
  const end = base + nodes.counts[node]!;
  for (let index = base; index < end; index += 1) {
    forgetSubtree(tree, nodes.children[index]!, level - 1);
  }
  nodes.release(node);
}

/** Walks from the root to (pfn, offset) and fills up each thin node on the way. */
function mend(tree: RangeTree, pfn: number, offset: number): void {
  const nodes = tree.nodes;
  let node = tree.root;
  for (let level = tree.height; level > 0; level -= 1) {
    const minimum = level === 1 ? LEAF_MIN : NODE_MIN;
    let index = nodes.childAt(node, pfn, offset);
    let child = nodes.children[node * NODE_MAX + index]!;
    while (countOf(tree, child, level - 1) < minimum && nodes.counts[node]! > 1) {
      const left = index + 1 < nodes.counts[node]! ? index : index - 1;
      if (level === 1) joinLeaves(tree, node, left);
      else joinNodes(tree, node, left);
      index = nodes.childAt(node, pfn, offset);
      child = nodes.children[node * NODE_MAX + index]!;
    }
    node = child;
  }
  shrinkRoot(tree);
}

/** Makes one leaf of children `index` and `index + 1`, or shares their ranges evenly. */
function joinLeaves(tree: RangeTree, parent: number, index: number): void {
  const { leaves, nodes } = tree;
  const left = nodes.children[parent * NODE_MAX + index]!;
  const right = nodes.children[parent * NODE_MAX + index + 1]!;
  const leftCount = leaves.count(left);
  const total = leftCount + leaves.count(right);
  const target = total <= LEAF_MAX ? total : total >>> 1;
  for (let rank = leftCount; rank < target; rank += 1) leaves.move(right, 0, left, rank);
  for (let rank = leftCount; rank > target; rank -= 1) leaves.move(left, rank - 1, right, 0);
  if (target === total) {
    leaves.floats[left * LEAF_FLOATS + HIGH] = leaves.floats[right * LEAF_FLOATS + HIGH]!;
    leaves.release(right);
    nodes.remove(parent, index + 1, index + 2);
  } else {
    const pfn = leaves.startPfn(right, 0);
    nodes.setKey(parent, index + 1, pfn, leaves.offsets(right, 0) & 0xfff);
    leaves.setFence(left, right, pfn);
  }
}

/** Makes one node of children `index` and `index + 1`, or shares their children evenly. */
function joinNodes(tree: RangeTree, parent: number, index: number): void {
  const { nodes } = tree;
  const at = parent * NODE_MAX + index;
  const left = nodes.children[at]!;
  const right = nodes.children[at + 1]!;
  const leftCount = nodes.counts[left]!;
  const rightCount = nodes.counts[right]!;
  const total = leftCount + rightCount;
  // The first key means something once it stands behind another: the parent knows it.
  nodes.setKey(right, 0, nodes.keys[2 * at + 2]!, nodes.keys[2 * at + 3]!);
  if (total <= NODE_MAX) {
    nodes.copy(right, 0, left, leftCount, rightCount);
    nodes.setCount(left, total);
    nodes.release(right);
    nodes.remove(parent, index + 1, index + 2);
    return;
  }
  const half = total >>> 1;
  if (leftCount < half) {
    nodes.copy(right, 0, left, leftCount, half - leftCount);
    nodes.copy(right, half - leftCount, right, 0, total - half);
  } else {
    nodes.copy(right, 0, right, leftCount - half, rightCount);
    nodes.copy(left, half, right, 0, leftCount - half);
  }
  nodes.setCount(left, half);
  nodes.setCount(right, total - half);
  const first = 2 * right * NODE_MAX;
  nodes.setKey(parent, index + 1, nodes.keys[first]!, nodes.keys[first + 1]!);
}
