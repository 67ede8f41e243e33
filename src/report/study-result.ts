/**
 * What a run of a device's workload found, as data: schema `iommukit/run@1` with one group, as that
 * of fio jobs, documented in `docs/run.md`.
 */
import type { MachinePicture } from "../sim/study/picture.ts";
import type { StudyKind, StudyOutcome } from "../sim/study/study.ts";
import type { TimePart } from "../sim/where-time.ts";
import { csvOf, recordOf } from "./records.ts";
import { studySections, variantColumn } from "./study-columns.ts";
import { verdictText } from "./verdict.ts";

/** A whole run. */
export interface StudyResult {
  readonly machine: {
    readonly name: string;
    readonly about: string;
    readonly picture: MachinePicture;
  };
  readonly seed: number;
  readonly kind: StudyKind;
  readonly title: string;
  readonly rows: readonly StudyOutcome[];
}

const PS_PER_NS = 1000;

/** The one object that `--json` prints. */
export function studyJson({ machine, seed, kind, title, rows }: StudyResult): object {
  const { name, about } = machine;
  return {
    schema: "iommukit/run@1",
    result: {
      machine: { name, about },
      seed,
      warnings: [],
      groups: [{ workload: kind, title, policies: rows.map((row) => rowJson(kind, row)) }],
    },
  };
}

/** What a part of the time is called. */
export function studyPartName({ kind, name, resource }: TimePart): string {
  return kind === "wait" && name === "waiting" ? `waiting: ${resource}` : name;
}

/** What holds a machine back. */
export function studyVerdict(outcome: StudyOutcome): string {
  return verdictText({ ...outcome, reason: outcome.run.reason });
}

function rowJson(kind: StudyKind, row: StudyOutcome): object {
  const { run, translationGain, best, bestSetting, changes } = row;
  return {
    ...recordOf(variantColumn, studySections[kind], row),
    steady: run.speed !== null,
    reason: run.reason,
    verdict: studyVerdict(row),
    translationGain,
    best: best?.id ?? null,
    bestSetting: bestSetting?.id ?? null,
    changes,
    where: run.parts.map((part) => ({
      kind: part.kind,
      part: studyPartName(part),
      resource: part.resource,
      ns: part.time / PS_PER_NS,
      share: part.time / run.whole,
    })),
    nodes: run.nodes
      .filter(({ requests }) => requests > 0)
      .map(({ node, requests, latency, remote }) => ({
        node,
        requests,
        meanNs: latency / requests / PS_PER_NS,
        remoteNs: remote / requests / PS_PER_NS,
      })),
    steps: run.steps.map(({ step, amount, time }) => ({ step, amount, ns: time / PS_PER_NS })),
    resources: run.queues
      .filter(({ granted }) => granted > 0)
      .map(({ name, servers, busyTime, waitTime, waited, waitingMax }) => ({
        name,
        servers,
        busyShare: run.time === 0 ? 0 : busyTime / servers / run.time,
        waited,
        meanWaitNs: waited === 0 ? 0 : waitTime / waited / PS_PER_NS,
        waitingMax,
      })),
    hash: run.hash,
  };
}

/** A line for each policy. */
export function studyCsv({ kind, rows }: StudyResult): string {
  return csvOf([variantColumn], studySections[kind], rows);
}

/** Names of all parts of several rows, by their largest share, largest first. */
export function studyPartNames(rows: readonly StudyOutcome[]): string[] {
  const largest = new Map<string, number>();
  for (const row of rows) {
    for (const part of row.run.parts) {
      const name = studyPartName(part);
      largest.set(name, Math.max(largest.get(name) ?? 0, studyShare(row, name)));
    }
  }
  return [...largest].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1)).map(([name]) => name);
}

/** A part's share of the whole, 0 … 1. */
export function studyShare({ run }: StudyOutcome, name: string): number {
  const part = run.parts.find((one) => studyPartName(one) === name);
  return part === undefined || run.whole === 0 ? 0 : part.time / run.whole;
}
