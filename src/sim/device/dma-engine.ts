/**
 * A device that does small DMA as fast as it can: a bounded number of reads in flight, an interval
 * between two, a PCIe link in each direction, and memory behind the IOMMU.
 *
 *     read   issue ─ up ─▶ translated ─▶ memory ─ down ─▶ done, in the order of issue
 *     write  issue ─ up ─▶ translated ─▶ done: posted, nobody answers
 *
 * Source of the rules: PCI Express Base 5.0, 2.4.1 (posted requests stay in order, and so do the
 * completions of this device's reads here, as its engine retires them like a ring of descriptors).
 */
import { assert } from "../../errors.ts";
import type { Engine } from "../engine.ts";
import { Link, type LinkSpeed, type LinkUse } from "../link.ts";
import type { TimedUnit } from "./timed-unit.ts";

/** How fast a device and what it reaches are. */
export interface DmaEngineSpeed {
  /** Requests whose end the device waits for: reads not answered, or writes not taken. */
  readonly inFlight: number;
  /** Shortest time between two requests, picoseconds. */
  readonly gap: number;
  readonly up: LinkSpeed;
  readonly down: LinkSpeed;
  /** Bytes of one access. */
  readonly bytes: number;
}

/** What a device does. */
export interface DmaEngineOptions extends DmaEngineSpeed {
  readonly engine: Engine;
  /** Null without translation. */
  readonly unit: TimedUnit | null;
  readonly rid: number;
  readonly isWrite: boolean;
  /** Accesses after which it stops; without it, it goes on for ever. */
  readonly limit?: number;
  /** The frame of the next access. */
  next(): number;
  /** What memory takes for the access, picoseconds. */
  memory(): number;
  /** An access is done. @param time - since it was issued, picoseconds */
  done(time: number): void;
}

/** Framing, sequence number, header with 64-bit address and LCRC of a request; of a completion. */
const REQUEST_BYTES = 24;
const COMPLETION_BYTES = 20;

/** The device. */
export class DmaEngine {
  readonly #options: DmaEngineOptions;
  readonly #up: Link;
  readonly #down: Link;
  readonly #issued: Float64Array;
  readonly #accesses: Int32Array;
  readonly #answered: Uint8Array;
  readonly #sent: number;
  readonly #arrived: number;
  readonly #translated: number;
  readonly #read: number;
  readonly #answer: number;
  #nextIssue = 0;
  #left: number;
  #head = 0;
  #tail = 0;

  constructor(options: DmaEngineOptions) {
    const { engine, inFlight, up, down, isWrite } = options;
    assert(inFlight >= 1, "a device has at least one request in flight");
    this.#options = options;
    this.#left = options.limit ?? Number.POSITIVE_INFINITY;
    this.#up = new Link(engine, up);
    this.#down = new Link(engine, down);
    this.#issued = new Float64Array(inFlight);
    this.#accesses = new Int32Array(inFlight);
    this.#answered = new Uint8Array(inFlight);
    const sentBytes = REQUEST_BYTES + (isWrite ? options.bytes : 0);
    this.#sent = engine.define((slot) => {
      this.#issued[slot] = engine.now;
      this.#up.send(sentBytes, this.#arrived, slot);
    });
    this.#arrived = engine.define((slot) => this.#arrive(slot));
    this.#translated = engine.define((slot) => {
      if (isWrite) this.#end(slot);
      else engine.after(options.memory(), this.#read, slot);
    });
    const answerBytes = COMPLETION_BYTES + options.bytes;
    this.#read = engine.define((slot) => this.#down.send(answerBytes, this.#answer, slot));
    this.#answer = engine.define((slot) => this.#end(slot));
  }

  /** Starts. */
  start(): void {
    for (let count = 0; count < this.#options.inFlight; count += 1) this.#issue();
  }

  /** What went over the link so far. */
  use(): { readonly up: LinkUse; readonly down: LinkUse } {
    return { up: this.#up.use(), down: this.#down.use() };
  }

  #issue(): void {
    if (this.#left === 0) return;
    this.#left -= 1;
    const { engine, gap, inFlight } = this.#options;
    const time = Math.max(engine.now, this.#nextIssue);
    this.#nextIssue = time + gap;
    const slot = this.#tail;
    this.#tail = (slot + 1) % inFlight;
    engine.at(time, this.#sent, slot);
  }

  #arrive(slot: number): void {
    const { engine, unit, rid, isWrite, next } = this.#options;
    const pfn = next();
    if (unit === null) engine.after(0, this.#translated, slot);
    else this.#accesses[slot] = unit.access(rid, pfn, !isWrite, this.#translated, slot);
  }

  /** Requests end in the order of their issue: one that is ready waits for those before it. */
  #end(ready: number): void {
    const { engine, unit, inFlight, isWrite, done } = this.#options;
    this.#answered[ready] = 1;
    for (let slot = this.#head; this.#answered[slot] === 1; slot = this.#head) {
      this.#answered[slot] = 0;
      this.#head = (slot + 1) % inFlight;
      if (unit !== null && !isWrite) unit.release(this.#accesses[slot]!);
      done(engine.now - this.#issued[slot]!);
      this.#issue();
    }
  }
}
