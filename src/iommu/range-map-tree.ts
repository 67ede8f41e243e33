/**
 * The shape of a range map's B+tree: splits on the way in, joins and whole-subtree removal on the
 * way out. What the keys stand for is range-map.ts's business.
 *
 * Bounds: no node but the root has fewer than NODE_MIN − 2 keys, so that memory stays proportional
 * to the records however they come and go (each of the two walks that mend the tree brings a node to
 * NODE_MIN before it may take one child away from it).
 */
import { NODE_MAX, NODE_MIN, NONE, type RangeStore } from "./range-map-store.ts";

/** The tree: its root and its height over a store. */
export class RangeTree {
  readonly store: RangeStore;
  root = NONE;
  /** Levels of inner nodes above the leaves. */
  height = 0;
  count = 0;

  constructor(store: RangeStore) {
    this.store = store;
  }

  /** Index of the last key of a node at or below (pfn, offset); −1 when all are above. */
  indexIn(node: number, pfn: number, offset: number): number {
    const { keyPfns, keyOffsets } = this.store;
    const base = node * NODE_MAX;
    let low = base;
    let high = base + this.store.counts[node]!;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const key = keyPfns[middle]!;
      if (key < pfn || (key === pfn && keyOffsets[middle]! <= offset)) low = middle + 1;
      else high = middle;
    }
    return low - base - 1;
  }

  /** Index of the child of an inner node that (pfn, offset) belongs to. */
  childIn(node: number, pfn: number, offset: number): number {
    const index = this.indexIn(node, pfn, offset);
    return Math.max(index, 0);
  }

  /** The leaf that (pfn, offset) belongs to; the tree must not be empty. */
  leafOf(pfn: number, offset: number): number {
    const { keyPfns, keyOffsets, references, counts } = this.store;
    let node = this.root;
    for (let level = this.height; level > 0; level -= 1) {
      const base = node * NODE_MAX;
      let low = base + 1;
      let high = base + counts[node]!;
      while (low < high) {
        const middle = (low + high) >>> 1;
        const key = keyPfns[middle]!;
        if (key < pfn || (key === pfn && keyOffsets[middle]! <= offset)) low = middle + 1;
        else high = middle;
      }
      node = references[low - 1]!;
    }
    return node;
  }

  /** Adds a key to the leaf it belongs to; the store must have reserved. */
  add(leaf: number, index: number, pfn: number, offset: number, reference: number): void {
    this.count += 1;
    if (this.store.counts[leaf]! < NODE_MAX) {
      this.store.insertKey(leaf, index, pfn, offset, reference);
      return;
    }
    this.#addSplitting(this.root, this.height, pfn, offset, reference);
    if (this.#splitNode !== NONE) this.#growRoot();
  }

  /** Takes one key out of the leaf it belongs to and gives its record back. */
  removeOne(leaf: number, index: number): void {
    const { store } = this;
    const at = leaf * NODE_MAX + index;
    const pfn = store.keyPfns[at]!;
    const offset = store.keyOffsets[at]!;
    store.freeRecords(leaf, index, index + 1);
    store.removeKeys(leaf, index, index + 1);
    this.count -= 1;
    if (store.counts[leaf]! >= NODE_MIN) return;
    if (this.height === 0) this.#shrinkRoot();
    else this.#mend(pfn, offset);
  }

  /** Takes every key from `low` to `high`, both included, out; whole subtrees at a time. */
  removeSpan(lowPfn: number, lowOffset: number, highPfn: number, highOffset: number): number {
    const before = this.count;
    this.#drop(this.root, this.height, lowPfn, lowOffset, highPfn, highOffset);
    this.#shrinkRoot();
    if (this.height > 0) this.#mend(lowPfn, lowOffset);
    if (this.height > 0) this.#mend(highPfn, highOffset);
    return before - this.count;
  }

  /** Forgets everything. */
  clear(): void {
    this.store.clear();
    this.root = NONE;
    this.height = 0;
    this.count = 0;
  }

  /** The node that the last split made, or NONE, and the key it starts at. */
  #splitNode = NONE;
  #splitPfn = 0;
  #splitOffset = 0;

  #addSplitting(node: number, level: number, pfn: number, offset: number, reference: number): void {
    const { store } = this;
    let index = this.indexIn(node, pfn, offset);
    let key = pfn;
    let keyOffset = offset;
    let target = reference;
    if (level > 0) {
      index = Math.max(index, 0);
      this.#addSplitting(
        store.references[node * NODE_MAX + index]!,
        level - 1,
        pfn,
        offset,
        reference,
      );
      if (this.#splitNode === NONE) return;
      key = this.#splitPfn;
      keyOffset = this.#splitOffset;
      target = this.#splitNode;
    }
    if (store.counts[node]! < NODE_MAX) {
      store.insertKey(node, index + 1, key, keyOffset, target);
      this.#splitNode = NONE;
      return;
    }
    this.#split(node, level, index + 1, key, keyOffset, target);
  }

  /**
   * Splits a full node and adds a key at `index`. Allocators fill address spaces from one end, so
   * an addition at either end of a node splits off as few keys as a node may have.
   */
  #split(
    node: number,
    level: number,
    index: number,
    pfn: number,
    offset: number,
    reference: number,
  ): void {
    const { store } = this;
    let at = NODE_MAX >>> 1;
    if (index === NODE_MAX) at = NODE_MAX - NODE_MIN;
    else if (index <= 1) at = NODE_MIN;
    const right = store.takeNode();
    store.copyKeys(node, at, right, 0, NODE_MAX - at);
    store.counts[right] = NODE_MAX - at;
    store.counts[node] = at;
    if (level === 0) store.linkAfter(node, right);
    if (index > at) store.insertKey(right, index - at, pfn, offset, reference);
    else store.insertKey(node, index, pfn, offset, reference);
    this.#splitNode = right;
    this.#splitPfn = store.keyPfns[right * NODE_MAX]!;
    this.#splitOffset = store.keyOffsets[right * NODE_MAX]!;
  }

  #growRoot(): void {
    const { store } = this;
    const root = store.takeNode();
    store.insertKey(root, 0, 0, 0, this.root);
    store.insertKey(root, 1, this.#splitPfn, this.#splitOffset, this.#splitNode);
    this.#splitNode = NONE;
    this.root = root;
    this.height += 1;
  }

  /** Lets an empty root, and inner roots with one child, go. */
  #shrinkRoot(): void {
    const { store } = this;
    while (this.height > 0 && store.counts[this.root]! === 1) {
      const child = store.references[this.root * NODE_MAX]!;
      store.freeNode(this.root);
      this.root = child;
      this.height -= 1;
    }
    if (store.counts[this.root]! > 0) return;
    store.freeNode(this.root);
    this.root = NONE;
    this.height = 0;
  }

  #drop(
    node: number,
    level: number,
    lowPfn: number,
    lowOffset: number,
    highPfn: number,
    highOffset: number,
  ): void {
    const { store } = this;
    if (level === 0) {
      const below = this.indexIn(node, lowPfn, lowOffset);
      const at = node * NODE_MAX + below;
      const isHit =
        below >= 0 && store.keyPfns[at] === lowPfn && store.keyOffsets[at] === lowOffset;
      const from = isHit ? below : below + 1;
      const end = this.indexIn(node, highPfn, highOffset) + 1;
      store.freeRecords(node, from, end);
      store.removeKeys(node, from, end);
      this.count -= end - from;
      return;
    }
    const base = node * NODE_MAX;
    const first = this.childIn(node, lowPfn, lowOffset);
    const last = this.childIn(node, highPfn, highOffset);
    const firstChild = store.references[base + first]!;
    const lastChild = store.references[base + last]!;
    if (first === last) {
      this.#drop(firstChild, level - 1, lowPfn, lowOffset, highPfn, highOffset);
    } else {
      this.#drop(firstChild, level - 1, lowPfn, lowOffset, Number.POSITIVE_INFINITY, 0);
      this.#drop(lastChild, level - 1, -1, 0, highPfn, highOffset);
    }
    for (let index = first + 1; index < last; index += 1) {
      this.#freeSubtree(store.references[base + index]!, level - 1);
    }
    // The children between, and an edge child that was emptied, leave the node together.
    let from = first + 1;
    let end = last > first ? last : first + 1;
    if (last > first && store.counts[lastChild] === 0) {
      this.#freeOne(lastChild, level - 1);
      end = last + 1;
    }
    if (store.counts[firstChild] === 0) {
      this.#freeOne(firstChild, level - 1);
      from = first;
    }
    store.removeKeys(node, from, end);
  }

  #freeSubtree(node: number, level: number): void {
    const { store } = this;
    const count = store.counts[node]!;
    if (level === 0) {
      store.freeRecords(node, 0, count);
      this.count -= count;
    } else {
      const base = node * NODE_MAX;
      for (let index = base; index < base + count; index += 1) {
        this.#freeSubtree(store.references[index]!, level - 1);
      }
    }
    this.#freeOne(node, level);
  }

  #freeOne(node: number, level: number): void {
    if (level === 0) this.store.freeLeaf(node);
    else this.store.freeNode(node);
  }

  /** Walks from the root to (pfn, offset) and fills up each thin node on the way. */
  #mend(pfn: number, offset: number): void {
    const { store } = this;
    let node = this.root;
    for (let level = this.height; level > 0; level -= 1) {
      let index = this.childIn(node, pfn, offset);
      let child = store.references[node * NODE_MAX + index]!;
      while (store.counts[child]! < NODE_MIN && store.counts[node]! > 1) {
        this.#join(node, index + 1 < store.counts[node]! ? index : index - 1, level - 1);
        index = this.childIn(node, pfn, offset);
        child = store.references[node * NODE_MAX + index]!;
      }
      node = child;
    }
    this.#shrinkRoot();
  }

  /** Makes one node of children `index` and `index + 1`, or shares their keys evenly. */
  #join(parent: number, index: number, level: number): void {
    const { store } = this;
    const at = parent * NODE_MAX + index;
    const left = store.references[at]!;
    const right = store.references[at + 1]!;
    const leftCount = store.counts[left]!;
    const rightCount = store.counts[right]!;
    const total = leftCount + rightCount;
    // An inner node's first key means nothing until it stands behind another: the parent knows it.
    if (level > 0) {
      store.keyPfns[right * NODE_MAX] = store.keyPfns[at + 1]!;
      store.keyOffsets[right * NODE_MAX] = store.keyOffsets[at + 1]!;
    }
    if (total <= NODE_MAX) {
      store.copyKeys(right, 0, left, leftCount, rightCount);
      store.counts[left] = total;
      this.#freeOne(right, level);
      store.removeKeys(parent, index + 1, index + 2);
      return;
    }
    const half = total >>> 1;
    if (leftCount < half) {
      store.copyKeys(right, 0, left, leftCount, half - leftCount);
      store.copyKeys(right, half - leftCount, right, 0, total - half);
    } else {
      store.copyKeys(right, 0, right, leftCount - half, rightCount);
      store.copyKeys(left, half, right, 0, leftCount - half);
    }
    store.counts[left] = half;
    store.counts[right] = total - half;
    store.keyPfns[at + 1] = store.keyPfns[right * NODE_MAX]!;
    store.keyOffsets[at + 1] = store.keyOffsets[right * NODE_MAX]!;
  }
}
