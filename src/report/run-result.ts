/** What `run` found, as data: schema `iommukit/run@1`, documented in `docs/run.md`. */
import type { MachinePicture } from "../sim/study/picture.ts";
import type { JobWarning } from "../sim/workload/fio-job.ts";
import { csvOf, recordOf } from "./records.ts";
import { partName, policyColumn, type RunRow, runSections, verdictOf } from "./run-columns.ts";

/** Jobs that ran side by side, under each policy. */
export interface RunGroup {
  readonly jobs: readonly {
    readonly name: string;
    readonly processes: number;
    readonly depth: number;
  }[];
  readonly rows: readonly RunRow[];
}

/** A whole run. */
export interface RunResult {
  readonly machine: {
    readonly name: string;
    readonly about: string;
    readonly picture: MachinePicture;
  };
  readonly seed: number;
  readonly groups: readonly RunGroup[];
  readonly warnings: readonly JobWarning[];
}

const PS_PER_NS = 1000;

/** The one object that `--json` prints. */
export function runJson({ machine, seed, groups, warnings }: RunResult): object {
  const { name, about } = machine;
  return {
    schema: "iommukit/run@1",
    result: {
      machine: { name, about },
      seed,
      warnings,
      groups: groups.map(({ jobs, rows }) => ({ jobs, policies: rows.map(policyJson) })),
    },
  };
}

function policyJson(row: RunRow): object {
  const { result, translationGain, best, changes } = row.outcome;
  const { where, requests, resources, charges } = result;
  const each = (time: number) => time / Math.max(1, where.requests) / PS_PER_NS;
  return {
    ...recordOf(policyColumn, runSections, row),
    steady: requests.kind === "steady",
    reason: requests.kind === "steady" ? null : requests.reason,
    verdict: verdictOf(row),
    translationGain,
    best: best?.id ?? null,
    changes,
    where: where.parts.map((part) => ({
      kind: part.kind,
      part: partName(part),
      resource: part.resource,
      nsPerRequest: each(part.time),
      share: part.time / where.latency,
    })),
    nodes: where.nodes
      .filter(({ requests: count }) => count > 0)
      .map(({ node, requests: count, latency, remote }) => ({
        node,
        requests: count,
        meanNs: latency / count / PS_PER_NS,
        remoteNs: remote / count / PS_PER_NS,
      })),
    steps: charges.map(({ step, times, amount, time }) => ({
      step,
      timesPerRequest: times / Math.max(1, result.completed),
      amountPerRequest: amount / Math.max(1, result.completed),
      nsPerRequest: time / Math.max(1, result.completed) / PS_PER_NS,
    })),
    resources: resources
      .filter(({ granted }) => granted > 0)
      .map(({ name, servers, busyTime, waitTime, waited, waitingMax }) => ({
        name,
        servers,
        busyShare: busyTime / servers / result.time,
        waited,
        meanWaitNs: waited === 0 ? 0 : waitTime / waited / PS_PER_NS,
        waitingMax,
      })),
    hash: result.hash,
  };
}

/** A line for each policy of each group. */
export function runCsv({ groups }: RunResult): string {
  const rows = groups.flatMap(({ jobs, rows: group }) =>
    group.map((row) => ({ ...row, jobs: jobs.map(({ name }) => name).join("+") })),
  );
  const jobsColumn = {
    key: "jobs",
    title: "jobs",
    unit: "text",
    doc: "names of the jobs that ran side by side",
    value: ({ jobs }: (typeof rows)[number]) => jobs,
  } as const;
  return csvOf([jobsColumn, policyColumn], runSections, rows);
}
