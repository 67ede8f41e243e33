/**
 * Who serves the page faults of devices, in virtual time: so many can be outstanding, a report takes
 * its time, and handlers work them off one after the other.
 *
 *     fault ─ place ─ report ─▶ waits for a handler ─▶ handled ─▶ retried
 *
 * What a handler does is the real thing, done when it begins; what it took is what it billed.
 * Source of the bound: Arm SMMUv3, STALL_MAX; PCI Express Base, "Outstanding Page Request Capacity".
 */
import { assert } from "../../errors.ts";
import type { Engine } from "../engine.ts";
import { type PoolUse, ServerPool } from "../server-pool.ts";
import type { WalkBill } from "./walk-bill.ts";

/** What serves one fault at once. */
export interface FaultPort {
  /** @param access - bits of `Prot` @returns whether the page is there now */
  serve(rid: number, iovaPfn: number, access: number): boolean;
}

/** How faults are served. */
export interface FaultServiceOptions {
  readonly engine: Engine;
  /** Meter of all that the port does. */
  readonly bill: WalkBill;
  readonly port: FaultPort;
  /** Faults that can be outstanding; further ones wait in the unit or the device. */
  readonly outstanding: number;
  /** From the fault to its handler's queue, and from the handler's end to the retry, picoseconds. */
  readonly reportTime: number;
  /** Handlers at work at once: threads of the work queue. */
  readonly handlers: number;
  /** What a handler takes beside the steps that it bills, picoseconds; 0 without it. */
  readonly handlerTime?: number;
}

interface Fault {
  rid: number;
  pfn: number;
  access: number;
  handler: number;
  a: number;
  isServed: number;
}

/** The service. */
export class FaultService {
  readonly handlers: ServerPool;
  readonly places: ServerPool;
  /** Faults reported, and those that were refused. */
  reported = 0;
  refused = 0;
  #served = 0;
  readonly #options: FaultServiceOptions;
  readonly #faults: Fault[] = [];
  readonly #free: number[] = [];
  readonly #placed: number;
  readonly #queued: number;
  readonly #handle: number;
  readonly #handled: number;

  constructor(options: FaultServiceOptions) {
    const { engine, outstanding, handlers, reportTime } = options;
    assert(reportTime >= 0 && Number.isInteger(reportTime), "a report takes whole picoseconds");
    this.#options = options;
    this.places = new ServerPool(engine, outstanding);
    this.handlers = new ServerPool(engine, handlers);
    this.#placed = engine.define((fault) => engine.after(reportTime, this.#queued, fault));
    this.#queued = engine.define((fault) => this.handlers.acquire(this.#handle, fault));
    this.#handle = engine.define((fault) => this.#serve(fault));
    this.#handled = engine.define((number) => {
      this.handlers.release();
      this.places.release();
      const { handler, a, isServed } = this.#faults[number]!;
      this.#free.push(number);
      engine.call(handler, a, isServed);
    });
  }

  /** Reports a fault; the event comes when it is answered, with `b` 1 when the page is there. */
  report(rid: number, pfn: number, access: number, handler: number, a: number): void {
    const number = this.#free.pop() ?? this.#faults.length;
    this.#faults[number] = { rid, pfn, access, handler, a, isServed: 0 };
    this.reported += 1;
    this.places.acquire(this.#placed, number);
  }

  /** Sum of the times that reports took, picoseconds. */
  get reportTime(): number {
    return this.reported * this.#options.reportTime;
  }

  /** Sum of what handlers took beside steps, picoseconds. */
  get handlerTime(): number {
    return this.#served * (this.#options.handlerTime ?? 0);
  }

  /** How handlers were used. */
  use(): PoolUse {
    return this.handlers.use();
  }

  #serve(number: number): void {
    const { bill, port, engine, handlerTime = 0 } = this.#options;
    const fault = this.#faults[number]!;
    bill.begin(NO_NODE);
    const isServed = port.serve(fault.rid, fault.pfn, fault.access);
    this.#served += 1;
    if (!isServed) this.refused += 1;
    fault.isServed = isServed ? 1 : 0;
    engine.after(bill.time + handlerTime, this.#handled, number);
  }
}

/** A handler runs anywhere. */
const NO_NODE = -1;
