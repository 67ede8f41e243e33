/**
 * A device's side of ATS in virtual time: what is in its own cache it knows at once, for the rest it
 * sends a translation request up the link and waits for the completion. What is not there it asks
 * for by a page request, if it can, and tries again.
 *
 * Source: PCI Express Base, 10.2 "ATS Translation Services", 10.4 "Page Request Services".
 */
import type { AtsCache } from "../../iommu/ats-cache.ts";
import { Prot } from "../../iommu/prot.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import type { Engine } from "../engine.ts";
import type { Link } from "../link.ts";
import type { FaultService } from "./fault-service.ts";
import type { TimedUnit } from "./timed-unit.ts";
import type { WalkBill } from "./walk-bill.ts";

/** What is between the device and its unit. */
export interface AtsPortOptions {
  readonly engine: Engine;
  readonly unit: TimedUnit;
  /** The device's cache, switched on in the unit. */
  readonly cache: AtsCache;
  readonly bill: WalkBill;
  readonly rid: number;
  readonly up: Link;
  readonly down: Link;
  /** Null for a device without page requests. */
  readonly faults: FaultService | null;
}

interface Request {
  pfn: number;
  isWrite: boolean;
  handler: number;
  a: number;
  access: number;
  tries: number;
}

const REQUEST_BYTES = 24;
/** With one translation of eight bytes. */
const COMPLETION_BYTES = 28;
const TRIES_MAX = 16;
const SOMEWHERE = -1;

/** The port. */
export class AtsPort {
  readonly #options: AtsPortOptions;
  readonly #requests: Request[] = [];
  readonly #free: number[] = [];
  readonly #sent: number;
  readonly #arrived: number;
  readonly #translated: number;
  readonly #completed: number;
  readonly #served: number;

  constructor(options: AtsPortOptions) {
    const { engine, up, down, unit, rid } = options;
    this.#options = options;
    this.#sent = engine.define((number) => up.send(REQUEST_BYTES, this.#arrived, number));
    this.#arrived = engine.define((number) => {
      const request = this.#requests[number]!;
      request.access = unit.begin(rid, request.pfn, false, this.#translated, number);
      if (unit.hitTime >= 0) engine.after(unit.hitTime, this.#translated, number);
    });
    this.#translated = engine.define((number, isRefused) =>
      down.send(COMPLETION_BYTES, this.#completed, number, isRefused),
    );
    this.#completed = engine.define((number, isRefused) => this.#complete(number, isRefused === 1));
    this.#served = engine.define((number, isServed) => {
      if (isServed === 1) engine.call(this.#sent, number);
      else this.#end(number, true);
    });
  }

  /** Translates; the event comes when the device knows, with `b` 1 when it may not. */
  translate(pfn: number, isWrite: boolean, handler: number, a: number): void {
    const { engine, bill, cache } = this.#options;
    bill.begin(SOMEWHERE);
    const slot = cache.lookup(NO_PASID, pfn);
    if (slot >= 0 && (cache.cache.entries.rightsAt(slot) & rightOf(isWrite)) !== 0) {
      engine.after(bill.time, handler, a);
      return;
    }
    const number = this.#free.pop() ?? this.#requests.length;
    this.#requests[number] = { pfn, isWrite, handler, a, access: 0, tries: 0 };
    engine.after(bill.time, this.#sent, number);
  }

  #complete(number: number, isRefused: boolean): void {
    const { unit, cache, faults, rid } = this.#options;
    const request = this.#requests[number]!;
    const { pfn, isWrite } = request;
    const { physPfn, pageShift, prot } = unit.translationOf(request.access);
    unit.release(request.access);
    const isGranted = !isRefused && (prot & rightOf(isWrite)) !== 0;
    if (isGranted) {
      cache.fill(NO_PASID, pfn, physPfn, pageShift, prot);
      this.#end(number, false);
      return;
    }
    request.tries += 1;
    if (faults === null || request.tries > TRIES_MAX) this.#end(number, true);
    else faults.report(rid, pfn, rightOf(isWrite), this.#served, number);
  }

  #end(number: number, isRefused: boolean): void {
    const { handler, a } = this.#requests[number]!;
    this.#free.push(number);
    this.#options.engine.call(handler, a, isRefused ? 1 : 0);
  }
}

function rightOf(isWrite: boolean): number {
  return isWrite ? Prot.WRITE : Prot.READ;
}
