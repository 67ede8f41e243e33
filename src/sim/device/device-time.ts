/**
 * Where the time of a device's requests went: on its links, in the IOMMU by step, waiting for what
 * others held, in memory. The parts of requests that are done add up to their latencies, to the
 * picosecond.
 */
import type { Link } from "../link.ts";
import type { NodeTime, QueueUse, StepUse, TimePart } from "../where-time.ts";
import type { DeviceUse, DmaEngine } from "./dma-engine.ts";
import type { FaultService } from "./fault-service.ts";
import type { TimedUnit } from "./timed-unit.ts";
import type { WalkBill } from "./walk-bill.ts";

/** A device, and what is between it and memory. */
export interface TimedDevice {
  readonly name: string;
  readonly engine: DmaEngine;
  /** Null without translation. */
  readonly unit: string | null;
  readonly node: number;
}

/** What took part in a run. */
export interface TimedParts {
  readonly devices: readonly TimedDevice[];
  readonly units: ReadonlyMap<string, TimedUnit>;
  readonly bill: WalkBill;
  readonly interconnect: Link | null;
  readonly faults: FaultService | null;
  /** Virtual time that passed, picoseconds. */
  readonly time: number;
}

/** Where it went. */
export interface DeviceTime {
  /** Sum of the latencies of what is done, picoseconds. */
  readonly latency: number;
  readonly requests: number;
  /** Largest first. */
  readonly parts: readonly TimePart[];
  readonly nodes: readonly NodeTime[];
  readonly steps: readonly StepUse[];
  readonly queues: readonly QueueUse[];
}

/** Adds it up. */
export function deviceTime(parts: TimedParts): DeviceTime {
  const { devices, units, bill } = parts;
  const uses = devices.map(({ engine }) => engine.use());
  const sum = (value: (use: DeviceUse) => number) =>
    uses.reduce((total, use) => total + value(use), 0);
  const steps = bill.charges();
  const found: TimePart[] = [
    ...linkParts("link up", uses, "up"),
    ...linkParts("link down", uses, "down"),
    { kind: "hold", name: "memory", resource: "memory", time: sum(({ memory }) => memory) },
    { kind: "wait", name: "order", resource: "order", time: sum(({ orderWait }) => orderWait) },
    ...steps.map(
      ({ step, time }): TimePart => ({
        kind: "hold",
        name: step,
        resource: isHandlers(step) ? "fault handler" : "IOMMU",
        time,
      }),
    ),
    ...unitParts(parts),
  ];
  return {
    latency: sum(({ latency }) => latency),
    requests: sum(({ completed }) => completed),
    parts: found.filter(({ time }) => time > 0).sort((a, b) => b.time - a.time),
    nodes: nodesOf(parts, uses),
    steps,
    queues: [
      ...[...units].map(([name, unit]) => walkersOf(name, unit)),
      ...sharedQueues(parts, uses),
    ],
  };
}

function linkParts(name: string, uses: readonly DeviceUse[], way: "up" | "down"): TimePart[] {
  let held = 0;
  let waited = 0;
  for (const use of uses) {
    const { busyTime, waitTime, transfers, latency } = use[way];
    held += busyTime + transfers * latency;
    waited += waitTime;
  }
  return [
    { kind: "hold", name, resource: name, time: held },
    { kind: "wait", name: "waiting", resource: name, time: waited },
  ];
}

function unitParts({ units, bill, faults }: TimedParts): TimePart[] {
  let entries = 0;
  let walkers = 0;
  let way = bill.remoteTime;
  for (const unit of units.values()) {
    entries += unit.times.entryWait;
    way += unit.times.way;
    walkers += unit.walkers.use().waitTime;
  }
  const waited =
    faults === null ? 0 : faults.handlers.use().waitTime + faults.places.use().waitTime;
  return [
    { kind: "wait", name: "waiting", resource: "IOTLB entries", time: entries },
    { kind: "wait", name: "waiting", resource: "walkers", time: walkers },
    { kind: "hold", name: "way to the other node's tables", resource: "node link", time: way },
    { kind: "wait", name: "waiting", resource: "fault handler", time: waited },
    {
      kind: "hold",
      name: "fault report",
      resource: "fault queue",
      time: faults === null ? 0 : faults.reportTime,
    },
    {
      kind: "hold",
      name: "handling a fault",
      resource: "fault handler",
      time: faults === null ? 0 : faults.handlerTime,
    },
  ];
}

/** Steps that the handler of a fault takes, and no walk. */
function isHandlers(step: string): boolean {
  return step.startsWith("page");
}

function nodesOf(
  { devices, units, bill }: TimedParts,
  uses: readonly DeviceUse[],
): readonly NodeTime[] {
  const nodes = new Map<number, { requests: number; latency: number; remote: number }>();
  const counted = new Set<string>();
  for (const [index, { node, unit }] of devices.entries()) {
    const at = nodes.get(node) ?? { requests: 0, latency: 0, remote: 0 };
    nodes.set(node, at);
    at.requests += uses[index]!.completed;
    at.latency += uses[index]!.latency;
    if (unit === null || counted.has(unit)) continue;
    counted.add(unit);
    at.remote += units.get(unit)!.times.way;
  }
  // With prices alone and no link there is one unit, and the way is in its bill.
  const [only] = nodes.values();
  if (only !== undefined && nodes.size === 1) only.remote += bill.remoteTime;
  return [...nodes].sort(([a], [b]) => a - b).map(([node, one]) => ({ node, ...one }));
}

function walkersOf(name: string, { walkers }: TimedUnit): QueueUse {
  const use = walkers.use();
  return { name: `walkers of ${name}`, servers: walkers.servers, ...use };
}

function sharedQueues(
  { devices, interconnect, faults }: TimedParts,
  uses: readonly DeviceUse[],
): readonly QueueUse[] {
  const links = devices.flatMap(({ name }, index) =>
    (["up", "down"] as const).map((way) => linkUse(`${name} ${way}`, uses[index]![way])),
  );
  const way = interconnect === null ? [] : [linkUse("node link", interconnect.use())];
  const handlers =
    faults === null
      ? []
      : [{ name: "fault handlers", servers: faults.handlers.servers, ...faults.use() }];
  return [...links.filter(({ granted }) => granted > 0), ...way, ...handlers];
}

function linkUse(
  name: string,
  use: { transfers: number; busyTime: number; waitTime: number },
): QueueUse {
  const { transfers, busyTime, waitTime } = use;
  // A link knows how long was waited, not by how many.
  return {
    name,
    servers: 1,
    granted: transfers,
    busyTime,
    waitTime,
    waited: transfers,
    waitingMax: null,
  };
}
