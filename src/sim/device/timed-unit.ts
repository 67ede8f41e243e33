/**
 * An IOMMU in virtual time: the IOTLB, paging-structure cache and page tables are the real ones of a
 * unit, a walk holds one of its walkers for as long as the entries that it reads cost.
 *
 *     arrives ─┬─ IOTLB hit ─────────────────────────────▶ translated
 *              └─ miss ─▶ waits for a walker ─▶ walk, fill ─▶ translated
 *
 * An access that expects an answer holds an entry of the IOTLB from its arrival until it is
 * answered, and a walk holds the entry that it will fill. Held entries are of no use to others, so
 * the IOTLB is smaller the more is in flight. No vendor documents this; that it is so is deduced
 * from the difference of latency and throughput in the measurements of pcie-bench (docs/reproduce.md).
 */
import { assert } from "../../errors.ts";
import type { PagedAttachment } from "../../iommu/device-table.ts";
import { WalkResult } from "../../iommu/table-walk.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import type { TranslationUnit } from "../../iommu/translation-unit.ts";
import { PAGE_SHIFT } from "../../units.ts";
import type { Engine } from "../engine.ts";
import type { Link } from "../link.ts";
import { ServerPool } from "../server-pool.ts";
import type { WalkBill } from "./walk-bill.ts";

/** Accesses on their way through one unit. */
export const ACCESSES_MAX = 4096;

/** Tag of entries that are held: no domain has it. */
const HELD = 0xffff_ffff;
/** Of entries held by walks, to tell them from those of accesses. */
const WALKING = 0xffff_fffe;
const LINE_BYTES = 64;

/** What a timed unit is made of. */
export interface TimedUnitOptions {
  readonly engine: Engine;
  readonly unit: TranslationUnit;
  /** Meter of the unit and of the tables that it walks. */
  readonly bill: WalkBill;
  readonly walkers: number;
  /** The way of what walks read from other nodes, one link to them all; null for none. */
  readonly interconnect?: Link | null;
}

/** A unit with walkers that take time. */
export class TimedUnit {
  readonly walkers: ServerPool;
  readonly #engine: Engine;
  readonly #unit: TranslationUnit;
  readonly #bill: WalkBill;
  readonly #interconnect: Link | null;
  readonly #walk = new WalkResult();
  readonly #free: number[] = [];
  readonly #pfns = new Float64Array(ACCESSES_MAX);
  /** What its walk found. */
  readonly #physPfns = new Float64Array(ACCESSES_MAX);
  readonly #pageShifts = new Int8Array(ACCESSES_MAX);
  readonly #prots = new Uint8Array(ACCESSES_MAX);
  readonly #missTimes = new Float64Array(ACCESSES_MAX);
  readonly #handlers = new Int32Array(ACCESSES_MAX);
  readonly #arguments = new Float64Array(ACCESSES_MAX);
  /** Slot of the entry that an access holds, −1 for none; the same for its walk. */
  readonly #held = new Int32Array(ACCESSES_MAX).fill(-1);
  readonly #reserved = new Int32Array(ACCESSES_MAX).fill(-1);
  readonly #attachments: (PagedAttachment | null)[] = [];
  readonly #walkStarts: number;
  readonly #walkEnds: number;
  /** Accesses that hold an entry, and how many may: so few that what they hold is never oldest. */
  #heldCount = 0;
  readonly #heldMax: number;
  #count = 0;

  constructor(options: TimedUnitOptions) {
    const { engine, unit, bill, walkers, interconnect = null } = options;
    const { entries } = unit.iotlb;
    assert(entries.ways === entries.slotCount, "any entry of a timed unit takes any page");
    this.#heldMax = Math.floor(entries.slotCount / 3);
    assert(walkers <= this.#heldMax, "an IOTLB is three times what its walkers hold");
    this.#engine = engine;
    this.#unit = unit;
    this.#bill = bill;
    this.#interconnect = interconnect;
    this.walkers = new ServerPool(engine, walkers);
    this.#walkStarts = engine.define((access) => this.#startWalk(access));
    this.#walkEnds = engine.define((access) => this.#endWalk(access));
  }

  /**
   * An access arrives; the event comes when it is translated.
   *
   * @param holds - whether it holds an entry until {@link release}
   * @returns the access's number
   */
  access(rid: number, iovaPfn: number, holds: boolean, handler: number, a: number): number {
    const attachment = this.#unit.devices.find(rid)?.attachment ?? null;
    assert(attachment !== null && attachment.kind === "paged", "a timed device is translated");
    const access = this.#take();
    this.#pfns[access] = iovaPfn;
    this.#handlers[access] = handler;
    this.#arguments[access] = a;
    this.#attachments[access] = attachment;
    const { iotlb, node } = this.#unit;
    this.#bill.begin(node);
    const slot = iotlb.lookup(attachment.domainId, attachment.pasidTag, iovaPfn);
    if (holds) {
      assert(this.#heldCount < this.#heldMax, "an IOTLB is three times what is in flight");
      this.#heldCount += 1;
    }
    this.#held[access] = holds ? this.#hold(HELD, access) : -1;
    if (slot >= 0) {
      this.#engine.after(this.#bill.time, handler, a);
      if (!holds) this.#free.push(access);
    } else {
      this.#missTimes[access] = this.#bill.time;
      this.walkers.acquire(this.#walkStarts, access);
    }
    return access;
  }

  /** An access that holds an entry is answered. */
  release(access: number): void {
    this.#drop(this.#held[access]!, HELD, access);
    this.#held[access] = -1;
    this.#heldCount -= 1;
    this.#free.push(access);
  }

  #startWalk(access: number): void {
    const attachment = this.#attachments[access]!;
    const { table, domainId, pasidTag } = attachment;
    const { pagingCache: paging, node } = this.#unit;
    const { format } = table;
    const iovaPfn = this.#pfns[access]!;
    const walk = this.#walk;
    this.#reserved[access] = this.#hold(WALKING, access);
    this.#bill.begin(node);
    const level =
      paging === null ? -1 : paging.lookup(format, table.topLevel, domainId, pasidTag, iovaPfn);
    const found =
      level >= 0
        ? table.walkFrom(level, paging!.tablePfn, iovaPfn, walk)
        : table.walk(iovaPfn, walk);
    assert(found, "a timed access reaches a page");
    paging?.fill(format, domainId, pasidTag, iovaPfn, walk);
    this.#physPfns[access] = walk.physPfn;
    this.#pageShifts[access] = walk.pageShift;
    this.#prots[access] = walk.prot;
    const time = this.#missTimes[access]! + this.#bill.time;
    this.#engine.at(this.#engine.now + time + this.#onTheWay(), this.#walkEnds, access);
  }

  /** Time that a walk's reads of other nodes are on their way: one after the other. */
  #onTheWay(): number {
    const link = this.#interconnect;
    const reads = this.#bill.remoteReads;
    if (link === null || reads === 0) return 0;
    const arrival = link.reserve(reads * LINE_BYTES);
    return arrival - this.#engine.now + (reads - 1) * link.latency;
  }

  #endWalk(access: number): void {
    const { domainId, pasidTag } = this.#attachments[access]!;
    this.#drop(this.#reserved[access]!, WALKING, access);
    this.#unit.iotlb.fill(
      domainId,
      pasidTag,
      this.#pfns[access]!,
      this.#physPfns[access]!,
      this.#pageShifts[access]!,
      this.#prots[access]!,
    );
    this.walkers.release();
    this.#engine.after(0, this.#handlers[access]!, this.#arguments[access]!);
    if (this.#held[access] === -1) this.#free.push(access);
  }

  #hold(tag: number, access: number): number {
    return this.#unit.iotlb.entries.insert(tag, NO_PASID, PAGE_SHIFT, access, access, 0);
  }

  #drop(slot: number, tag: number, access: number): void {
    const { entries } = this.#unit.iotlb;
    // Each access puts two entries in at most, so what is held is younger than what gives way.
    const isStill = entries.domainAt(slot) === tag && entries.valueAt(slot) === access;
    assert(isStill && entries.isLive(slot), "an entry that is held stays");
    entries.removeAt(slot);
  }

  #take(): number {
    const access = this.#free.pop() ?? this.#count;
    if (access === this.#count) {
      assert(access < ACCESSES_MAX, "the number of accesses on their way is bounded");
      this.#count += 1;
    }
    return access;
  }
}
