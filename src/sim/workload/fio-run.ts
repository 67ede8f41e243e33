/**
 * Runs the jobs of a fio job file on a simulated machine: processes that submit and reap requests on
 * their CPUs, the DMA API that maps and unmaps their buffers, and a disk.
 *
 * One request: CPU (submit, map) → disk → CPU (unmap, complete). What mapping costs is not here: it
 * is what the mechanism does, at the prices of the machine.
 */
import { DmaDirection } from "../../dma/direction.ts";
import type { Policy } from "../../dma/policy.ts";
import type { ScatterList } from "../../dma/scatterlist.ts";
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Random } from "../../random.ts";
import { BillingMeter, type StepCharge } from "../billing-meter.ts";
import { Cashier } from "../cashier.ts";
import { Disk, type DiskSpeed } from "../device/disk.ts";
import { Engine } from "../engine.ts";
import { buildGuestDma, type GuestDma } from "../guest/dma-path.ts";
import { type HostMemory, SecondStage } from "../guest/second-stage.ts";
import { Histogram } from "../histogram.ts";
import { OWN_CPU, type PriceList } from "../price-list.ts";
import { type PoolUse, ServerPool } from "../server-pool.ts";
import { type SteadyState, steadyState } from "../steady-state.ts";
import { BufferSource, type Scatter, segmentsOf } from "./fio-buffers.ts";
import type { FioJob } from "./fio-job.ts";
import type { BlockShare } from "./job-values.ts";

/** The machine that jobs run on. */
export interface FioMachine {
  readonly cpus: number;
  readonly disk: DiskSpeed;
  readonly prices: PriceList;
  /** What the kernel and the process spend on a request besides its DMA, nanoseconds. */
  readonly submitNs: number;
  readonly completeNs: number;
  readonly scatter: Scatter;
  /** The host of a passed-through disk, which maps and pins what its guest maps; null for none. */
  readonly host: HostMemory | null;
}

/** What to run. */
export interface FioRunOptions {
  /** Jobs that run side by side. */
  readonly jobs: readonly FioJob[];
  readonly machine: FioMachine;
  readonly policy: Policy;
  readonly seed: number;
  /** Windows that are measured, and their length, picoseconds. */
  readonly windows: number;
  readonly windowPs: number;
}

/** How a resource was used. */
export interface ResourceUse extends PoolUse {
  readonly name: string;
  readonly servers: number;
}

/** What a run gave. */
export interface FioResult {
  /** Requests a second, as the judgement on the run's windows. */
  readonly requests: SteadyState;
  /** Bytes of a request, on average. */
  readonly bytesMean: number;
  /** From submission to completion, picoseconds; the warm-up is not in it. */
  readonly latency: Histogram;
  readonly charges: readonly StepCharge[];
  readonly resources: readonly ResourceUse[];
  /** Virtual time that passed, picoseconds. */
  readonly time: number;
  readonly completed: number;
  readonly events: number;
  readonly hash: string;
}

/** A tenth of the windows is taken as warm-up for latencies, which are not kept one by one. */
const WARM_UP_SHARE = 10;
const PS_PER_MS = 1e9;
const PS_PER_NS = 1000;

interface Slot {
  readonly job: FioJob;
  readonly cpu: number;
  readonly lists: Map<number, ScatterList>;
  readonly frames: Float64Array;
  list: ScatterList;
  bytes: number;
  isWrite: boolean;
  since: number;
}

/** Runs one group of jobs under one policy. */
export function runFio(options: FioRunOptions): FioResult {
  return new FioRun(options).run();
}

class FioRun {
  readonly #options: FioRunOptions;
  readonly #engine = new Engine();
  readonly #random: Random;
  readonly #meter: BillingMeter;
  readonly #cashier: Cashier;
  readonly #cpus: ServerPool[];
  readonly #pools: (ServerPool | null)[];
  readonly #disk: Disk;
  readonly #dma: GuestDma;
  readonly #slots: Slot[] = [];
  readonly #latency = new Histogram();
  readonly #windows: Float64Array;
  readonly #timerDue: number;
  readonly #submit: number;
  #workingCpu = 0;
  #bytes = 0;
  #completed = 0;
  #depotDueMs = Number.POSITIVE_INFINITY;

  constructor(options: FioRunOptions) {
    const { machine, policy, seed } = options;
    const engine = this.#engine;
    this.#options = options;
    this.#random = new Random(seed);
    this.#windows = new Float64Array(options.windows);
    this.#meter = new BillingMeter(machine.prices);
    this.#pools = machine.prices.resources.map((name) =>
      name === OWN_CPU ? null : new ServerPool(engine, 1),
    );
    this.#cashier = new Cashier(engine, this.#pools);
    this.#cpus = Array.from({ length: machine.cpus }, () => new ServerPool(engine, 1));
    this.#disk = new Disk(engine, machine.disk);
    this.#timerDue = this.#defineTimer();
    this.#submit = this.#defineRequest();
    const host =
      machine.host === null ? null : new SecondStage({ ...machine.host, meter: this.#meter, seed });
    this.#dma = buildGuestDma({
      policy,
      cpus: machine.cpus,
      meter: this.#meter,
      ...(host === null ? {} : { host }),
      timer: {
        arm: (dueMs) => engine.at(Math.round(dueMs * PS_PER_MS), this.#timerDue, this.#workingCpu),
      },
    });
    // What setting up costs is nobody's request.
    this.#meter.reset();
    this.#makeSlots();
  }

  run(): FioResult {
    const { windows, windowPs, machine } = this.#options;
    const engine = this.#engine;
    for (const [index] of this.#slots.entries()) engine.at(0, this.#submit, index);
    engine.run({ until: windows * windowPs });
    const perWindow = this.#windows.map((count) => (count * 1e12) / windowPs);
    const names = machine.prices.resources;
    const shared = this.#pools.flatMap((pool, index) =>
      pool === null ? [] : [{ name: names[index]!, servers: 1, ...pool.use() }],
    );
    const cpus = this.#cpus.map((pool, cpu) => ({
      name: `cpu ${cpu}`,
      servers: 1,
      ...pool.use(),
    }));
    const { channels } = this.#disk;
    return {
      requests: steadyState(perWindow),
      bytesMean: this.#bytes / Math.max(1, this.#completed),
      latency: this.#latency,
      charges: this.#meter.charges(),
      resources: [
        ...cpus,
        ...shared,
        { name: "disk", servers: channels.servers, ...channels.use() },
      ],
      time: engine.now,
      completed: this.#completed,
      events: engine.events,
      hash: engine.hash,
    };
  }

  #makeSlots(): void {
    const { jobs, machine } = this.#options;
    const buffers = new BufferSource(this.#random.fork("buffers"), machine.scatter);
    let process = 0;
    for (const job of jobs) {
      const largest = [...job.readBlocks, ...job.writeBlocks].reduce(
        (most, { bytes }) => Math.max(most, bytes),
        0,
      );
      for (let clone = 0; clone < job.processes; clone += 1) {
        for (let depth = 0; depth < job.depth; depth += 1) {
          const frames = buffers.frames(largest);
          const list = segmentsOf(frames, largest);
          const lists = new Map([[largest, list]]);
          const cpu = process % machine.cpus;
          const rest = { list, bytes: largest, isWrite: false, since: 0 };
          this.#slots.push({ job, cpu, frames, lists, ...rest });
        }
        process += 1;
      }
    }
  }

  /** The life of a request. @returns the handler that starts one */
  #defineRequest(): number {
    const engine = this.#engine;
    const { submitNs, completeNs } = this.#options.machine;
    const submitPs = Math.round(submitNs * PS_PER_NS);
    const completePs = Math.round(completeNs * PS_PER_NS);
    const submit = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#draw(slot);
      slot.since = engine.now;
      this.#cpus[slot.cpu]!.acquire(map, index);
    });
    const map = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#enter(slot.cpu, submitPs);
      const direction = slot.isWrite ? DmaDirection.TO_DEVICE : DmaDirection.FROM_DEVICE;
      const errno = this.#dma.device.mapSg(slot.list, direction, slot.cpu, this.#nowMs);
      assert(errno === Errno.OK, "a simulated guest has room for its buffers");
      this.#cashier.pay(this.#meter, mapped, index);
    });
    const mapped = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#cpus[slot.cpu]!.release();
      this.#disk.submit(slot.bytes, slot.isWrite, done, index);
    });
    const done = engine.define((index) => {
      this.#cpus[this.#slots[index]!.cpu]!.acquire(unmap, index);
    });
    const unmap = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#enter(slot.cpu, completePs);
      this.#dma.device.unmapSg(slot.list, slot.cpu, this.#nowMs);
      this.#noteDepot();
      this.#cashier.pay(this.#meter, completed, index);
    });
    const completed = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#cpus[slot.cpu]!.release();
      this.#count(slot);
      engine.after(slot.job.thinkUs * 1e6, submit, index);
    });
    return submit;
  }

  /** The flush queue's timer, which interrupts the CPU that armed it. */
  #defineTimer(): number {
    const engine = this.#engine;
    const due = engine.define((cpu) => this.#cpus[cpu]!.acquire(flush, cpu));
    const flush = engine.define((cpu) => {
      this.#enter(cpu, 0);
      this.#dma.domain?.onTimer(cpu, this.#nowMs);
      this.#cashier.pay(this.#meter, flushed, cpu);
    });
    const flushed = engine.define((cpu) => this.#cpus[cpu]!.release());
    return due;
  }

  get #nowMs(): number {
    return this.#engine.now / PS_PER_MS;
  }

  #enter(cpu: number, time: number): void {
    this.#workingCpu = cpu;
    this.#meter.reset();
    this.#meter.charge(0, time);
  }

  /** Full magazines go back to the tree a while later; nobody waits for that. */
  #noteDepot(): void {
    const iova = this.#dma.domain?.iova;
    if (iova === undefined) return;
    if (this.#depotDueMs <= this.#nowMs) iova.runDepotWork(this.#depotDueMs);
    this.#depotDueMs = iova.cache.depotWorkDueMs;
  }

  #draw(slot: Slot): void {
    const { job } = slot;
    const random = this.#random;
    slot.isWrite = job.readPercent < 100 && random.below(100) >= job.readPercent;
    const bytes = pick(slot.isWrite ? job.writeBlocks : job.readBlocks, random);
    if (bytes === slot.bytes) return;
    let list = slot.lists.get(bytes);
    if (list === undefined) {
      list = segmentsOf(slot.frames, bytes);
      slot.lists.set(bytes, list);
    }
    slot.list = list;
    slot.bytes = bytes;
  }

  #count(slot: Slot): void {
    const { windows, windowPs } = this.#options;
    const { now } = this.#engine;
    const window = Math.floor(now / windowPs);
    this.#completed += 1;
    this.#bytes += slot.bytes;
    if (window < windows) this.#windows[window]! += 1;
    if (window * WARM_UP_SHARE >= windows) this.#latency.add(now - slot.since);
  }
}

function pick(blocks: readonly BlockShare[], random: Random): number {
  if (blocks.length === 1) return blocks[0]!.bytes;
  let left = random.below(100);
  for (const { bytes, percent } of blocks) {
    if (left < percent) return bytes;
    left -= percent;
  }
  return blocks.at(-1)!.bytes;
}
