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
import type { AtsPort } from "./ats-port.ts";
import type { TimedUnit } from "./timed-unit.ts";

/** How fast a device and what it reaches are. */
export interface DmaEngineSpeed {
  /** Requests whose end the device waits for: reads not answered, or writes not taken. */
  readonly inFlight: number;
  /** Shortest time between two requests, picoseconds. */
  readonly gap: number;
  readonly up: LinkSpeed;
  readonly down: LinkSpeed;
  /** Bytes of one request, all in a page. */
  readonly bytes: number;
  /** Bytes of a packet, each of which is translated; without it a request is one packet. */
  readonly payload?: number;
}

/** What a device does. */
export interface DmaEngineOptions extends DmaEngineSpeed {
  readonly engine: Engine;
  /** Null without translation. */
  readonly unit: TimedUnit | null;
  /** Makes the device's side of ATS, over its links; without it requests are untranslated. */
  readonly ats?: ((up: Link, down: Link) => AtsPort) | undefined;
  readonly rid: number;
  readonly isWrite: boolean;
  /** Accesses after which it stops; without it, it goes on for ever. */
  readonly limit?: number;
  /** The frame of the next access. */
  next(): number;
  /** What memory takes for a read, picoseconds: always the same, or one by one. */
  readonly memory: number | (() => number);
  /**
   * A request is done, or was refused.
   *
   * @param time - since it was issued, picoseconds
   */
  done(time: number, isRefused: boolean): void;
}

/** What a device did so far; times are sums over requests, picoseconds. */
export interface DeviceUse {
  readonly completed: number;
  /** From issue to end. */
  readonly latency: number;
  readonly memory: number;
  /** Answered, and waiting for requests before it. */
  readonly orderWait: number;
  readonly up: LinkUse;
  readonly down: LinkUse;
}

/** Framing, sequence number, header with 64-bit address and LCRC of a request; of a completion. */
const REQUEST_BYTES = 24;
const COMPLETION_BYTES = 20;

const VARIES = -1;
const PENDING = -1;

/** The device. */
export class DmaEngine {
  readonly #options: DmaEngineOptions;
  readonly #up: Link;
  readonly #down: Link;
  readonly #issued: Float64Array;
  readonly #accesses: Int32Array;
  /** When it was answered, −1 before. */
  readonly #answered: Float64Array;
  /** Packets of a request, and its bytes on the way up. */
  readonly #packets: number;
  readonly #sentBytes: number;
  readonly #refused: Uint8Array;
  readonly #ats: AtsPort | null;
  /** With ATS: it is time to issue, the address is known, the request has arrived. */
  readonly #due: number;
  readonly #known: number;
  readonly #passed: number;
  readonly #arrived: number;
  readonly #translated: number;
  readonly #answerBytes: number;
  readonly #memoryTime: number;
  readonly #read: number;
  readonly #answer: number;
  #nextIssue = 0;
  #left: number;
  #head = 0;
  #tail = 0;
  #completed = 0;
  #latency = 0;
  #memory = 0;
  #orderWait = 0;

  constructor(options: DmaEngineOptions) {
    const { engine, inFlight, up, down, isWrite, bytes, payload = bytes } = options;
    assert(inFlight >= 1, "a device has at least one request in flight");
    assert(payload > 0, "a packet carries something");
    this.#options = options;
    this.#left = options.limit ?? Number.POSITIVE_INFINITY;
    this.#up = new Link(engine, up);
    this.#down = new Link(engine, down);
    this.#issued = new Float64Array(inFlight);
    this.#accesses = new Int32Array(inFlight);
    this.#answered = new Float64Array(inFlight).fill(PENDING);
    this.#refused = new Uint8Array(inFlight);
    this.#packets = Math.ceil(bytes / payload);
    this.#sentBytes = this.#packets * REQUEST_BYTES + (isWrite ? bytes : 0);
    this.#ats = options.ats?.(this.#up, this.#down) ?? null;
    this.#due = engine.define((slot) => {
      this.#ats!.translate(options.next(), isWrite, this.#known, slot);
    });
    this.#known = engine.define((slot, isRefused) => {
      if (isRefused === 0) this.#up.send(this.#sentBytes, this.#passed, slot);
      else this.#refuse(slot);
    });
    this.#passed = engine.define((slot) => this.#goOn(slot, 0));
    this.#arrived = engine.define((slot) => this.#arrive(slot));
    this.#answerBytes = this.#packets * COMPLETION_BYTES + bytes;
    // Completions of translation requests come in between on the way down.
    const isFixed = typeof options.memory === "number" && options.ats === undefined;
    this.#memoryTime = isFixed ? (options.memory as number) : VARIES;
    this.#translated = engine.define((slot, isRefused) => this.#goOn(slot, isRefused));
    this.#read = engine.define((slot) => {
      const isRefused = this.#refused[slot] === 1;
      this.#down.send(isRefused ? COMPLETION_BYTES : this.#answerBytes, this.#answer, slot);
    });
    this.#answer = engine.define((slot) => this.#end(slot));
  }

  /** Starts. */
  start(): void {
    for (let count = 0; count < this.#options.inFlight; count += 1) this.#issue();
  }

  /** Issues nothing more; what is in flight goes on to its end. */
  stop(): void {
    this.#left = 0;
  }

  /** What it did so far. */
  use(): DeviceUse {
    return {
      completed: this.#completed,
      latency: this.#latency,
      memory: this.#memory,
      orderWait: this.#orderWait,
      up: this.#up.use(),
      down: this.#down.use(),
    };
  }

  #issue(): void {
    if (this.#left === 0) return;
    this.#left -= 1;
    const { engine, gap, inFlight } = this.#options;
    const time = Math.max(engine.now, this.#nextIssue);
    this.#nextIssue = time + gap;
    const slot = this.#tail;
    this.#tail = slot + 1 === inFlight ? 0 : slot + 1;
    this.#issued[slot] = time;
    if (this.#ats !== null) {
      engine.at(time, this.#due, slot);
      return;
    }
    // Nobody else uses this direction of the link, and requests are issued in order.
    engine.at(this.#up.reserve(this.#sentBytes, time), this.#arrived, slot);
  }

  /** The device knows that it may not: nothing is sent. */
  #refuse(slot: number): void {
    this.#refused[slot] = 1;
    this.#end(slot);
  }

  #arrive(slot: number): void {
    const { unit, rid, isWrite, next } = this.#options;
    const pfn = next();
    if (unit === null) {
      this.#goOn(slot, 0);
      return;
    }
    const packets = this.#packets;
    this.#accesses[slot] = unit.begin(rid, pfn, isWrite, this.#translated, slot, packets);
    const { hitTime } = unit;
    if (hitTime === 0) this.#goOn(slot, 0);
    else if (hitTime > 0) this.#options.engine.after(hitTime, this.#translated, slot);
  }

  /** Behind the IOMMU. */
  #goOn(slot: number, isRefused: number): void {
    const { engine, isWrite, memory } = this.#options;
    this.#refused[slot] = isRefused;
    const memoryTime = this.#memoryTime;
    if (isWrite) {
      this.#end(slot);
    } else if (memoryTime !== VARIES && isRefused === 0) {
      // What takes the same time comes to the link in the order of now.
      this.#memory += memoryTime;
      const arrival = this.#down.reserve(this.#answerBytes, engine.now + memoryTime);
      engine.at(arrival, this.#answer, slot);
    } else {
      const time = isRefused === 1 ? 0 : typeof memory === "number" ? memory : memory();
      this.#memory += time;
      engine.after(time, this.#read, slot);
    }
  }

  /** Requests end in the order of their issue: one that is ready waits for those before it. */
  #end(ready: number): void {
    const { engine, unit, inFlight, isWrite, done } = this.#options;
    const answered = this.#answered;
    const { now } = engine;
    answered[ready] = now;
    for (let slot = this.#head; answered[slot] !== PENDING; slot = this.#head) {
      this.#orderWait += now - answered[slot]!;
      answered[slot] = PENDING;
      this.#head = slot + 1 === inFlight ? 0 : slot + 1;
      if (unit !== null && !isWrite && this.#ats === null) unit.release(this.#accesses[slot]!);
      const time = now - this.#issued[slot]!;
      this.#completed += 1;
      this.#latency += time;
      done(time, this.#refused[slot] === 1);
      this.#issue();
    }
  }
}
