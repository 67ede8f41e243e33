/**
 * The inner nodes of a range map: sorted keys and children, in typed arrays.
 *
 * A key is an address, frame number plus offset, and every range below its child starts at or above
 * it. The key of child 0 stands for "from the beginning" and is never above the others. Keys behind
 * the last one are infinite, so the search compares a fixed number of keys without a branch.
 */

/** Children of a full node. The search is written for this number. */
export const NODE_MAX = 32;
/** A node with fewer children takes some from a neighbour or joins it. */
export const NODE_MIN = 8;

const NONE = -1;

/** The arrays. */
export class RangeNodes {
  /** Key i of node n, with j = n * NODE_MAX + i: [2j] frame, [2j + 1] offset. */
  keys = new Float64Array(0);
  /** Child of key j: a node, or a leaf on the lowest level. */
  children = new Int32Array(0);
  /** Children of each node. */
  counts = new Uint8Array(0);
  capacity = 0;
  #taken = 0;
  #free = NONE;
  #freeCount = 0;

  /** How often `take` can be called without growth. */
  get room(): number {
    return this.#freeCount + this.capacity - this.#taken;
  }

  /** Takes an empty node; there must be room. */
  take(): number {
    let node = this.#free;
    if (node === NONE) {
      node = this.#taken;
      this.#taken += 1;
    } else {
      this.#free = this.children[node * NODE_MAX]!;
      this.#freeCount -= 1;
    }
    this.setCount(node, 0);
    return node;
  }

  /** Gives a node back. */
  release(node: number): void {
    this.children[node * NODE_MAX] = this.#free;
    this.#free = node;
    this.#freeCount += 1;
  }

  /** Index of the child that (pfn, offset) belongs to. */
  childAt(node: number, pfn: number, offset: number): number {
    const keys = this.keys;
    const base = node * NODE_MAX;
    let at = base + Math.max(this.#countUpTo(2 * base, pfn) - 1, 0);
    while (keys[2 * at] === pfn && at > base && keys[2 * at + 1]! > offset) at -= 1;
    return at - base;
  }

  /** Opens a gap at `index` of a node that is not full and fills it. */
  insertAt(node: number, index: number, pfn: number, offset: number, child: number): void {
    const count = this.counts[node]!;
    this.copy(node, index, node, index + 1, count - index);
    const at = node * NODE_MAX + index;
    this.keys[2 * at] = pfn;
    this.keys[2 * at + 1] = offset;
    this.children[at] = child;
    this.counts[node] = count + 1;
  }

  /** Takes children [from, end) out. */
  remove(node: number, from: number, end: number): void {
    const count = this.counts[node]!;
    this.copy(node, end, node, from, count - end);
    this.setCount(node, count - (end - from));
  }

  /** Copies `count` keys and children from one place to another; the counts stay as they are. */
  copy(from: number, fromIndex: number, to: number, toIndex: number, count: number): void {
    const source = from * NODE_MAX + fromIndex;
    const target = to * NODE_MAX + toIndex;
    this.keys.copyWithin(2 * target, 2 * source, 2 * (source + count));
    this.children.copyWithin(target, source, source + count);
  }

  /** Says how many children a node has after some were copied into or out of it. */
  setCount(node: number, count: number): void {
    this.counts[node] = count;
    const end = 2 * (node + 1) * NODE_MAX;
    for (let at = 2 * (node * NODE_MAX + count); at < end; at += 2) this.keys[at] = Infinity;
  }

  /** Gives a key to a child. */
  setKey(node: number, index: number, pfn: number, offset: number): void {
    this.keys[2 * (node * NODE_MAX + index)] = pfn;
    this.keys[2 * (node * NODE_MAX + index) + 1] = offset;
  }

  /** Bytes that a growth to `capacity` nodes takes. */
  bytesFor(capacity: number): number {
    return capacity * (NODE_MAX * 20 + 1);
  }

  /** Makes room for `capacity` nodes; throws what the engine throws, and then nothing changed. */
  grow(capacity: number): void {
    const keys = new Float64Array(capacity * NODE_MAX * 2);
    const children = new Int32Array(capacity * NODE_MAX);
    const counts = new Uint8Array(capacity);
    keys.set(this.keys);
    children.set(this.children);
    counts.set(this.counts);
    this.keys = keys;
    this.children = children;
    this.counts = counts;
    this.capacity = capacity;
  }

  /** How many keys from `keys[first]` on have a frame up to `pfn`: seven tell which four to ask. */
  #countUpTo(first: number, pfn: number): number {
    const keys = this.keys;
    const fours =
      (((keys[first + 8]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 16]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 24]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 32]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 40]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 48]! <= pfn) as unknown as number) | 0) +
      (((keys[first + 56]! <= pfn) as unknown as number) | 0);
    const at = first + 8 * fours;
    return (
      4 * fours +
      (((keys[at]! <= pfn) as unknown as number) | 0) +
      (((keys[at + 2]! <= pfn) as unknown as number) | 0) +
      (((keys[at + 4]! <= pfn) as unknown as number) | 0) +
      (((keys[at + 6]! <= pfn) as unknown as number) | 0)
    );
  }
}
