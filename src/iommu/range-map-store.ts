/**
 * The memory of a range map: tree nodes and records in typed arrays that grow by doubling.
 *
 * A node holds up to {@link NODE_MAX} keys in ascending order, each with a reference: in a leaf the
 * number of a record, in an inner node the number of a child, whose keys are all at or above that
 * key (the key of child 0 is never looked at). A key is an address: frame number plus offset.
 * Leaves are linked both ways. A record takes 32 bytes, so that one cache line answers for it.
 *
 * Growth is the only step that can fail. It happens in `reserve`, before anything is changed.
 */

/** Keys of a full node. */
export const NODE_MAX = 32;
/** A node with fewer keys takes some from a neighbour or joins it. */
export const NODE_MIN = 8;
/** Stands for "no node" and "no position". */
export const NONE = -1;
/** Levels that a tree may need at most: 2^31 records at NODE_MIN a node take 11. */
const LEVELS_MAX = 12;

const RECORD_BYTES = 32;
const KEY_BYTES = 8 + 2 + 4;
const NODE_BYTES = NODE_MAX * KEY_BYTES + 1 + 4 + 4;

/** Asked before each growth with the bytes it takes; `false` makes it fail. */
export type AllowGrowth = (bytes: number) => boolean;

/** The arrays. Fields are plain, since the tree's hot loops read them directly. */
export class RangeStore {
  /** Frame of key i of node n at n * NODE_MAX + i. */
  keyPfns = new Float64Array(0);
  /** Offset of that key in its frame. */
  keyOffsets = new Uint16Array(0);
  /** Record or child of that key. */
  references = new Int32Array(0);
  /** Keys of each node. */
  counts = new Uint8Array(0);
  /** Leaf before, or the next free node. */
  before = new Int32Array(0);
  /** Leaf after. */
  after = new Int32Array(0);

  /** Record r: [4r] last frame, [4r + 1] value frame. */
  recordFloats = new Float64Array(0);
  /** The same bytes: [8r + 4] last offset, [8r + 5] value offset, [8r + 6] flags. */
  recordWords = new Uint32Array(0);

  readonly #recordsMax: number;
  readonly #allow: AllowGrowth | null;
  /** Numbers of records that were given back. */
  #freeRecords = new Int32Array(0);
  #freeRecordCount = 0;
  #recordsUsed = 0;
  #recordCapacity = 0;
  #freeNode = NONE;
  #freeNodeCount = 0;
  #nodesUsed = 0;
  #nodeCapacity = 0;

  constructor(recordsMax: number, allow: AllowGrowth | null) {
    this.#recordsMax = recordsMax;
    this.#allow = allow;
  }

  /** Bytes held, used or not. */
  get bytes(): number {
    return this.#recordCapacity * (RECORD_BYTES + 4) + this.#nodeCapacity * NODE_BYTES;
  }

  /**
   * Makes room for one more record and for the nodes that a split of every level takes.
   *
   * @returns false when that is not allowed or memory is short; then nothing has changed
   */
  reserve(): boolean {
    if (this.#freeRecordCount === 0 && this.#recordsUsed === this.#recordCapacity) {
      const capacity = Math.min(Math.max(this.#recordCapacity * 2, 8), this.#recordsMax);
      if (capacity === this.#recordCapacity || !this.#growRecords(capacity)) return false;
    }
    if (this.#freeNodeCount + this.#nodeCapacity - this.#nodesUsed < LEVELS_MAX) {
      const capacity = this.#nodeCapacity === 0 ? LEVELS_MAX + 1 : this.#nodeCapacity * 2;
      return this.#growNodes(capacity);
    }
    return true;
  }

  /** Takes a record out of what `reserve` made room for. */
  takeRecord(): number {
    if (this.#freeRecordCount > 0) {
      this.#freeRecordCount -= 1;
      return this.#freeRecords[this.#freeRecordCount]!;
    }
    this.#recordsUsed += 1;
    return this.#recordsUsed - 1;
  }

  /** Takes an empty node out of what `reserve` made room for. */
  takeNode(): number {
    let node = this.#freeNode;
    if (node === NONE) {
      node = this.#nodesUsed;
      this.#nodesUsed += 1;
    } else {
      this.#freeNode = this.before[node]!;
      this.#freeNodeCount -= 1;
    }
    this.counts[node] = 0;
    this.before[node] = NONE;
    this.after[node] = NONE;
    return node;
  }

  /** Gives an inner node back. */
  freeNode(node: number): void {
    this.before[node] = this.#freeNode;
    this.#freeNode = node;
    this.#freeNodeCount += 1;
  }

  /** Takes a leaf out of the chain and gives it back. */
  freeLeaf(node: number): void {
    const before = this.before[node]!;
    const after = this.after[node]!;
    if (before !== NONE) this.after[before] = after;
    if (after !== NONE) this.before[after] = before;
    this.freeNode(node);
  }

  /** Puts a fresh leaf into the chain behind another. */
  linkAfter(node: number, fresh: number): void {
    const after = this.after[node]!;
    this.before[fresh] = node;
    this.after[fresh] = after;
    this.after[node] = fresh;
    if (after !== NONE) this.before[after] = fresh;
  }

  /** Gives the records of keys [from, end) of a leaf back. */
  freeRecords(node: number, from: number, end: number): void {
    const references = this.references;
    const free = this.#freeRecords;
    const base = node * NODE_MAX;
    let top = this.#freeRecordCount;
    for (let index = base + from; index < base + end; index += 1) {
      free[top] = references[index]!;
      top += 1;
    }
    this.#freeRecordCount = top;
  }

  /** Opens a gap at `index` of a node that is not full and fills it. */
  insertKey(node: number, index: number, pfn: number, offset: number, reference: number): void {
    const { keyPfns, keyOffsets, references } = this;
    const at = node * NODE_MAX + index;
    for (let to = node * NODE_MAX + this.counts[node]!; to > at; to -= 1) {
      keyPfns[to] = keyPfns[to - 1]!;
      keyOffsets[to] = keyOffsets[to - 1]!;
      references[to] = references[to - 1]!;
    }
    keyPfns[at] = pfn;
    keyOffsets[at] = offset;
    references[at] = reference;
    this.counts[node] = this.counts[node]! + 1;
  }

  /** Closes the gap that keys [from, end) leave. */
  removeKeys(node: number, from: number, end: number): void {
    const { keyPfns, keyOffsets, references } = this;
    const stop = node * NODE_MAX + this.counts[node]!;
    let to = node * NODE_MAX + from;
    for (let index = node * NODE_MAX + end; index < stop; index += 1) {
      keyPfns[to] = keyPfns[index]!;
      keyOffsets[to] = keyOffsets[index]!;
      references[to] = references[index]!;
      to += 1;
    }
    this.counts[node] = this.counts[node]! - (end - from);
  }

  /** Copies `count` keys from one place to another; the counts stay as they are. */
  copyKeys(from: number, fromIndex: number, to: number, toIndex: number, count: number): void {
    const source = from * NODE_MAX + fromIndex;
    const target = to * NODE_MAX + toIndex;
    this.keyPfns.copyWithin(target, source, source + count);
    this.keyOffsets.copyWithin(target, source, source + count);
    this.references.copyWithin(target, source, source + count);
  }

  /** Forgets everything and lets the arrays go. */
  clear(): void {
    this.keyPfns = new Float64Array(0);
    this.keyOffsets = new Uint16Array(0);
    this.references = new Int32Array(0);
    this.counts = new Uint8Array(0);
    this.before = new Int32Array(0);
    this.after = new Int32Array(0);
    this.recordFloats = new Float64Array(0);
    this.recordWords = new Uint32Array(0);
    this.#freeRecords = new Int32Array(0);
    this.#freeRecordCount = 0;
    this.#recordsUsed = 0;
    this.#recordCapacity = 0;
    this.#freeNode = NONE;
    this.#freeNodeCount = 0;
    this.#nodesUsed = 0;
    this.#nodeCapacity = 0;
  }

  #growRecords(capacity: number): boolean {
    if (this.#allow !== null && !this.#allow(capacity * (RECORD_BYTES + 4))) return false;
    try {
      const floats = new Float64Array(capacity * (RECORD_BYTES / 8));
      const free = new Int32Array(capacity);
      floats.set(this.recordFloats);
      free.set(this.#freeRecords);
      this.recordFloats = floats;
      this.recordWords = new Uint32Array(floats.buffer);
      this.#freeRecords = free;
      this.#recordCapacity = capacity;
      return true;
    } catch {
      return false; // The engine has no memory for arrays of this size.
    }
  }

  #growNodes(capacity: number): boolean {
    if (this.#allow !== null && !this.#allow(capacity * NODE_BYTES)) return false;
    try {
      const keyPfns = new Float64Array(capacity * NODE_MAX);
      const keyOffsets = new Uint16Array(capacity * NODE_MAX);
      const references = new Int32Array(capacity * NODE_MAX);
      const counts = new Uint8Array(capacity);
      const before = new Int32Array(capacity);
      const after = new Int32Array(capacity);
      keyPfns.set(this.keyPfns);
      keyOffsets.set(this.keyOffsets);
      references.set(this.references);
      counts.set(this.counts);
      before.set(this.before);
      after.set(this.after);
      this.keyPfns = keyPfns;
      this.keyOffsets = keyOffsets;
      this.references = references;
      this.counts = counts;
      this.before = before;
      this.after = after;
      this.#nodeCapacity = capacity;
      return true;
    } catch {
      return false;
    }
  }
}
