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
import { Errno, errnoName } from "../../errno.ts";
import { StackError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { BillingMeter, type StepCharge } from "../billing-meter.ts";
import { Cashier } from "../cashier.ts";
import { Disk, type DiskSpeed } from "../device/disk.ts";
import { Engine } from "../engine.ts";
import { buildGuestDma, type GuestDma } from "../guest/dma-path.ts";
import { type HostMemory, SecondStage } from "../guest/second-stage.ts";
import { buildHardwareDma } from "../hardware-path.ts";
import { Histogram } from "../histogram.ts";
import { OWN_CPU, type PriceList } from "../price-list.ts";
import { type PoolUse, ServerPool } from "../server-pool.ts";
import { type SteadyState, steadyState } from "../steady-state.ts";
import { BufferSource, type Scatter, segmentsOf } from "./fio-buffers.ts";
import type { FioJob } from "./fio-job.ts";
import type { BlockShare } from "./job-values.ts";
import { RequestPart, RequestTime, type WhereTime } from "./request-time.ts";
import type { SliceRecorder } from "./slices.ts";
import { ThinkingProcess } from "./thinking.ts";

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
  /** What translates: a guest's virtio-iommu, which is usual, or a VT-d unit of bare metal. */
  readonly iommu?: "virtio" | "vtd";
  /** Node of each CPU, where there are several; IOMMU and disk are on node 0. */
  readonly nodeOfCpu?: readonly number[];
  /** Resources of the price list that nobody waits for, to see what waiting for them costs. */
  readonly unlimited?: readonly string[];
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
  /** The run ends after that many events, wherever it is. */
  readonly eventsMax?: number;
  /** CPUs that processes run on; all when absent. */
  readonly cpus?: readonly number[];
  /** Keeps who held what, for a timeline. */
  readonly slices?: SliceRecorder;
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
  /** The same latency by what it was spent on. */
  readonly where: WhereTime;
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
  /** The pauses of its process; null when it makes none. */
  readonly thinking: ThinkingProcess | null;
  readonly cpu: number;
  readonly lists: Map<number, ScatterList>;
  readonly frames: Float64Array;
  list: ScatterList;
  bytes: number;
  isWrite: boolean;
  since: number;
  /** When it began what it does now. */
  mark: number;
  phase: "map" | "unmap";
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
  readonly #account: RequestTime;
  readonly #nodeOfCpu: readonly number[];
  readonly #slices: SliceRecorder | null;
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
    this.#slices = options.slices ?? null;
    this.#nodeOfCpu = machine.nodeOfCpu ?? Array.from({ length: machine.cpus }, () => 0);
    const unlimited = machine.unlimited ?? [];
    this.#pools = machine.prices.resources.map((name) =>
      name === OWN_CPU || unlimited.includes(name) ? null : new ServerPool(engine, 1),
    );
    this.#cashier = new Cashier(engine, this.#pools, {
      waited: (payer, resource, time) => {
        if (payer >= 0) this.#account.addWait(payer, resource, time);
      },
      held: (payer, resource, since) => this.#noteHeld(payer, resource, since),
    });
    this.#cpus = Array.from({ length: machine.cpus }, () => new ServerPool(engine, 1));
    this.#disk = new Disk(engine, machine.disk);
    this.#timerDue = this.#defineTimer();
    this.#submit = this.#defineRequest();
    const host =
      machine.host === null ? null : new SecondStage({ ...machine.host, meter: this.#meter, seed });
    const build = machine.iommu === "vtd" ? buildHardwareDma : buildGuestDma;
    this.#dma = build({
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
    const nodes = Math.max(0, ...this.#nodeOfCpu) + 1;
    this.#account = new RequestTime(machine.prices, this.#slots.length, nodes);
  }

  run(): FioResult {
    const { windows, windowPs, machine, eventsMax } = this.#options;
    const engine = this.#engine;
    for (const [index] of this.#slots.entries()) engine.at(0, this.#submit, index);
    const events = eventsMax ?? Number.POSITIVE_INFINITY;
    engine.run({ until: windows * windowPs, events });
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
      where: this.#account.where(),
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
    const cpus = this.#options.cpus ?? Array.from({ length: machine.cpus }, (_, cpu) => cpu);
    const buffers = new BufferSource(this.#random.fork("buffers"), machine.scatter);
    let process = 0;
    for (const job of jobs) {
      const largest = [...job.readBlocks, ...job.writeBlocks].reduce(
        (most, { bytes }) => Math.max(most, bytes),
        0,
      );
      for (let clone = 0; clone < job.processes; clone += 1) {
        const thinking = job.thinkUs === 0 ? null : new ThinkingProcess(job.thinkBlocks);
        for (let depth = 0; depth < job.depth; depth += 1) {
          const frames = buffers.frames(largest);
          const list = segmentsOf(frames, largest);
          const lists = new Map([[largest, list]]);
          const cpu = cpus[process % cpus.length]!;
          const rest = { list, bytes: largest, isWrite: false, since: 0, mark: 0 };
          this.#slots.push({ job, thinking, cpu, frames, lists, phase: "map", ...rest });
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
      if (slot.thinking?.mayBegin(index) === false) return;
      this.#draw(slot);
      slot.since = engine.now;
      slot.mark = engine.now;
      this.#cpus[slot.cpu]!.acquire(map, index);
    });
    const map = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#begin(slot, index, "map", submitPs);
      const direction = slot.isWrite ? DmaDirection.TO_DEVICE : DmaDirection.FROM_DEVICE;
      const errno = this.#dma.device.mapSg(slot.list, direction, slot.cpu, this.#nowMs);
      if (errno !== Errno.OK) throw notMapped(errno, this.#slots.length);
      this.#pay(index, mapped);
    });
    const mapped = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#leaveCpu(slot);
      this.#disk.submit(slot.bytes, slot.isWrite, done, index);
    });
    const done = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#noteDisk(slot, index);
      this.#cpus[slot.cpu]!.acquire(unmap, index);
    });
    const unmap = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#begin(slot, index, "unmap", completePs);
      this.#dma.device.unmapSg(slot.list, slot.cpu, this.#nowMs);
      this.#noteDepot();
      this.#pay(index, completed);
    });
    const completed = engine.define((index) => {
      const slot = this.#slots[index]!;
      this.#leaveCpu(slot);
      this.#count(slot, index);
      if (slot.thinking?.complete() === true) engine.after(slot.job.thinkUs * 1e6, awake, index);
      engine.after(0, submit, index);
    });
    const awake = engine.define((index) => {
      for (const each of this.#slots[index]!.thinking!.awake()) engine.after(0, submit, each);
    });
    return submit;
  }

  /** The request has its CPU: what software does comes first. */
  #begin(slot: Slot, index: number, phase: Slot["phase"], time: number): void {
    const { now } = this.#engine;
    this.#account.add(index, RequestPart.cpuWait, now - slot.mark);
    this.#account.add(index, RequestPart.software, time);
    slot.phase = phase;
    slot.mark = now;
    this.#enter(slot.cpu, time);
  }

  #pay(index: number, handler: number): void {
    this.#account.addBill(index, this.#meter);
    this.#cashier.pay(this.#meter, handler, index, 0, index);
  }

  #leaveCpu(slot: Slot): void {
    const { now } = this.#engine;
    this.#cpus[slot.cpu]!.release();
    this.#slices?.add(`CPU ${slot.cpu}`, slot.phase, slot.mark, now);
    slot.mark = now;
  }

  #noteHeld(payer: number, resource: number, since: number): void {
    if (this.#slices === null || resource === 0) return;
    const name = payer < 0 ? "flush timer" : this.#slots[payer]!.phase;
    const track = this.#options.machine.prices.resources[resource]!;
    this.#slices.add(track, name, since, this.#engine.now);
  }

  /** The time since the disk got the request, less what it needs alone, is waiting. */
  #noteDisk(slot: Slot, index: number): void {
    const { readNs, writeNs, bytesPerSecond, writeBytesPerSecond } = this.#options.machine.disk;
    const rate = slot.isWrite ? (writeBytesPerSecond ?? bytesPerSecond) : bytesPerSecond;
    const { now } = this.#engine;
    const medium = Math.round((slot.isWrite ? writeNs : readNs) * PS_PER_NS);
    const transfer = Math.ceil(slot.bytes * (1e12 / rate));
    this.#account.add(index, RequestPart.medium, medium);
    this.#account.add(index, RequestPart.transfer, transfer);
    this.#account.add(index, RequestPart.diskWait, now - slot.mark - medium - transfer);
    slot.mark = now;
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
    this.#meter.payerNode =
      this.#options.machine.nodeOfCpu === undefined ? -1 : this.#nodeOfCpu[cpu]!;
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

  #count(slot: Slot, index: number): void {
    const { windows, windowPs } = this.#options;
    const { now } = this.#engine;
    const window = Math.floor(now / windowPs);
    this.#completed += 1;
    this.#bytes += slot.bytes;
    if (window < windows) this.#windows[window]! += 1;
    const isMeasured = window * WARM_UP_SHARE >= windows;
    if (isMeasured) this.#latency.add(now - slot.since);
    this.#account.close(index, now - slot.since, this.#nodeOfCpu[slot.cpu]!, isMeasured);
  }
}

function notMapped(errno: number, inFlight: number): StackError {
  return new StackError({
    code: "sim/not-mapped",
    kind: "input",
    message: `A buffer could not be mapped: ${errnoName(errno)}, with up to ${inFlight} in flight`,
    hint: "ask for fewer or smaller requests in flight; a VFIO container takes 65535 mappings",
  });
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
