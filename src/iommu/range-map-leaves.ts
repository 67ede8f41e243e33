/**
 * The leaves of a range map: the ranges themselves, eight to a leaf, in one buffer.
 *
 * Each leaf is a block of 288 bytes, so that a look-up meets one page and few cache lines. A range
 * stays in its slot; only the leaf's order changes, eight slot numbers of four bits in one word (the
 * slots in use by rank, then the free ones), so that insertion and removal move nothing and contain
 * no loop. Free slots start at an infinite frame and end at −1: counting the slots that start at or
 * below a frame gives its rank without a branch that depends on an address (a wrongly predicted
 * branch costs as much as ten comparisons). Leaves are linked both ways.
 *
 * Fences tell which frames belong to a leaf without a look at the tree: from `LOW` to below `HIGH`.
 * They may be narrower than what the tree sends here, never wider, and no range of an earlier leaf
 * reaches `LOW`.
 */

/** Ranges of a full leaf. */
export const LEAF_MAX = 8;
/** A leaf with fewer ranges takes some from a neighbour or joins it. */
export const LEAF_MIN = 2;
/** Stands for "no leaf" and "no position". */
export const NONE = -1;
/** Told by {@link RangeLeaves.takeFrames}: a frame is taken. */
export const TAKEN = -1;
/** Told by {@link RangeLeaves.takeFrames}: this leaf alone cannot tell. */
export const UNSURE = -2;

/** Floats of a block: [2s] first and [2s + 1] last frame of slot s, then what follows. */
export const LEAF_FLOATS = 36;
/** Float: lowest frame that surely belongs here; infinite in a leaf that is not in use. */
export const LOW = 16;
/** Float: the frame above the highest one that surely belongs here. */
export const HIGH = 17;
/** Float of slot 0's value frame; slot s two floats a slot further. */
const VALUE = 20;

/** The same block in words: slots by rank. */
const ORDER = 36;
/** Word: ranges in the leaf. */
const COUNT = 37;
/** Word: leaf before plus 1, or the next free leaf plus 1. */
const BEFORE = 38;
/** Word: leaf after plus 1. */
const AFTER = 39;
/** Word of slot 0: first offset, last offset << 12, flags << 24; slot s four words a slot further. */
const OFFSETS = 42;
/** Word of slot 0: value offset, flags above bit 7 << 12. */
const VALUE_OFFSET = 43;
const LEAF_WORDS = 2 * LEAF_FLOATS;
const ORDER_FRESH = 0x7654_3210;

/** The leaves. Fields are plain, since the map's hot paths read them directly. */
export class RangeLeaves {
  floats = new Float64Array(0);
  words = new Uint32Array(0);
  capacity = 0;
  #taken = 0;
  #free = NONE;

  /** Whether `take` can be called without growth. */
  get hasRoom(): boolean {
    return this.#free !== NONE || this.#taken < this.capacity;
  }

  /** Takes an empty leaf for the frames from `low` to below `high`; there must be room. */
  take(low: number, high: number): number {
    let leaf = this.#free;
    if (leaf === NONE) {
      leaf = this.#taken;
      this.#taken += 1;
    } else {
      this.#free = this.before(leaf);
    }
    const { floats, words } = this;
    const at = leaf * LEAF_FLOATS;
    for (let slot = 0; slot < LEAF_MAX; slot += 1) {
      floats[at + 2 * slot] = Infinity;
      floats[at + 2 * slot + 1] = -1;
    }
    floats[at + LOW] = low;
    floats[at + HIGH] = high;
    words[2 * at + ORDER] = ORDER_FRESH;
    words[2 * at + COUNT] = 0;
    words[2 * at + BEFORE] = 0;
    words[2 * at + AFTER] = 0;
    return leaf;
  }

  /** Takes a leaf, ranges and all, out of the chain and gives it back. */
  release(leaf: number): void {
    this.unlink(leaf, leaf);
    this.forget(leaf);
  }

  /** Takes the leaves from one to another out of the chain. */
  unlink(first: number, last: number): void {
    const before = this.before(first);
    const after = this.after(last);
    if (before !== NONE) this.words[before * LEAF_WORDS + AFTER] = after + 1;
    if (after !== NONE) this.words[after * LEAF_WORDS + BEFORE] = before + 1;
  }

  /** Gives a leaf that is out of the chain back. */
  forget(leaf: number): void {
    this.words[leaf * LEAF_WORDS + BEFORE] = this.#free + 1;
    this.floats[leaf * LEAF_FLOATS + LOW] = Infinity;
    this.#free = leaf;
  }

  /** Puts a fresh leaf into the chain behind another. */
  linkAfter(leaf: number, fresh: number): void {
    const words = this.words;
    const after = this.after(leaf);
    words[fresh * LEAF_WORDS + BEFORE] = leaf + 1;
    words[fresh * LEAF_WORDS + AFTER] = after + 1;
    words[leaf * LEAF_WORDS + AFTER] = fresh + 1;
    if (after !== NONE) words[after * LEAF_WORDS + BEFORE] = fresh + 1;
  }

  /** Ranges in a leaf. */
  count(leaf: number): number {
    return this.words[leaf * LEAF_WORDS + COUNT]!;
  }

  /** The leaf before, or NONE. */
  before(leaf: number): number {
    return this.words[leaf * LEAF_WORDS + BEFORE]! - 1;
  }

  /** The leaf after, or NONE. */
  after(leaf: number): number {
    return this.words[leaf * LEAF_WORDS + AFTER]! - 1;
  }

  /** Moves the low fence up, where a range of an earlier leaf reaches up to `pfn`. */
  keepAbove(leaf: number, pfn: number): void {
    const at = leaf * LEAF_FLOATS + LOW;
    if (this.floats[at]! <= pfn) this.floats[at] = pfn + 1;
  }

  /** Says that the frames of two neighbouring leaves part at `pfn`. */
  setFence(left: number, right: number, pfn: number): void {
    this.floats[left * LEAF_FLOATS + HIGH] = pfn;
    this.floats[right * LEAF_FLOATS + LOW] = pfn;
  }

  /** Whether the fences of a leaf, in use or not, say that a frame belongs to it. */
  owns(leaf: number, pfn: number): boolean {
    const at = leaf * LEAF_FLOATS;
    return this.floats[at + LOW]! <= pfn && pfn < this.floats[at + HIGH]!;
  }

  /** How many ranges of a leaf start in a frame up to `pfn`. */
  countUpTo(leaf: number, pfn: number): number {
    const floats = this.floats;
    const at = leaf * LEAF_FLOATS;
    return (
      (((floats[at]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 2]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 4]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 6]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 8]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 10]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 12]! <= pfn) as unknown as number) | 0) +
      (((floats[at + 14]! <= pfn) as unknown as number) | 0)
    );
  }

  /** Slot of the range of a rank. */
  slotAt(leaf: number, rank: number): number {
    return (this.words[leaf * LEAF_WORDS + ORDER]! >>> (4 * rank)) & 0xf;
  }

  /** Takes a slot of a leaf that is not full for a range of rank `rank`; the caller fills it. */
  insertAt(leaf: number, rank: number): number {
    const words = this.words;
    const at = leaf * LEAF_WORDS;
    const order = words[at + ORDER]!;
    const count = words[at + COUNT]!;
    const slot = (order >>> (4 * count)) & 0xf;
    const below = (1 << (4 * rank)) - 1;
    const used = (1 << (4 * count)) - 1;
    const above = (-1 << (4 * count)) << 4;
    words[at + ORDER] =
      (order & below) | (slot << (4 * rank)) | ((order & used & ~below) << 4) | (order & above);
    words[at + COUNT] = count + 1;
    return slot;
  }

  /**
   * Takes a slot for the frames from `startPfn` to `lastPfn` where this leaf alone tells that they
   * are free; ranges fill whole frames.
   *
   * @returns the slot, which the caller fills; {@link TAKEN}; or {@link UNSURE} when the leaf is
   *   full or a neighbour has to be asked
   */
  takeFrames(leaf: number, startPfn: number, lastPfn: number): number {
    const { floats, words } = this;
    const at = leaf * LEAF_FLOATS;
    if (words[2 * at + COUNT] === LEAF_MAX) return UNSURE;
    if (startPfn < floats[at + LOW]! || lastPfn >= floats[at + HIGH]!) return UNSURE;
    // The slots before and after may be free ones (before the first comes rank 7, which is free in a
    // leaf that is not full): those end below and start above everything.
    const rank = this.countUpTo(leaf, startPfn);
    const order = words[2 * at + ORDER]!;
    const before = (order >>> (4 * rank - 4)) & 0xf;
    const after = (order >>> (4 * rank)) & 0xf;
    if (floats[at + 2 * before + 1]! >= startPfn || floats[at + 2 * after]! <= lastPfn)
      return TAKEN;
    return this.insertAt(leaf, rank);
  }

  /** Rank of the range that is just the frames from `startPfn` to `lastPfn`, or −1. */
  rankOfFrames(leaf: number, startPfn: number, lastPfn: number): number {
    const floats = this.floats;
    const rank = this.countUpTo(leaf, startPfn) - 1;
    if (rank < 0) return -1;
    const at = leaf * LEAF_FLOATS + 2 * this.slotAt(leaf, rank);
    return floats[at] === startPfn && floats[at + 1] === lastPfn ? rank : -1;
  }

  /** Gives the slot of rank `rank` back. */
  removeAt(leaf: number, rank: number): void {
    const words = this.words;
    const at = leaf * LEAF_WORDS;
    const order = words[at + ORDER]!;
    const rest = words[at + COUNT]! - 1;
    const slot = (order >>> (4 * rank)) & 0xf;
    const below = (1 << (4 * rank)) - 1;
    const used = (1 << (4 * rest)) - 1;
    const above = (-1 << (4 * rest)) << 4;
    words[at + ORDER] =
      (order & below) | ((order >>> 4) & used & ~below) | (slot << (4 * rest)) | (order & above);
    words[at + COUNT] = rest;
    this.floats[leaf * LEAF_FLOATS + 2 * slot] = Infinity;
    this.floats[leaf * LEAF_FLOATS + 2 * slot + 1] = -1;
  }

  /** Writes a range into a slot. Flags have 28 bits. */
  fill(
    leaf: number,
    slot: number,
    startPfn: number,
    startOffset: number,
    lastPfn: number,
    lastOffset: number,
    valuePfn: number,
    valueOffset: number,
    flags: number,
  ): void {
    const at = leaf * LEAF_FLOATS + 2 * slot;
    this.floats[at] = startPfn;
    this.floats[at + 1] = lastPfn;
    this.floats[at + VALUE] = valuePfn;
    this.words[2 * at + OFFSETS] = startOffset | (lastOffset << 12) | (flags << 24);
    this.words[2 * at + VALUE_OFFSET] = valueOffset | ((flags >>> 8) << 12);
  }

  /** Moves a range from one leaf to another. */
  move(from: number, fromRank: number, to: number, toRank: number): void {
    const { floats, words } = this;
    const source = from * LEAF_FLOATS + 2 * this.slotAt(from, fromRank);
    const target = to * LEAF_FLOATS + 2 * this.insertAt(to, toRank);
    floats[target] = floats[source]!;
    floats[target + 1] = floats[source + 1]!;
    floats[target + VALUE] = floats[source + VALUE]!;
    words[2 * target + OFFSETS] = words[2 * source + OFFSETS]!;
    words[2 * target + VALUE_OFFSET] = words[2 * source + VALUE_OFFSET]!;
    this.removeAt(from, fromRank);
  }

  /** First frame of the range of a rank. */
  startPfn(leaf: number, rank: number): number {
    return this.floats[leaf * LEAF_FLOATS + 2 * this.slotAt(leaf, rank)]!;
  }

  /** Last frame of the range of a rank. */
  lastPfn(leaf: number, rank: number): number {
    return this.floats[leaf * LEAF_FLOATS + 2 * this.slotAt(leaf, rank) + 1]!;
  }

  /** Frame of its value. */
  valuePfn(leaf: number, rank: number): number {
    return this.floats[leaf * LEAF_FLOATS + 2 * this.slotAt(leaf, rank) + VALUE]!;
  }

  /** Offsets and flags of a range: first offset, last offset << 12, low flags << 24. */
  offsets(leaf: number, rank: number): number {
    return this.words[leaf * LEAF_WORDS + 4 * this.slotAt(leaf, rank) + OFFSETS]!;
  }

  /** Offset of the value of a range, and high flags << 12. */
  valueOffset(leaf: number, rank: number): number {
    return this.words[leaf * LEAF_WORDS + 4 * this.slotAt(leaf, rank) + VALUE_OFFSET]!;
  }

  /** Bytes that a growth to `capacity` leaves takes. */
  bytesFor(capacity: number): number {
    return capacity * LEAF_FLOATS * 8;
  }

  /** Makes room for `capacity` leaves; throws what the engine throws, and then nothing changed. */
  grow(capacity: number): void {
    const floats = new Float64Array(capacity * LEAF_FLOATS);
    const words = new Uint32Array(floats.buffer);
    words.set(this.words);
    this.floats = floats;
    this.words = words;
    this.capacity = capacity;
  }
}
