/**
 * The store of every cache in an IOMMU: a set-associative array whose entries stand for aligned
 * blocks of I/O virtual addresses and carry a domain tag and a PASID tag.
 *
 * IOTLB, paging-structure cache and ATS cache are this array with different values in it. Blocks of
 * several sizes live side by side, so a search asks for one size at a time. An entry is named by
 * its slot (`set * ways + way`), which stays its own until it is displaced or invalidated. A slot can
 * be held for something else meanwhile: then it has no entry, takes none and is no victim.
 *
 * Source of what an entry is tagged with: Intel VT-d specification, 6.2.1 "Tagging of Cached
 * Translations". Budget: 15 ns a search in 8 ways, no allocation (bench/iotlb.bench.ts).
 */
import { assert } from "../errors.ts";
import { isPowerOfTwo } from "../units.ts";
import { Replacement, type ReplacementPolicy, SEARCHED_WAYS_MAX } from "./replacement.ts";
import { FreeWays, TagIndex } from "./tag-index.ts";

/** Size and policy of a cache. */
export interface CacheGeometry {
  /** A power of two. */
  readonly sets: number;
  readonly ways: number;
  readonly replacement: ReplacementPolicy;
  /** Seed of random replacement, 0 without it. */
  readonly seed?: number;
}

/** PASID tag of requests without a PASID. */
export const NO_PASID = -1;
/** Stands for every PASID tag in an invalidation. */
export const ANY_PASID = -2;
/** The largest PASID: 20 bits. Source: PCI Express Base, "PASID TLP Prefix". */
export const PASID_LAST = 2 ** 20 - 1;

/** 4 KiB frames in a block, by log2 of its size in bytes; looked up, as powers cost a call. */
export const FRAMES_OF_SHIFT = Float64Array.from({ length: 64 }, (_, shift) => 2 ** (shift - 12));

const SLOTS_MAX = 2 ** 20;
const EMPTY = -1;
/** Of a slot that is held: not empty, and no block's. */
const HELD = -2;

/** Set-associative array of tagged, aligned address blocks. */
export class TagArray {
  readonly ways: number;
  readonly slotCount: number;
  /** Whether the last {@link insert} displaced an entry. */
  evicted = false;
  readonly #setMask: number;
  readonly #replacement: Replacement;
  /** Where entries and free ways are of sets with many ways; null where a search is faster. */
  readonly #index: TagIndex | null;
  readonly #free: FreeWays | null;
  readonly #heldOf: Int32Array;
  /** Number of the block an entry stands for, counted in blocks of its size; −1 = empty. */
  readonly #blocks: Float64Array;
  readonly #domains: Int32Array;
  /** PASID tag + 1, times 64, plus log2 of the block size in bytes. */
  readonly #kinds: Int32Array;
  readonly #values: Float64Array;
  readonly #rights: Uint8Array;
  /** Live entries by log2 of the block size. */
  readonly #liveOf = new Int32Array(64);
  /** Block sizes that entries had so far, log2 of bytes, in order of appearance. */
  readonly #shifts: number[] = [];
  #live = 0;

  constructor(geometry: CacheGeometry) {
    const { sets, ways, replacement, seed = 0 } = geometry;
    assert(Number.isSafeInteger(sets) && isPowerOfTwo(sets), "sets are a power of two");
    assert(Number.isSafeInteger(ways) && ways >= 1, "a set has at least one way");
    assert(sets * ways <= SLOTS_MAX, "a cache has at most 2^20 entries");
    this.ways = ways;
    this.slotCount = sets * ways;
    this.#setMask = sets - 1;
    this.#replacement = new Replacement(replacement, sets, ways, seed);
    this.#blocks = new Float64Array(this.slotCount).fill(EMPTY);
    this.#domains = new Int32Array(this.slotCount);
    this.#kinds = new Int32Array(this.slotCount);
    this.#values = new Float64Array(this.slotCount);
    this.#rights = new Uint8Array(this.slotCount);
    this.#heldOf = new Int32Array(sets);
    const isLarge = ways > SEARCHED_WAYS_MAX;
    const columns = { blocks: this.#blocks, domains: this.#domains, kinds: this.#kinds };
    this.#index = isLarge ? new TagIndex(columns) : null;
    this.#free = isLarge ? new FreeWays(sets, ways) : null;
  }

  /** Entries in use. */
  get live(): number {
    return this.#live;
  }

  /** Entries in use that stand for blocks of 2^blockShift bytes. */
  liveOf(blockShift: number): number {
    return this.#liveOf[blockShift]!;
  }

  /**
   * Searches for the entry of a block and notes its use.
   *
   * @param blockShift - log2 of the block size in bytes, 12 … 63
   * @param block - address of the block divided by its size
   * @returns its slot, or −1
   */
  find(domainId: number, pasid: number, blockShift: number, block: number): number {
    const slot = this.peek(domainId, pasid, blockShift, block);
    if (slot >= 0) this.#replacement.touch(slot);
    return slot;
  }

  /** Searches like {@link find}, without an effect on replacement. */
  peek(domainId: number, pasid: number, blockShift: number, block: number): number {
    const kind = ((pasid + 1) << 6) | blockShift;
    if (this.#index !== null) return this.#index.find(domainId | 0, kind, block);
    const blocks = this.#blocks;
    // The 32-bit operator keeps the low bits of the block number exactly; more is not asked of it.
    let slot = (block & this.#setMask) * this.ways;
    for (const end = slot + this.ways; slot < end; slot += 1) {
      if (blocks[slot] !== block) continue;
      if (this.#domains[slot] === (domainId | 0) && this.#kinds[slot] === kind) return slot;
    }
    return -1;
  }

  /**
   * Puts an entry in, over the one of the same block if there is one.
   *
   * @param value - any number up to 2^53
   * @param rights - 0 … 255
   * @returns its slot, −1 when all of its set are held; {@link evicted} tells whether another entry
   *   gave way
   */
  insert(
    domainId: number,
    pasid: number,
    blockShift: number,
    block: number,
    value: number,
    rights: number,
  ): number {
    this.evicted = false;
    const kind = ((pasid + 1) << 6) | blockShift;
    let slot = this.peek(domainId, pasid, blockShift, block);
    if (slot < 0) {
      slot = this.#room(block & this.#setMask);
      if (slot < 0) return -1;
      this.#blocks[slot] = block;
      this.#domains[slot] = domainId | 0;
      this.#kinds[slot] = kind;
      this.#free?.take(slot);
      this.#index?.add(slot);
      this.#noteLive(blockShift);
    }
    this.#values[slot] = value;
    this.#rights[slot] = rights;
    this.#replacement.filled(slot);
    return slot;
  }

  /** Whether a slot holds an entry. */
  isLive(slot: number): boolean {
    return this.#blocks[slot]! >= 0;
  }

  /** Value of the entry in a slot. */
  valueAt(slot: number): number {
    return this.#values[slot]!;
  }

  /** Rights of the entry in a slot. */
  rightsAt(slot: number): number {
    return this.#rights[slot]!;
  }

  /** log2 of the size in bytes of the block that the entry in a slot stands for. */
  blockShiftAt(slot: number): number {
    return this.#kinds[slot]! & 63;
  }

  /** First frame of the block that the entry in a slot stands for. */
  firstPfnAt(slot: number): number {
    return this.#blocks[slot]! * FRAMES_OF_SHIFT[this.blockShiftAt(slot)]!;
  }

  /** Domain tag of the entry in a slot, as an unsigned number. */
  domainAt(slot: number): number {
    return this.#domains[slot]! >>> 0;
  }

  /** PASID tag of the entry in a slot. */
  pasidAt(slot: number): number {
    return (this.#kinds[slot]! >> 6) - 1;
  }

  /**
   * Takes a slot of a block's set for something else; an entry gives way if none is free.
   *
   * @returns the slot, until {@link release}; −1 when all of the set are held
   */
  hold(block: number): number {
    this.evicted = false;
    const set = block & this.#setMask;
    const slot = this.#room(set);
    if (slot < 0) return -1;
    this.#blocks[slot] = HELD;
    this.#heldOf[set]! += 1;
    this.#free?.take(slot);
    this.#replacement.hold(slot);
    return slot;
  }

  /** Whether {@link hold} would find a slot. */
  canHold(block: number): boolean {
    return this.#heldOf[block & this.#setMask]! < this.ways;
  }

  /** Gives back a slot that was held. */
  release(slot: number): void {
    assert(this.#blocks[slot] === HELD, "a slot that is released was held");
    this.#blocks[slot] = EMPTY;
    this.#heldOf[(slot / this.ways) | 0]! -= 1;
    this.#free?.free(slot);
    this.#replacement.release(slot);
  }

  /** Empties a slot that holds an entry. */
  removeAt(slot: number): void {
    this.#index?.remove(slot);
    this.#free?.free(slot);
    this.#blocks[slot] = EMPTY;
    this.#live -= 1;
    this.#liveOf[this.#kinds[slot]! & 63]! -= 1;
  }

  /**
   * Removes the entries of a domain that overlap frames `firstPfn` … `lastPfn`, whatever their size.
   *
   * @param pasid - a tag, or {@link ANY_PASID}
   * @returns how many there were
   */
  removeRange(domainId: number, pasid: number, firstPfn: number, lastPfn: number): number {
    if (this.#live === 0) return 0;
    if (pasid === ANY_PASID) return this.#removeByScan(domainId, pasid, firstPfn, lastPfn);
    const before = this.#live;
    for (let index = 0; index < this.#shifts.length; index += 1) {
      const shift = this.#shifts[index]!;
      if (this.#liveOf[shift] === 0) continue;
      const frames = FRAMES_OF_SHIFT[shift]!;
      const firstBlock = Math.floor(firstPfn / frames);
      const lastBlock = Math.floor(lastPfn / frames);
      if (lastBlock - firstBlock >= this.#setMask) {
        this.#removeByScan(domainId, pasid, firstPfn, lastPfn);
        break;
      }
      for (let block = firstBlock; block <= lastBlock; block += 1) {
        const slot = this.peek(domainId, pasid, shift, block);
        if (slot >= 0) this.removeAt(slot);
      }
    }
    return before - this.#live;
  }

  /** Removes the entries of a domain. @returns how many there were */
  removeDomain(domainId: number, pasid: number): number {
    if (this.#live === 0) return 0;
    return this.#removeByScan(domainId, pasid, 0, Number.POSITIVE_INFINITY);
  }

  /** Removes every entry. @returns how many there were */
  clear(): number {
    const removed = this.#live;
    for (let slot = 0; slot < this.slotCount; slot += 1) {
      if (this.#blocks[slot]! < 0) continue;
      this.#blocks[slot] = EMPTY;
      this.#free?.free(slot);
    }
    this.#index?.clear();
    this.#liveOf.fill(0);
    this.#live = 0;
    return removed;
  }

  /** An empty slot of a set, or one whose entry gives way; −1 when all are held. */
  #room(set: number): number {
    if (this.#free !== null) {
      const slot = this.#free.lowest(set);
      if (slot >= 0) return slot;
    } else {
      const first = set * this.ways;
      for (let slot = first; slot < first + this.ways; slot += 1) {
        if (this.#blocks[slot] === EMPTY) return slot;
      }
    }
    return this.#heldOf[set] === this.ways ? -1 : this.#displace(set);
  }

  #displace(set: number): number {
    let slot = this.#replacement.victim(set);
    // A policy that does not go by age may name one that is held: then it is the next one.
    const last = (set + 1) * this.ways - 1;
    while (this.#blocks[slot] === HELD) slot = slot === last ? set * this.ways : slot + 1;
    this.removeAt(slot);
    this.evicted = true;
    return slot;
  }

  #noteLive(blockShift: number): void {
    this.#live += 1;
    this.#liveOf[blockShift]! += 1;
    if (this.#liveOf[blockShift] === 1 && !this.#shifts.includes(blockShift)) {
      this.#shifts.push(blockShift);
    }
  }

  #removeByScan(domainId: number, pasid: number, firstPfn: number, lastPfn: number): number {
    const before = this.#live;
    for (let slot = 0; slot < this.slotCount; slot += 1) {
      const block = this.#blocks[slot]!;
      if (block < 0 || this.#domains[slot] !== (domainId | 0)) continue;
      const kind = this.#kinds[slot]!;
      if (pasid !== ANY_PASID && kind >> 6 !== pasid + 1) continue;
      const frames = FRAMES_OF_SHIFT[kind & 63]!;
      if (block * frames > lastPfn || (block + 1) * frames <= firstPfn) continue;
      this.removeAt(slot);
    }
    return before - this.#live;
  }
}
