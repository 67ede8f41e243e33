/**
 * Threads of a kernel that map a buffer, copy into it, and unmap it again, on one device in strict
 * mode: what they all wait for is the unit's invalidation queue.
 *
 *     CPU: map ─▶ copy ─▶ unmap ─┬─▶ queue (one at a time) ─▶ again
 */

import { DmaDirection } from "../../dma/direction.ts";
import { DMA_ERROR } from "../../dma/dma-device.ts";
import { policyNamed } from "../../dma/policy.ts";
import { assert } from "../../errors.ts";
import { Random } from "../../random.ts";
import { PAGE_BYTES } from "../../units.ts";
import { BillingMeter } from "../billing-meter.ts";
import { Cashier } from "../cashier.ts";
import { Engine } from "../engine.ts";
import { buildHardwareDma } from "../hardware-path.ts";
import { OWN_CPU, type PriceList } from "../price-list.ts";
import { ServerPool } from "../server-pool.ts";
import { type SteadyState, steadyState } from "../steady-state.ts";

/** A machine on which threads map. */
export interface MappingMachine {
  readonly prices: PriceList;
  /** Node of each CPU; a thread has one for itself, and the unit is on node 0. */
  readonly nodeOfCpu: readonly number[];
  /** What a thread does with a page that is mapped, nanoseconds. */
  readonly copyNs: number;
}

/** What to run. */
export interface MappingRun {
  readonly machine: MappingMachine;
  readonly threads: number;
  readonly seed: number;
}

/** What was measured. */
export interface MappingResult {
  /** Picoseconds of an unmap. */
  readonly unmap: SteadyState;
  /** Unmaps a second, of all threads. */
  readonly rate: number;
  readonly hash: string;
}

const BATCHES = 100;
const ROUNDS = 40;
const PS_PER_NS = 1000;
const PS_PER_MS = 1e9;
const PHYS_PFN = 2 ** 30;

/** Runs the threads until each has gone round some thousand times. */
export function runMappingThreads({ machine, threads, seed }: MappingRun): MappingResult {
  const { prices, nodeOfCpu, copyNs } = machine;
  assert(threads >= 1 && threads <= nodeOfCpu.length, "each thread has a CPU of its own");
  const policy = policyNamed("strict");
  assert(policy !== undefined, "strict is a policy");
  const engine = new Engine();
  const random = new Random(seed);
  const meter = new BillingMeter(prices);
  // Strict mode arms no timer.
  const { device } = buildHardwareDma({ policy, cpus: threads, meter, timer: { arm() {} } });
  meter.reset();
  const pools = prices.resources.map((name) =>
    name === OWN_CPU ? null : new ServerPool(engine, 1),
  );
  const cashier = new Cashier(engine, pools);
  const iovas = new Float64Array(threads);
  const starts = new Float64Array(threads);
  const times = new Float64Array(BATCHES);
  const batch = threads * ROUNDS;
  let done = 0;
  const map = engine.define((thread) => {
    meter.payerNode = nodeOfCpu[thread]!;
    const nowMs = engine.now / PS_PER_MS;
    const pfn = PHYS_PFN + 2 * thread;
    const iova = device.mapPage(pfn, 0, PAGE_BYTES, DmaDirection.BIDIRECTIONAL, thread, nowMs);
    assert(iova !== DMA_ERROR, "there are IOVAs");
    iovas[thread] = iova;
    cashier.pay(meter, copy, thread);
  });
  const copy = engine.define((thread) => {
    engine.after(Math.round(copyNs * PS_PER_NS), unmap, thread);
  });
  const unmap = engine.define((thread) => {
    meter.payerNode = nodeOfCpu[thread]!;
    starts[thread] = engine.now;
    device.unmapPage(iovas[thread]!, 0, PAGE_BYTES, thread, engine.now / PS_PER_MS);
    cashier.pay(meter, unmapped, thread);
  });
  const unmapped = engine.define((thread) => {
    times[Math.floor(done / batch)]! += (engine.now - starts[thread]!) / batch;
    done += 1;
    if (done === BATCHES * batch) engine.stop();
    else engine.after(0, map, thread);
  });
  for (let thread = 0; thread < threads; thread += 1) {
    engine.after(random.below(PS_PER_NS * PS_PER_NS), map, thread);
  }
  engine.run();
  return {
    unmap: steadyState(times),
    rate: (done * 1e12) / engine.now,
    hash: engine.hash,
  };
}
