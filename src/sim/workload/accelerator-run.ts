/**
 * Messages through an accelerator that faults: how long a run of them takes, and how many faults
 * it needs.
 *
 *     start-up ─▶ message, message, … over the sets of buffers in turn
 *
 * Each set has an input, an output and a queue. Messages over different sets are in the device side
 * by side, and so are a message's input and output where accesses in flight allow it.
 */
import { assert } from "../../errors.ts";
import type { DmaSegment } from "../../iommu/iopf/page-stream.ts";
import { PROT_RW, Prot } from "../../iommu/prot.ts";
import { PAGE_BYTES } from "../../units.ts";
import {
  createAccelerator,
  type FaultingAccelerator,
  RAM_PFN,
} from "../device/faulting-accelerator.ts";
import { WalkBill } from "../device/walk-bill.ts";
import { Engine } from "../engine.ts";
import type { PriceList } from "../price-list.ts";
import type { StepUse } from "../where-time.ts";
import type { SliceRecorder } from "./slices.ts";

/** An accelerator and its host. */
export interface AcceleratorMachine {
  readonly kind: "vfio" | "sva";
  readonly prices: PriceList;
  /** What is paid once a run, nanoseconds. */
  readonly startUpNs: number;
  /** Bytes of messages a second. */
  readonly bytesPerSecond: number;
  /** From an access that stalls to its handler, whatever else is in flight, nanoseconds. */
  readonly reportNs: number;
  /** Messages in the device at once. */
  readonly messages: number;
  /** Accesses in flight with one message in the device, and with more. */
  readonly inFlight: { readonly alone: number; readonly together: number };
  /** First pages of what a set's queue takes, and how many pages each is, at least two. */
  readonly queue: readonly { readonly at: number; readonly pages: number }[];
}

/** A run. */
export interface AcceleratorRun {
  readonly machine: AcceleratorMachine;
  readonly messageBytes: number;
  readonly times: number;
  /** Pages that a fault of VFIO maps. */
  readonly premap: number;
  /** Whether pages fault; otherwise all of them are there and mapped. */
  readonly isFaulting: boolean;
  /** Keeps what it does for a timeline. */
  readonly slices?: SliceRecorder;
}

/** What a run gave. */
export interface AcceleratorResult {
  /** Picoseconds, and of those what faults took. */
  readonly time: number;
  readonly faultTime: number;
  readonly faults: number;
  /** What handlers took, step by step. */
  readonly steps: readonly StepUse[];
  readonly hash: string;
}

const SETS = 2;
/** Frames from one set of buffers to the next, and from input to output. */
const SET_PAGES = 2 ** 16;
const OUTPUT_AT = 2 ** 15;
const INPUT_AT = 2 ** 13;

/** Runs messages. */
export function runAccelerator(run: AcceleratorRun): AcceleratorResult {
  const { machine, messageBytes, times, premap } = run;
  const pages = messageBytes / PAGE_BYTES;
  assert(Number.isInteger(pages) && pages <= INPUT_AT, "a message is of whole pages, and fits");
  assert(Number.isInteger(times) && times >= 1, "a run has a message");
  const engine = new Engine();
  const bill = new WalkBill(machine.prices);
  const atOnce = Math.min(times, machine.messages, SETS);
  const accelerator = createAccelerator({
    kind: machine.kind,
    premap,
    inFlight: atOnce === 1 ? machine.inFlight.alone : machine.inFlight.together,
    pages: SETS * SET_PAGES,
    meter: bill,
  });
  prepare(accelerator, run, pages);
  bill.forget();
  const pageTime = (PAGE_BYTES * 1e12) / machine.bytesPerSecond;
  const reportTime = Math.round(machine.reportNs * 1000);
  let sent = 0;
  let parts: DmaSegment[][] = [];
  let faultTime = 0;
  const turn = engine.define(() => {
    if (!accelerator.isBusy && parts.length === 0) {
      if (sent === times) return;
      const count = Math.min(atOnce, times - sent);
      parts = messagesOf(machine, sent, count, pages);
      sent += count;
    }
    if (!accelerator.isBusy) accelerator.start(parts.shift()!);
    const requests = bill.count("pageRequest");
    const { done } = accelerator;
    bill.begin(-1);
    accelerator.step();
    const handled = bill.count("pageRequest") > requests ? reportTime + bill.time : 0;
    faultTime += handled;
    // A message moves a page in and a page out in the time of one.
    const moved = Math.round(((accelerator.done - done) * pageTime) / 2);
    const { now } = engine;
    if (moved > 0) run.slices?.add("accelerator", "moving data", now, now + moved);
    if (handled > 0) run.slices?.add("faults", "fault", now + moved, now + moved + handled);
    engine.after(moved + handled, turn);
  });
  engine.at(Math.round(machine.startUpNs * 1000), turn);
  engine.run();
  const faults = bill.count("pageRequest");
  return { time: engine.now, faultTime, faults, steps: bill.charges(), hash: engine.hash };
}

/** A CPU has written inputs and queues; without faults all is mapped before the run. */
function prepare(accelerator: FaultingAccelerator, run: AcceleratorRun, pages: number): void {
  const { machine, isFaulting } = run;
  for (let set = 0; set < SETS; set += 1) {
    const first = RAM_PFN + set * SET_PAGES;
    accelerator.touch(first + INPUT_AT, pages);
    for (const { at, pages: count } of machine.queue) {
      // A guest's kernel has used the memory around its queues.
      accelerator.touch(first + at, Math.max(count, run.premap));
    }
  }
  if (isFaulting) return;
  for (const part of messagesOf(machine, 0, SETS, pages)) {
    accelerator.start(part);
    while (accelerator.isBusy) accelerator.step();
  }
}

/**
 * Messages side by side, page by page: what to do is read first, then data moves, then it is written
 * that it is done. Each part waits for the one before.
 */
function messagesOf(
  machine: AcceleratorMachine,
  first: number,
  count: number,
  pages: number,
): DmaSegment[][] {
  const { queue } = machine;
  const sets = Array.from(
    { length: count },
    (_, index) => RAM_PFN + ((first + index) % SETS) * SET_PAGES,
  );
  const at = (iovaPfn: number, access: number): DmaSegment => ({ iovaPfn, pages: 1, access });
  const data: DmaSegment[] = [];
  for (let page = 0; page < pages; page += 1) {
    for (const set of sets) {
      data.push(at(set + INPUT_AT + page, Prot.READ), at(set + OUTPUT_AT + page, Prot.WRITE));
    }
  }
  const head = queue.flatMap((part) => sets.map((set) => at(set + part.at, Prot.READ)));
  const tail = queue.flatMap((part) =>
    sets.map((set) => ({ iovaPfn: set + part.at + 1, pages: part.pages - 1, access: PROT_RW })),
  );
  return [head, data, tail].filter((part) => part.length > 0);
}
