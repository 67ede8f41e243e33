/**
 * Where the time of requests went: for every request that is measured, its latency split into what
 * held a resource, by step, and what waited for one. The parts of a request add up to its latency,
 * to the picosecond.
 */
import { Step, type StepName } from "../../meter.ts";
import type { BillingMeter } from "../billing-meter.ts";
import type { PriceList } from "../price-list.ts";
import type { NodeTime, TimePart } from "../where-time.ts";

const stepNames = Object.keys(Step) as StepName[];
const STEPS = stepNames.length;

/** What a request does besides the steps of mechanism; places in its columns behind the steps. */
export const RequestPart = {
  /** What the process and the kernel do besides DMA. */
  software: STEPS,
  /** On the disk's medium. */
  medium: STEPS + 1,
  /** Over the disk's link. */
  transfer: STEPS + 2,
  /** Waiting for a channel or for the link of the disk. */
  diskWait: STEPS + 3,
  /** Waiting for the CPU of its process. */
  cpuWait: STEPS + 4,
} as const;

/** From here on one column for each resource of the price list: waiting for it. */
const FIRST_WAIT = STEPS + 5;

/** Where the time went. */
export interface WhereTime {
  readonly requests: number;
  /** Sum of the latencies, picoseconds; the parts add up to it. */
  readonly latency: number;
  /** Largest first. */
  readonly parts: readonly TimePart[];
  readonly nodes: readonly NodeTime[];
}

/** The account of the requests of a run, a row of columns for each that can be in flight. */
export class RequestTime {
  readonly #list: PriceList;
  readonly #width: number;
  readonly #rows: Float64Array;
  readonly #remote: Float64Array;
  readonly #totals: Float64Array;
  readonly #nodes: { requests: number; latency: number; remote: number }[];
  #requests = 0;
  #latency = 0;

  /** @param slots - requests that can be in flight */
  constructor(list: PriceList, slots: number, nodes: number) {
    this.#list = list;
    this.#width = FIRST_WAIT + list.resources.length;
    this.#rows = new Float64Array(slots * this.#width);
    this.#remote = new Float64Array(slots);
    this.#totals = new Float64Array(this.#width);
    this.#nodes = Array.from({ length: nodes }, () => ({ requests: 0, latency: 0, remote: 0 }));
  }

  /** Adds time to a part of {@link RequestPart}. */
  add(slot: number, part: number, time: number): void {
    this.#rows[slot * this.#width + part]! += time;
  }

  /** Adds a wait for a resource of the price list. */
  addWait(slot: number, resource: number, time: number): void {
    this.#rows[slot * this.#width + FIRST_WAIT + resource]! += time;
  }

  /** Adds the steps of the bill that a meter holds. */
  addBill(slot: number, meter: BillingMeter): void {
    const start = slot * this.#width;
    for (let step = 0; step < STEPS; step += 1) this.#rows[start + step]! += meter.billSteps[step]!;
    this.#remote[slot]! += meter.billRemote;
  }

  /** Closes a request. @param isMeasured - whether it counts */
  close(slot: number, latency: number, node: number, isMeasured: boolean): void {
    const start = slot * this.#width;
    const rows = this.#rows;
    if (isMeasured) {
      for (let part = 0; part < this.#width; part += 1) this.#totals[part]! += rows[start + part]!;
      this.#requests += 1;
      this.#latency += latency;
      const at = this.#nodes[node]!;
      at.requests += 1;
      at.latency += latency;
      at.remote += this.#remote[slot]!;
    }
    rows.fill(0, start, start + this.#width);
    this.#remote[slot] = 0;
  }

  /** What was counted. */
  where(): WhereTime {
    const { resources, resourceOf } = this.#list;
    const parts: TimePart[] = stepNames.map((name, step) => ({
      kind: "hold",
      name,
      resource: resources[resourceOf[step]!] ?? "",
      time: this.#totals[step]!,
    }));
    const rest = (kind: TimePart["kind"], name: string, resource: string, part: number) =>
      parts.push({ kind, name, resource, time: this.#totals[part]! });
    rest("hold", "software", "cpu", RequestPart.software);
    rest("hold", "medium", "disk", RequestPart.medium);
    rest("hold", "transfer", "disk", RequestPart.transfer);
    rest("wait", "waiting", "disk", RequestPart.diskWait);
    rest("wait", "waiting", "cpu", RequestPart.cpuWait);
    for (const [index, name] of resources.entries()) {
      if (index > 0) rest("wait", "waiting", name, FIRST_WAIT + index);
    }
    return {
      requests: this.#requests,
      latency: this.#latency,
      parts: parts.filter(({ time }) => time > 0).sort((a, b) => b.time - a.time),
      nodes: this.#nodes.map((one, node) => ({ node, ...one })),
    };
  }
}
