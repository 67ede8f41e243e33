/**
 * What would help: the same run on a machine with one thing made free, unlimited or twice as good.
 *
 * Which changes are worth a run is estimated from where the time went: a step's own time, its share
 * of the waiting for its lock, and of the waiting for CPUs that spin meanwhile. The answer is the
 * run's, never the estimate's.
 */
import type { StepName } from "../../meter.ts";
import { PriceList } from "../price-list.ts";
import type { TimePart } from "../where-time.ts";
import type { FioMachine } from "./fio-run.ts";
import type { WhereTime } from "./request-time.ts";

/** A change of the machine. */
export interface Relaxation {
  /** For programs: `free:virtqueueKick`, `unlimited:…`, `local`, `cpus`, `software`, … */
  readonly id: string;
  /** For people. */
  readonly what: string;
  /** Whether it changes what translation costs. */
  readonly isTranslation: boolean;
  readonly machine: FioMachine;
}

interface Candidate extends Relaxation {
  /** Time that it could save at most, roughly. */
  readonly worth: number;
}

/** Nothing that translation does costs anything. */
export function withoutTranslation(machine: FioMachine): Relaxation {
  const what = "all of translation free";
  const free = { ...machine, prices: new PriceList([]) };
  return { id: "free:translation", what, isTranslation: true, machine: free };
}

/** Changes that could help, those that could help most first. */
export function relaxationsOf(
  machine: FioMachine,
  where: WhereTime,
  count: number,
): readonly Relaxation[] {
  const candidates = [
    ...stepsFree(machine, where),
    ...locksUnlimited(machine, where),
    ...nodesLocal(machine, where),
    ...machineDoubled(machine, where),
  ];
  return candidates
    .filter(({ worth }) => worth > 0)
    .sort((a, b) => b.worth - a.worth || (a.id < b.id ? -1 : 1))
    .slice(0, count)
    .map(({ worth: _, ...relaxation }) => relaxation);
}

function timeOf(where: WhereTime, matches: (part: TimePart) => boolean): number {
  return where.parts.filter(matches).reduce((sum, { time }) => sum + time, 0);
}

const isDisk = ({ resource }: TimePart) => resource === "disk";

/** With what waiting for CPUs it brings along: a CPU is held while its work waits for a lock. */
function withCpuWait(where: WhereTime, direct: number): number {
  const held = timeOf(where, (part) => !isDisk(part) && !isCpuWait(part));
  return held === 0 ? 0 : direct + (timeOf(where, isCpuWait) * direct) / held;
}

function isCpuWait({ kind, resource }: TimePart): boolean {
  return kind === "wait" && resource === "cpu";
}

function stepsFree(machine: FioMachine, where: WhereTime): Candidate[] {
  const known = new Set<string>(machine.prices.prices.map(({ step }) => step));
  const steps = where.parts.filter(({ kind, name }) => kind === "hold" && known.has(name));
  return steps.map(({ name, resource, time }) => {
    const held = timeOf(where, (part) => part.kind === "hold" && part.resource === resource);
    const waited = timeOf(where, (part) => part.kind === "wait" && part.resource === resource);
    const queued = resource === "cpu" ? 0 : (waited * time) / held;
    return {
      id: `free:${name}`,
      what: `${name} free`,
      isTranslation: true,
      machine: { ...machine, prices: freed(machine.prices, name as StepName) },
      worth: withCpuWait(where, time + queued),
    };
  });
}

function freed(prices: PriceList, step: StepName): PriceList {
  return new PriceList(
    prices.prices.map((price) =>
      price.step === step ? { ...price, eachNs: 0, unitNs: 0, remoteUnitNs: 0 } : price,
    ),
  );
}

function locksUnlimited(machine: FioMachine, where: WhereTime): Candidate[] {
  const waits = where.parts.filter(
    (part) => part.kind === "wait" && !isDisk(part) && !isCpuWait(part),
  );
  return waits.map(({ resource, time }) => ({
    id: `unlimited:${resource}`,
    what: `no waiting for the ${resource}`,
    isTranslation: true,
    machine: { ...machine, unlimited: [...(machine.unlimited ?? []), resource] },
    worth: withCpuWait(where, time),
  }));
}

function nodesLocal(machine: FioMachine, where: WhereTime): Candidate[] {
  const remote = where.nodes.reduce((sum, node) => sum + node.remote, 0);
  const nodeOfCpu = machine.nodeOfCpu?.map(() => 0);
  if (nodeOfCpu === undefined) return [];
  const what = "processes on the IOMMU's node";
  const worth = withCpuWait(where, remote);
  return [{ id: "local", what, isTranslation: true, machine: { ...machine, nodeOfCpu }, worth }];
}

function machineDoubled(machine: FioMachine, where: WhereTime): Candidate[] {
  const { disk, nodeOfCpu } = machine;
  const diskWait = timeOf(where, (part) => isDisk(part) && part.kind === "wait");
  const named = (name: string) => timeOf(where, (part) => part.name === name);
  const change = (id: string, what: string, worth: number, changed: Partial<FioMachine>) => ({
    id,
    what,
    isTranslation: false,
    machine: { ...machine, ...changed },
    worth,
  });
  return [
    change("cpus", "twice the CPUs", timeOf(where, isCpuWait) / 2, {
      cpus: machine.cpus * 2,
      ...(nodeOfCpu === undefined ? {} : { nodeOfCpu: [...nodeOfCpu, ...nodeOfCpu] }),
    }),
    change(
      "software",
      "half the software of a request",
      withCpuWait(where, named("software")) / 2,
      {
        submitNs: machine.submitNs / 2,
        completeNs: machine.completeNs / 2,
      },
    ),
    change("disk-bandwidth", "twice the disk's bandwidth", (named("transfer") + diskWait) / 2, {
      disk: {
        ...disk,
        bytesPerSecond: disk.bytesPerSecond * 2,
        ...(disk.writeBytesPerSecond === undefined
          ? {}
          : { writeBytesPerSecond: disk.writeBytesPerSecond * 2 }),
      },
    }),
    change("disk-channels", "twice the disk's channels", diskWait / 2, {
      disk: { ...disk, channels: disk.channels * 2 },
    }),
    change("disk-medium", "half the time on the medium", (named("medium") + diskWait) / 2, {
      disk: { ...disk, readNs: disk.readNs / 2, writeNs: disk.writeNs / 2 },
    }),
  ];
}
