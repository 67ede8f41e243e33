/** What a run is told in: columns for terminal, JSON and CSV, a row for each policy. */
import type { StepName } from "../meter.ts";
import type { TimePart } from "../sim/where-time.ts";
import type { PolicyOutcome } from "../sim/workload/compare-policies.ts";
import type { FioMachine, ResourceUse } from "../sim/workload/fio-run.ts";
import type { Column, Section, Unit } from "./column.ts";
import { verdictText } from "./verdict.ts";

/** One policy on one machine. */
export interface RunRow {
  readonly outcome: PolicyOutcome;
  readonly machine: FioMachine;
}

const PS_PER_NS = 1000;

export const policyColumn: Column<RunRow> = {
  key: "policy",
  title: "policy",
  unit: "text",
  doc: "mapping policy",
  value: ({ outcome }) => outcome.policy.name,
};

function column(
  key: string,
  title: string,
  unit: Unit,
  doc: string,
  value: Column<RunRow>["value"],
): Column<RunRow> {
  return { key, title, unit, doc, value };
}

/** Requests a second; null when the run has not settled. */
export function rateOf({ outcome }: RunRow): number | null {
  const { requests } = outcome.result;
  return requests.kind === "steady" ? requests.mean : null;
}

function settled<T>(row: RunRow, value: (mean: number) => T): T | null {
  const rate = rateOf(row);
  return rate === null ? null : value(rate);
}

function percentile(key: string, title: string, share: number): Column<RunRow> {
  const doc = `latency that ${share * 100} % of the requests do not exceed`;
  return column(key, title, "ns", doc, (row) =>
    settled(row, () => row.outcome.result.latency.percentile(share) / PS_PER_NS),
  );
}

function perRequest(key: string, title: string, doc: string, step: StepName): Column<RunRow> {
  return column(key, title, "ratio", doc, ({ outcome }) => timesPerRequest(outcome, step));
}

function timesPerRequest({ result }: PolicyOutcome, name: StepName): number {
  const charge = result.charges.find(({ step }) => step === name);
  return (charge?.times ?? 0) / Math.max(1, result.completed);
}

function usesOf({ outcome }: RunRow, isWanted: (name: string) => boolean): ResourceUse[] {
  const { resources } = outcome.result;
  return resources.filter(({ name, granted }) => granted > 0 && isWanted(name));
}

const isCpu = (name: string) => name.startsWith("cpu ");

/** What several CPUs share beside the disk. */
function sharedOf(row: RunRow): ResourceUse[] {
  return usesOf(row, (name) => !isCpu(name) && name !== "disk");
}

function busyShare({ outcome }: RunRow, { busyTime, servers }: ResourceUse): number {
  return outcome.result.time === 0 ? 0 : busyTime / servers / outcome.result.time;
}

function most(values: readonly number[]): number | null {
  return values.length === 0 ? null : Math.max(...values);
}

function cpusBusy(row: RunRow): number | null {
  const shares = usesOf(row, isCpu).map((use) => busyShare(row, use));
  const sum = shares.reduce((all, share) => all + share, 0);
  return shares.length === 0 ? null : sum / shares.length;
}

function diskLinkBusy({ outcome, machine }: RunRow): number {
  const { completed, bytesMean, time } = outcome.result;
  const seconds = time / 1e12;
  return seconds === 0 ? 0 : (completed * bytesMean) / machine.disk.bytesPerSecond / seconds;
}

/** What holds the machine back, in a sentence. */
export function verdictOf({ outcome }: RunRow): string {
  const { requests } = outcome.result;
  const reason = requests.kind === "steady" ? null : requests.reason;
  const { translationGain, changes, best } = outcome;
  return verdictText({ reason, translationGain, changes, best });
}

export const runSections: readonly Section<RunRow>[] = [
  {
    key: "throughput",
    title: "Throughput",
    columns: [
      column("requestsPerSecond", "requests/s", "count", "requests completed a second", rateOf),
      column("halfWidth95", "+- 95 %", "share", "half the confidence interval of it", (row) => {
        const { requests } = row.outcome.result;
        return requests.kind === "steady" ? requests.halfWidth95 / requests.mean : null;
      }),
      column("bytesPerSecond", "bytes/s", "bytes", "bytes transferred a second", (row) =>
        settled(row, (rate) => rate * row.outcome.result.bytesMean),
      ),
      column("simulatedNs", "simulated", "ns", "virtual time of the run", ({ outcome }) =>
        Math.round(outcome.result.time / PS_PER_NS),
      ),
      column(
        "extensions",
        "extended",
        "count",
        "how often the run was doubled",
        ({ outcome }) => outcome.extensions,
      ),
    ],
  },
  {
    key: "latency",
    title: "Latency of a request, from its submission",
    columns: [
      column("meanNs", "mean", "ns", "arithmetic mean", (row) =>
        settled(row, () => row.outcome.result.latency.mean / PS_PER_NS),
      ),
      percentile("p50Ns", "p50", 0.5),
      percentile("p90Ns", "p90", 0.9),
      percentile("p99Ns", "p99", 0.99),
      percentile("p999Ns", "p99.9", 0.999),
    ],
  },
  {
    key: "busy",
    title: "How busy things are",
    columns: [
      column("cpus", "CPUs in use", "share", "time that CPUs with processes were held", cpusBusy),
      column("lock", "lock or queue", "share", "the same of the busiest shared resource", (row) =>
        most(sharedOf(row).map((use) => busyShare(row, use))),
      ),
      column(
        "lockWaiting",
        "waiting for it",
        "count",
        "the most that waited there at once",
        (row) => most(sharedOf(row).map(({ waitingMax }) => waitingMax)),
      ),
      column("diskChannels", "disk channels", "share", "the same of the disk's channels", (row) =>
        most(usesOf(row, (name) => name === "disk").map((use) => busyShare(row, use))),
      ),
      column("diskLink", "disk link", "share", "time in which the disk moved data", diskLinkBusy),
    ],
  },
  {
    key: "perRequest",
    title: "For each request",
    columns: [
      perRequest("requests", "requests", "MAP and UNMAP requests of the driver", "virtqueueAdd"),
      perRequest("kicks", "kicks", "notifications of the device", "virtqueueKick"),
      column("waits", "waits", "ratio", "waits for the IOMMU to be done", ({ outcome, machine }) =>
        timesPerRequest(outcome, machine.iommu === "vtd" ? "invalidateWait" : "virtqueueSync"),
      ),
      perRequest("hostCalls", "host calls", "system calls of the VMM", "userCall"),
      perRequest(
        "invalidations",
        "invalidations",
        "invalidations of the hardware's IOTLB",
        "invalidateRange",
      ),
    ],
  },
];

/** What a part of the latency is called: its resource, and what it does there. */
export function partName({ kind, name, resource }: TimePart): string {
  if (kind === "wait") return `waiting: ${resource}`;
  return resource === "disk" ? `disk: ${name}` : name;
}

/** Names of all parts of several rows, by their largest share, largest first. */
export function partNames(rows: readonly RunRow[]): string[] {
  const largest = new Map<string, number>();
  for (const row of rows) {
    for (const part of row.outcome.result.where.parts) {
      const name = partName(part);
      largest.set(name, Math.max(largest.get(name) ?? 0, shareOf(row, name)));
    }
  }
  return [...largest].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

/** A part's share of the latency, 0 … 1. */
export function shareOf({ outcome }: RunRow, name: string): number {
  const { parts, latency } = outcome.result.where;
  const part = parts.find((one) => partName(one) === name);
  return part === undefined || latency === 0 ? 0 : part.time / latency;
}

/** A part's share of the time in which requests held their CPUs; null for what holds none. */
export function cpuShareOf({ outcome }: RunRow, name: string): number | null {
  const held = outcome.result.where.parts.filter(
    ({ kind, resource }) => resource !== "disk" && !(kind === "wait" && resource === "cpu"),
  );
  const part = held.find((one) => partName(one) === name);
  return part === undefined ? null : part.time / held.reduce((sum, { time }) => sum + time, 0);
}
