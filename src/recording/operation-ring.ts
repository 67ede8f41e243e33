/**
 * Operations that wait for their unmap, in order: a ring of columns that grows up to a bound.
 *
 * The size of an allocation of several segments shows only when it is unmapped, so an operation
 * stays here until it is settled; past the bound the oldest is settled by its looks.
 */
import { assert } from "../errors.ts";
import type { Operation } from "./operation.ts";
import type { TraceEvent } from "./trace-event.ts";

const COLUMNS = 14;
const KIND = 0;
const ALLOCATION = 1;
const IOVA = 2;
const PAGES = 3;
const SEGMENT = 4;
const SEGMENT_PAGES = 5;
const PHYS = 6;
const LINE = 7;
const TIME_US = 8;
const TIME_NS = 9;
const CPU = 10;
const PID = 11;
const CONTEXT_COMM = 12;
const SLOT = 13;

const OPEN = 1;
const SETTLED = 2;

/** A queue of operations, numbered from 0. */
export class OperationRing {
  /** Number of the oldest operation that is held. */
  head = 0;
  /** Number that the next operation gets. */
  tail = 0;
  readonly #limit: number;
  #size = 256;
  /** Number to place: the low bits, exact for any number below 2^53. */
  #mask = this.#size - 1;
  #cells: Float64Array<ArrayBuffer> = new Float64Array(this.#size * COLUMNS);
  #state: Uint8Array<ArrayBuffer> = new Uint8Array(this.#size);

  /** @param limit - how many are held at most; a power of two of at least 256 */
  constructor(limit: number) {
    assert(limit >= 256, "a window of operations has at least 256 places");
    assert(Number.isInteger(Math.log2(limit)), "a window is a power of two");
    this.#limit = limit;
  }

  /** No further operation fits: the oldest must be settled and taken out first. */
  get full(): boolean {
    return this.tail - this.head === this.#limit;
  }

  /** Adds an operation that belongs to an event; returns its number. */
  push(kind: number, event: TraceEvent): number {
    assert(!this.full, "the caller makes room first");
    if (this.tail - this.head === this.#size) this.#grow();
    const number = this.tail;
    this.tail += 1;
    const cells = this.#cells;
    const base = (number & this.#mask) * COLUMNS;
    cells[base + KIND] = kind;
    cells[base + ALLOCATION] = -1;
    cells[base + IOVA] = event.iovaPfn;
    cells[base + PAGES] = event.pages;
    cells[base + SEGMENT] = event.iovaPfn;
    cells[base + SEGMENT_PAGES] = event.pages;
    cells[base + PHYS] = event.physPfn;
    cells[base + LINE] = event.line;
    cells[base + TIME_US] = event.timeUs;
    cells[base + TIME_NS] = event.timeNs;
    cells[base + CPU] = event.cpu;
    cells[base + PID] = event.pid;
    cells[base + CONTEXT_COMM] = event.context + event.comm * 256;
    cells[base + SLOT] = -1;
    this.#state[number & this.#mask] = 0;
    return number;
  }

  /** Notes the live mapping that an operation made. */
  setSlot(number: number, slot: number): void {
    this.#cells[(number & this.#mask) * COLUMNS + SLOT] = slot;
  }

  /** The live mapping that an operation made. */
  slotOf(number: number): number {
    return this.#cells[(number & this.#mask) * COLUMNS + SLOT]!;
  }

  /** Whether an operation is still held. */
  holds(number: number): boolean {
    return number >= this.head;
  }

  /** Whether an operation that is held is settled. */
  isSettled(number: number): boolean {
    return (this.#state[number & this.#mask]! & SETTLED) !== 0;
  }

  /** Says what an operation is: it may leave once those before it have left. */
  settle(
    number: number,
    kind: number,
    allocation: number,
    range: { iovaPfn: number; pages: number; open: boolean },
  ): void {
    const base = (number & this.#mask) * COLUMNS;
    const cells = this.#cells;
    cells[base + KIND] = kind;
    cells[base + ALLOCATION] = allocation;
    cells[base + IOVA] = range.iovaPfn;
    cells[base + PAGES] = range.pages;
    this.#state[number & this.#mask] = range.open ? SETTLED | OPEN : SETTLED;
  }

  /** Takes the oldest operation out, if it is settled. */
  shift(out: Operation): boolean {
    if (this.head === this.tail) return false;
    const state = this.#state[this.head & this.#mask]!;
    if ((state & SETTLED) === 0) return false;
    const base = (this.head & this.#mask) * COLUMNS;
    const cells = this.#cells;
    out.kind = cells[base + KIND]!;
    out.allocation = cells[base + ALLOCATION]!;
    out.iovaPfn = cells[base + IOVA]!;
    out.pages = cells[base + PAGES]!;
    out.segmentPfn = cells[base + SEGMENT]!;
    out.segmentPages = cells[base + SEGMENT_PAGES]!;
    out.physPfn = cells[base + PHYS]!;
    out.line = cells[base + LINE]!;
    out.timeUs = cells[base + TIME_US]!;
    out.timeNs = cells[base + TIME_NS]!;
    out.cpu = cells[base + CPU]!;
    out.pid = cells[base + PID]!;
    const contextComm = cells[base + CONTEXT_COMM]!;
    out.context = contextComm % 256;
    out.comm = Math.floor(contextComm / 256);
    out.open = (state & OPEN) !== 0;
    this.head += 1;
    return true;
  }

  #grow(): void {
    const size = this.#size * 2;
    const cells = new Float64Array(size * COLUMNS);
    const state = new Uint8Array(size);
    for (let number = this.head; number < this.tail; number += 1) {
      const from = number & this.#mask;
      const to = number & (size - 1);
      cells.set(this.#cells.subarray(from * COLUMNS, (from + 1) * COLUMNS), to * COLUMNS);
      state[to] = this.#state[from]!;
    }
    this.#size = size;
    this.#mask = size - 1;
    this.#cells = cells;
    this.#state = state;
  }
}
