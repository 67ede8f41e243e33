/**
 * The mappings of a recording that are live, one entry for each map event, found by address.
 *
 * A trace names no domain, so two live mappings may share an address: equal starts form a chain.
 */
import { assert } from "../errors.ts";
import { OrderedMap } from "./ordered-map.ts";

/** How far back a search for an overlap looks once mappings are known to overlap. */
const OVERLAP_STEPS_MAX = 64;
/** How many live mappings one start address may have. */
export const CHAIN_MAX = 64;
/** How many live mappings a recording may have before it is refused. */
export const LIVE_MAX = 2 ** 24;

/** Live mappings. A slot is a small integer that stands for one of them. */
export class LiveMaps {
  iovaPfn: Float64Array<ArrayBuffer> = new Float64Array(64);
  pages: Float64Array<ArrayBuffer> = new Float64Array(64);
  /** Number of the operation that the map event became: see operations.ts. */
  operation: Float64Array<ArrayBuffer> = new Float64Array(64);
  /** The allocation it was counted to, −1 while that is open. */
  allocation: Float64Array<ArrayBuffer> = new Float64Array(64);
  pid: Float64Array<ArrayBuffer> = new Float64Array(64);
  cpu: Int32Array<ArrayBuffer> = new Int32Array(64);
  /** Next slot of the same start, younger, −1 at the end. */
  #next: Int32Array<ArrayBuffer> = new Int32Array(64);
  readonly #byStart = new OrderedMap();
  readonly #free: number[] = [];
  #used = 0;
  #live = 0;
  #pages = 0;
  #overlapping = 0;

  /** Live map events. */
  get size(): number {
    return this.#live;
  }

  /** Their frames, in all. */
  get totalPages(): number {
    return this.#pages;
  }

  /**
   * Adds a mapping. The caller fills in the columns.
   *
   * @param overlaps - what {@link overlapping} said
   */
  insert(iovaPfn: number, pages: number, overlaps: boolean): number {
    assert(pages > 0, "a mapping has at least one page");
    assert(this.#live < LIVE_MAX, "the caller checks how many mappings are live");
    if (overlaps) this.#overlapping += 1;
    const slot = this.#free.pop() ?? this.#newSlot();
    this.iovaPfn[slot] = iovaPfn;
    this.pages[slot] = pages;
    this.#next[slot] = -1;
    const head = this.#byStart.get(iovaPfn);
    if (head < 0) {
      this.#byStart.set(iovaPfn, slot);
    } else {
      let tail = head;
      while (this.#next[tail]! >= 0) tail = this.#next[tail]!;
      this.#next[tail] = slot;
    }
    this.#live += 1;
    this.#pages += pages;
    return slot;
  }

  /** Removes a mapping. */
  remove(slot: number): void {
    const start = this.iovaPfn[slot]!;
    const head = this.#byStart.get(start);
    assert(head >= 0, "a live mapping is found by its start");
    if (head === slot) {
      if (this.#next[slot]! < 0) this.#byStart.delete(start);
      else this.#byStart.set(start, this.#next[slot]!);
    } else {
      let before = head;
      while (this.#next[before] !== slot) before = this.#next[before]!;
      this.#next[before] = this.#next[slot]!;
    }
    this.#free.push(slot);
    this.#live -= 1;
    this.#pages -= this.pages[slot]!;
    if (this.#live === 0) this.#overlapping = 0;
  }

  /** A live mapping that shares a frame with the range, −1 if none does. */
  overlapping(iovaPfn: number, pages: number): number {
    const inside = this.#byStart.keyFrom(iovaPfn);
    if (inside >= 0 && inside < iovaPfn + pages) return this.#byStart.get(inside);
    let below = this.#byStart.keyBelow(iovaPfn);
    let steps = this.#overlapping > 0 ? OVERLAP_STEPS_MAX : 1;
    while (below >= 0 && steps > 0) {
      for (let slot = this.#byStart.get(below); slot >= 0; slot = this.#next[slot]!) {
        if (below + this.pages[slot]! > iovaPfn) return slot;
      }
      below = this.#byStart.keyBelow(below);
      steps -= 1;
    }
    return -1;
  }

  /** The lowest start of a live mapping that is at least `iovaPfn`, −1 if there is none. */
  startFrom(iovaPfn: number): number {
    return this.#byStart.keyFrom(iovaPfn);
  }

  /** The oldest mapping that starts at a frame, −1 if there is none. */
  firstAt(iovaPfn: number): number {
    return this.#byStart.get(iovaPfn);
  }

  /** How many mappings start at a frame. */
  countAt(iovaPfn: number): number {
    let count = 0;
    for (let slot = this.#byStart.get(iovaPfn); slot >= 0; slot = this.#next[slot]!) count += 1;
    return count;
  }

  /**
   * Collects the mappings that make up a range exactly: one mapping of its size if there is one,
   * else consecutive ones.
   *
   * @param cpu - where several fit, one mapped on this CPU is preferred, then the oldest
   * @param out - receives the slots by ascending address
   * @returns how many there are, 0 when no set of whole mappings covers the range
   */
  cover(iovaPfn: number, pages: number, cpu: number, out: number[]): number {
    if (this.#overlapping === 0) return this.#coverPlain(iovaPfn, pages, out);
    const single = this.#choose(iovaPfn, pages, cpu, true);
    if (single >= 0) {
      out[0] = single;
      return 1;
    }
    let count = 0;
    let at = iovaPfn;
    const end = iovaPfn + pages;
    while (at < end) {
      const slot = this.#choose(at, end - at, cpu, false);
      if (slot < 0) return 0;
      out[count] = slot;
      count += 1;
      at += this.pages[slot]!;
    }
    return count;
  }

  /** Covers a range while no two mappings share a frame: the next one is the only candidate. */
  #coverPlain(iovaPfn: number, pages: number, out: number[]): number {
    this.#at = iovaPfn;
    this.#end = iovaPfn + pages;
    const count = this.#byStart.readRun(iovaPfn, out, this.#follows);
    return this.#at === this.#end ? count : 0;
  }

  #at = 0;
  #end = 0;
  readonly #follows = (slot: number): boolean => {
    if (this.iovaPfn[slot] !== this.#at) {
      this.#at = -1;
      return false;
    }
    this.#at += this.pages[slot]!;
    return this.#at < this.#end;
  };

  /** Removes what {@link cover} has just collected. */
  removeCover(slots: readonly number[], count: number): void {
    if (this.#overlapping > 0) {
      for (let index = 0; index < count; index += 1) this.remove(slots[index]!);
      return;
    }
    this.#byStart.deleteRun(this.iovaPfn[slots[0]!]!, count);
    for (let index = 0; index < count; index += 1) {
      const slot = slots[index]!;
      this.#free.push(slot);
      this.#pages -= this.pages[slot]!;
    }
    this.#live -= count;
  }

  #choose(iovaPfn: number, pages: number, cpu: number, exact: boolean): number {
    let found = -1;
    for (let slot = this.#byStart.get(iovaPfn); slot >= 0; slot = this.#next[slot]!) {
      const size = this.pages[slot]!;
      if (exact ? size !== pages : size > pages) continue;
      if (this.cpu[slot] === cpu) return slot;
      if (found < 0) found = slot;
    }
    return found;
  }

  #newSlot(): number {
    const slot = this.#used;
    this.#used += 1;
    if (slot < this.iovaPfn.length) return slot;
    const size = slot * 2;
    this.iovaPfn = grown(this.iovaPfn, size);
    this.pages = grown(this.pages, size);
    this.operation = grown(this.operation, size);
    this.allocation = grown(this.allocation, size);
    this.pid = grown(this.pid, size);
    const cpu = new Int32Array(size);
    cpu.set(this.cpu);
    this.cpu = cpu;
    const next = new Int32Array(size);
    next.set(this.#next);
    this.#next = next;
    return slot;
  }
}

function grown(column: Float64Array, size: number): Float64Array<ArrayBuffer> {
  const next = new Float64Array(size);
  next.set(column);
  return next;
}
