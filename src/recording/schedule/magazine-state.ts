/**
 * Magazines as the search sees them: persistent stacks, so that thousands of states share memory
 * and a state is copied by copying a few references.
 *
 * Source: drivers/iommu/iova.c:__iova_rcache_insert, __iova_rcache_get. The two magazines of a CPU
 * and size class behave as one stack of at most two magazines: the older one is full whenever both
 * hold something. A push onto a full stack sends its upper half, the loaded magazine, to the depot;
 * a pop from an empty one takes the depot's newest magazine.
 */

/** One freed range in a magazine, and all that lie below it. */
export interface Cell {
  readonly below: Cell | null;
  /** Event that freed it. */
  readonly free: number;
  /** Gap in which it came here or into the depot, and the flush that brought it. */
  readonly gap: number;
  readonly flush: FlushNode | null;
  /** Gap in which it came here. */
  readonly since: number;
  /** Ranges from the bottom up to this one. */
  readonly height: number;
  /** What is expected to go wrong with it, by place and by order. */
  readonly placeDoubt: number;
  readonly orderDoubt: number;
  /** CPU that uses the newest range of the loaded magazine next, −1 unknown. */
  readonly label: number;
  /** Doubts of this and everything below. */
  readonly doubt: number;
  readonly hash: number;
}

/** A magazine in the depot. */
export interface DepotMagazine {
  readonly below: DepotMagazine | null;
  /** Frees from the newest to the oldest. */
  readonly frees: Int32Array;
  readonly gap: number;
  readonly flush: FlushNode | null;
  readonly doubt: number;
  readonly hash: number;
}

/** What a hypothesis assumed, newest first. */
export type LogNode = FlushNode | PlacedNode | LateNode | MissNode;

/** A flush of the timer. */
export interface FlushNode {
  readonly kind: "flush";
  readonly previous: LogNode | null;
  readonly gap: number;
  readonly cpu: number;
  /** Rings that the timer's CPU empties at once, in order. */
  readonly rings: readonly number[];
  /** Rings that it empties after an interrupt's free on it emptied its own; event of that free. */
  readonly ringsLater: readonly number[];
  /** Event behind which the flush finishes, −1 at once. */
  readonly finishAfter: number;
  /** Frees traced before the flush and queued after it. */
  readonly inFlight: readonly number[];
  /** By ring: how far it is part of the flush. */
  readonly ends: Int32Array;
  /** It departs from the plain course: all rings at once. */
  readonly isRace: boolean;
}

/** An allocation that is not where and when its event is. */
export interface PlacedNode {
  readonly kind: "placed";
  readonly previous: LogNode | null;
  readonly event: number;
  readonly gap: number;
  readonly cpu: number;
  /** Within the gap it comes before this flush, `null` at its end. */
  readonly before: FlushNode | null;
}

/** A free that an interrupt overtook. */
export interface LateNode {
  readonly kind: "late";
  readonly previous: LogNode | null;
  readonly free: number;
  readonly behind: number;
}

/** An allocation that nothing explains. */
export interface MissNode {
  readonly kind: "miss";
  readonly previous: LogNode | null;
  readonly event: number;
}

/** A list of events that grows at its head. */
export interface EventList {
  readonly event: number;
  readonly gap: number;
  readonly rest: EventList | null;
}

/** One story of what happened so far. */
export class Hypothesis {
  /** By order × CPUs + CPU. */
  stacks: (Cell | null)[];
  depots: (DepotMagazine | null)[];
  /** By CPU: entries of its ring released so far, and how many may be released. */
  released: Int32Array;
  eligible: Int32Array;
  /** Cost so far, and what is expected to come. */
  paid = 0;
  expected = 0;
  log: LogNode | null = null;
  /** Allocations placed before their event was reached. */
  ahead: EventList | null = null;
  /** Allocations from the tree and their gaps, newest first. */
  fresh: EventList | null = null;
  /** Frees whose range was taken by force while it waited in a ring. */
  ghosts: EventList | null = null;
  /** Flush whose handler waits for a free of its own CPU, and one that has not finished. */
  waiting: FlushNode | null = null;
  unfinished: FlushNode | null = null;
  moves = 0;
  flushes = 0;
  misses = 0;

  constructor(stacks: number, orders: number, cpus: number) {
    this.stacks = new Array<Cell | null>(stacks).fill(null);
    this.depots = new Array<DepotMagazine | null>(orders).fill(null);
    this.released = new Int32Array(cpus);
    this.eligible = new Int32Array(cpus);
  }

  /** Cost that hypotheses are compared by. */
  get cost(): number {
    return this.paid + this.expected;
  }

  clone(): Hypothesis {
    const copy = new Hypothesis(0, 0, 0);
    copy.stacks = this.stacks.slice();
    copy.depots = this.depots.slice();
    copy.released = this.released.slice();
    copy.eligible = this.eligible.slice();
    copy.paid = this.paid;
    copy.expected = this.expected;
    copy.log = this.log;
    copy.ahead = this.ahead;
    copy.fresh = this.fresh;
    copy.ghosts = this.ghosts;
    copy.waiting = this.waiting;
    copy.unfinished = this.unfinished;
    copy.moves = this.moves;
    copy.flushes = this.flushes;
    copy.misses = this.misses;
    return copy;
  }

  /** Replaces a stack. */
  setTop(stack: number, cell: Cell | null): void {
    const old = this.stacks[stack]!;
    this.expected += (cell === null ? 0 : cell.doubt) - (old === null ? 0 : old.doubt);
    this.stacks[stack] = cell;
  }

  /** Two hypotheses of the same key go on alike. */
  key(): number {
    let low = 0x811c_9dc5;
    let high = 0x1234_5678;
    for (let stack = 0; stack < this.stacks.length; stack += 1) {
      const cell = this.stacks[stack]!;
      if (cell === null) continue;
      low = mix(low ^ stack, cell.hash);
      high = mix(high ^ cell.hash, stack * 31 + cell.height);
    }
    for (let cpu = 0; cpu < this.released.length; cpu += 1) {
      low = mix(low, this.released[cpu]!);
      high = mix(high, this.eligible[cpu]!);
    }
    for (let order = 0; order < this.depots.length; order += 1) {
      const magazine = this.depots[order]!;
      if (magazine !== null) low = mix(low ^ order, magazine.hash);
    }
    for (let list = this.ahead; list !== null; list = list.rest) high = mix(high, list.event);
    for (let list = this.ghosts; list !== null; list = list.rest) low = mix(low, list.event);
    if (this.waiting !== null) {
      high = mix(high, this.waiting.cpu + 1);
      for (const ring of this.waiting.ringsLater) high = mix(high, ring);
      low = mix(low, this.waiting.finishAfter);
    }
    if (this.unfinished !== null) low = mix(low, this.unfinished.finishAfter + 1);
    return low * 2 ** 21 + (high & 0x1f_ffff);
  }
}

/** Mixes two integers into 32 bits. */
export function mix(a: number, b: number): number {
  let hash = Math.imul(a ^ 0x9e37_79b9, 0x85eb_ca6b) ^ Math.imul(b + 0x7f4a_7c15, 0xc2b2_ae35);
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x2c1b_3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
}
