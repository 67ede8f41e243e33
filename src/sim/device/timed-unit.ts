/**
 * An IOMMU in virtual time: the IOTLB, paging-structure cache and page tables are the real ones of a
 * unit, a walk holds one of its walkers for as long as the entries that it reads cost.
 *
 *     arrives ─┬─ IOTLB hit ──────────────────────────────────┬─▶ translated
 *              └─ miss ─▶ waits for a walker ─▶ walk, fill ───┘
 *                                  └─ nothing there ─▶ fault handler, if there is one ─▶ walks again
 *
 * An access that expects an answer holds an entry of the IOTLB from its arrival until it is
 * answered, and a walk holds the entry that it will fill. Held entries are of no use to others, so
 * the IOTLB is smaller the more is in flight. No vendor documents this; that it is so is deduced
 * from the difference of latency and throughput in the measurements of pcie-bench (docs/reproduce.md).
 *
 * Hot path of simulated DMA: bench/timed-translation.bench.ts.
 */
import { assert } from "../../errors.ts";
import type { PagedAttachment } from "../../iommu/device-table.ts";
import { Prot } from "../../iommu/prot.ts";
import { WalkResult } from "../../iommu/table-walk.ts";
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { Step } from "../../meter.ts";
import type { Engine } from "../engine.ts";
import type { Link } from "../link.ts";
import { ServerPool } from "../server-pool.ts";
import { WaitRing } from "../wait-ring.ts";
import type { FaultService } from "./fault-service.ts";
import type { WalkBill } from "./walk-bill.ts";

/** Accesses on their way through one unit. */
export const ACCESSES_MAX = 2 ** 16;

const LINE_BYTES = 64;
/** How often a page is asked for that does not stay; then its access is refused. */
const TRIES_MAX = 16;
const NONE = -1;

/** What a timed unit is made of. */
export interface TimedUnitOptions {
  readonly engine: Engine;
  readonly unit: TranslationUnit;
  /** Meter of the unit and of the tables that it walks. */
  readonly bill: WalkBill;
  readonly walkers: number;
  /** The way of what walks read from other nodes, one link to them all; null for none. */
  readonly interconnect?: Link | null;
  /** Who is told of an access that stalls; without it, a page that is not there refuses it. */
  readonly faults?: FaultService | null;
  /** Keeps walks for a timeline. */
  readonly slices?: WalkSlices | undefined;
}

/** Hears of walks. */
export interface WalkSlices {
  addBeside(track: string, name: string, start: number, end: number): void;
}

/** An access on its way; one record serves any number of them in turn. */
class Access {
  rid = 0;
  pfn = 0;
  isWrite = false;
  attachment: PagedAttachment | null = null;
  /** Accesses to the page, one behind the other. */
  run = 1;
  handler = 0;
  a = 0;
  /** What the lookup took. */
  missTime = 0;
  /** Slot of the entry that it holds, −1 for none; the same for its walk. */
  held = NONE;
  reserved = NONE;
  tries = 0;
  isPending = false;
  isRefused = false;
  /** What its walk found. */
  physPfn = NONE;
  pageShift = 0;
  prot = 0;
}

/** A unit with walkers that take time. */
export class TimedUnit {
  readonly walkers: ServerPool;
  /** What the last {@link begin} took; −1 when it missed, or waits. */
  hitTime = NONE;
  /** Accesses that were refused. */
  refused = 0;
  /** Sums over accesses, picoseconds: waiting for an entry, reads of other nodes. */
  readonly times = { entryWait: 0, way: 0 };
  readonly #engine: Engine;
  readonly #unit: TranslationUnit;
  readonly #bill: WalkBill;
  readonly #interconnect: Link | null;
  readonly #faults: FaultService | null;
  readonly #slices: WalkSlices | null;
  readonly #walk = new WalkResult();
  readonly #accesses: Access[] = [];
  readonly #free: number[] = [];
  /** Accesses that wait for an entry to hold. */
  readonly #waiting = new WaitRing();
  /** The first of them, and since when it waits. */
  #nextWaiting = NONE;
  #nextSince = 0;
  readonly #walkStarts: number;
  readonly #walkEnds: number;
  readonly #served: number;

  constructor(options: TimedUnitOptions) {
    const { engine, unit, bill, walkers, interconnect = null, faults = null } = options;
    this.#engine = engine;
    this.#unit = unit;
    this.#bill = bill;
    this.#interconnect = interconnect;
    this.#faults = faults;
    this.#slices = options.slices ?? null;
    this.walkers = new ServerPool(engine, walkers);
    this.#walkStarts = engine.define((access) => this.#startWalk(access));
    this.#walkEnds = engine.define((access) => this.#endWalk(access));
    this.#served = engine.define((access, isServed) => this.#afterFault(access, isServed === 1));
  }

  /**
   * Accesses to a page arrive, one behind the other; the event comes when all are translated, with
   * `b` 1 when they are refused.
   *
   * @param isWrite - posted, and forgotten; a read holds an entry until {@link release}
   * @param run - how many; behind the first one, each is a hit
   * @returns the number of a read
   */
  access(
    rid: number,
    iovaPfn: number,
    isWrite: boolean,
    handler: number,
    a: number,
    run = 1,
  ): number {
    const access = this.begin(rid, iovaPfn, isWrite, handler, a, run);
    if (this.hitTime >= 0) this.#engine.after(this.hitTime, handler, a);
    return access;
  }

  /** As {@link access}, but when all hit there is no event: {@link hitTime} is what they take. */
  begin(
    rid: number,
    iovaPfn: number,
    isWrite: boolean,
    handler: number,
    a: number,
    run = 1,
  ): number {
    const attachment = this.#unit.devices.find(rid)?.attachment ?? null;
    assert(attachment !== null && attachment.kind === "paged", "a timed device is translated");
    const number = this.#take();
    const access = this.#accesses[number]!;
    access.rid = rid;
    access.pfn = iovaPfn;
    access.isWrite = isWrite;
    access.attachment = attachment;
    access.run = run;
    access.handler = handler;
    access.a = a;
    access.tries = 0;
    access.isPending = true;
    access.isRefused = false;
    this.#lookUp(number, false);
    return number;
  }

  /** A read is answered, or was refused. */
  release(number: number): void {
    const access = this.#accesses[number]!;
    assert(!access.isPending, "what is released was translated or refused");
    if (access.held !== NONE) this.#unit.iotlb.entries.release(access.held);
    access.held = NONE;
    this.#free.push(number);
    this.#wake();
  }

  /** Frame, page size and rights of a read that was translated, until its release. */
  translationOf(number: number): Pick<Access, "physPfn" | "pageShift" | "prot"> {
    return this.#accesses[number]!;
  }

  /**
   * An entry is no longer held: who waits longest goes on, and nobody before it. So the oldest read
   * of a device, which the others are retired after, is never without one for ever.
   */
  #wake(): void {
    const waiting = this.#waiting;
    const { entries } = this.#unit.iotlb;
    for (;;) {
      if (this.#nextWaiting === NONE) {
        if (!waiting.take()) return;
        this.#nextWaiting = waiting.a;
        this.#nextSince = waiting.time;
      }
      const number = this.#nextWaiting;
      if (!entries.canHold(this.#accesses[number]!.pfn)) return;
      this.#nextWaiting = NONE;
      this.times.entryWait += this.#engine.now - this.#nextSince;
      this.#lookUp(number, true);
    }
  }

  /** @param isLate - whether its caller waits for an event in any case */
  #lookUp(number: number, isLate: boolean): void {
    const access = this.#accesses[number]!;
    const { attachment, pfn, isWrite, run } = access;
    const { domainId, pasidTag } = attachment!;
    const { iotlb, node } = this.#unit;
    const { entries } = iotlb;
    this.hitTime = NONE;
    const mustWait = this.#nextWaiting !== NONE || this.#waiting.count > 0;
    if (!isWrite && !isLate && (mustWait || !entries.canHold(pfn))) {
      // Every entry is held: a read will be answered, or a walk end.
      this.#waiting.put(this.#engine.now, 0, number, 0);
      return;
    }
    const bill = this.#bill;
    bill.begin(node);
    const slot = iotlb.lookup(domainId, pasidTag, pfn);
    if (slot >= 0) {
      access.physPfn = iotlb.physPfnAt(slot, pfn);
      access.pageShift = entries.blockShiftAt(slot);
      access.prot = entries.rightsAt(slot);
    }
    if (!isWrite) access.held = entries.hold(pfn);
    access.missTime = bill.time;
    if (slot < 0 || !permits(access)) {
      if (this.walkers.tryAcquire()) this.#startWalk(number);
      else this.walkers.acquire(this.#walkStarts, number);
      return;
    }
    if (run > 1) bill.repeat(Step.iotlbHit, run - 1);
    access.isPending = false;
    if (isWrite) this.#free.push(number);
    if (isLate) this.#engine.after(bill.time, access.handler, access.a);
    else this.hitTime = bill.time;
  }

  #startWalk(number: number): void {
    const access = this.#accesses[number]!;
    const { pfn } = access;
    const { table, domainId, pasidTag } = access.attachment!;
    const { pagingCache: paging, node, iotlb } = this.#unit;
    const { format } = table;
    const walk = this.#walk;
    const bill = this.#bill;
    access.reserved = iotlb.entries.hold(pfn);
    bill.begin(node);
    const level =
      paging === null ? NONE : paging.lookup(format, table.topLevel, domainId, pasidTag, pfn);
    const found =
      level >= 0 ? table.walkFrom(level, paging!.tablePfn, pfn, walk) : table.walk(pfn, walk);
    if (found) paging?.fill(format, domainId, pasidTag, pfn, walk);
    access.physPfn = found ? walk.physPfn : NONE;
    access.pageShift = walk.pageShift;
    access.prot = found ? walk.prot : 0;
    const { now } = this.#engine;
    const end = now + access.missTime + bill.time + this.#onTheWay();
    this.#slices?.addBeside(`walker of ${this.#unit.name}`, "walk", now, end);
    this.#engine.at(end, this.#walkEnds, number);
  }

  /** Time that a walk's reads of other nodes are on their way: one after the other. */
  #onTheWay(): number {
    const link = this.#interconnect;
    const reads = this.#bill.remoteReads;
    if (link === null || reads === 0) return 0;
    const arrival = link.reserve(reads * LINE_BYTES);
    const time = arrival - this.#engine.now + (reads - 1) * link.latency;
    this.times.way += time;
    return time;
  }

  #endWalk(number: number): void {
    const access = this.#accesses[number]!;
    const { pfn, physPfn, pageShift, prot, run } = access;
    const { domainId, pasidTag } = access.attachment!;
    const { iotlb } = this.#unit;
    // A walk that found every entry held caches nothing.
    const canFill = access.reserved !== NONE;
    if (canFill) iotlb.entries.release(access.reserved);
    access.reserved = NONE;
    this.walkers.release();
    const isPermitted = permits(access);
    if (canFill && isPermitted) iotlb.fill(domainId, pasidTag, pfn, physPfn, pageShift, prot);
    this.#wake();
    if (!isPermitted) {
      this.#fault(number);
      return;
    }
    if (run === 1) {
      this.#end(number, 0);
      return;
    }
    this.#bill.begin(this.#unit.node);
    this.#bill.repeat(Step.iotlbHit, run - 1);
    this.#end(number, this.#bill.time);
  }

  #fault(number: number): void {
    const access = this.#accesses[number]!;
    const { rid, pfn, isWrite } = access;
    access.tries += 1;
    if (this.#faults === null || access.tries > TRIES_MAX) this.#afterFault(number, false);
    else this.#faults.report(rid, pfn, isWrite ? Prot.WRITE : Prot.READ, this.#served, number);
  }

  #afterFault(number: number, isServed: boolean): void {
    const access = this.#accesses[number]!;
    if (!isServed) {
      this.refused += 1;
      access.isRefused = true;
      this.#end(number, 0);
      return;
    }
    access.missTime = 0;
    this.walkers.acquire(this.#walkStarts, number);
  }

  #end(number: number, time: number): void {
    const access = this.#accesses[number]!;
    const { handler, a, isWrite, isRefused } = access;
    access.isPending = false;
    if (isWrite) this.#free.push(number);
    const b = isRefused ? 1 : 0;
    if (time === 0) this.#engine.call(handler, a, b);
    else this.#engine.after(time, handler, a, b);
  }

  #take(): number {
    const number = this.#free.pop();
    if (number !== undefined) return number;
    assert(this.#accesses.length < ACCESSES_MAX, "the number of accesses on their way is bounded");
    this.#accesses.push(new Access());
    return this.#accesses.length - 1;
  }
}

function permits({ prot, isWrite }: Access): boolean {
  return (prot & (isWrite ? Prot.WRITE : Prot.READ)) !== 0;
}
