/** What a measurement does: disks, modes, jobs of a fio job file, rounds; interleaved. */
import { StackError } from "../../errors.ts";

/** How the guest's kernel maps for a disk. */
export type Mode = "identity" | "lazy" | "strict";
export const modes: readonly Mode[] = ["identity", "lazy", "strict"];

/** The word for the group's `type` file. Source: Linux 7.2 `iommu_group_store_type`. */
export const groupTypes: Readonly<Record<Mode, string>> = {
  identity: "identity",
  lazy: "DMA-FQ",
  strict: "DMA",
};

/** A disk as the guest knows it. */
export interface MeasuredDisk {
  readonly name: string;
  readonly kind: "virtio-blk" | "nvme";
  /** `0000:00:04.0`. */
  readonly pci: string;
}

/** One run of one job. */
export interface Run {
  readonly disk: MeasuredDisk;
  readonly mode: Mode;
  readonly job: string;
  readonly round: number;
}

/**
 * All runs in their order. Every round visits all modes, each starting with another one, so that
 * what drifts on the host falls on all of them alike; each change of mode costs a rebind, so the
 * jobs run one after the other in between.
 */
export function planRuns(
  disks: readonly MeasuredDisk[],
  jobs: readonly string[],
  rounds: number,
): Run[] {
  const runs: Run[] = [];
  for (let round = 0; round < rounds; round += 1) {
    for (const disk of disks) {
      for (let turn = 0; turn < modes.length; turn += 1) {
        const mode = modes[(round + turn) % modes.length]!;
        for (const job of jobs) runs.push({ disk, mode, job, round });
      }
    }
  }
  return runs;
}

/** What of a job file depends on the machine that it runs on. */
export interface JobSizes {
  readonly filename: string;
  readonly runtimeSeconds: number;
  readonly sizeBytes: number;
}

const FITTED = /^\s*(filename|runtime|size)\s*=/;
const SECTION = /^\s*\[([^\]]+)\]/;

/** Names of the jobs of a job file. @throws StackError `live/job-file` when there is none */
export function jobNames(text: string, file: string): string[] {
  const names = text.split("\n").flatMap((line) => {
    const name = SECTION.exec(line)?.[1]?.trim();
    return name === undefined || name === "global" ? [] : [name];
  });
  if (names.length > 0) return names;
  throw new StackError({
    code: "live/job-file",
    kind: "input",
    message: "There is no job in this job file",
    at: { file },
    hint: "a job begins with its name in brackets: [randwrite]",
  });
}

/** A job file cut to fit: other lines stay as they are. */
export function fitJobs(text: string, sizes: JobSizes): string {
  const kept = text.split("\n").filter((line) => !FITTED.test(line));
  const ours = [
    `filename=${sizes.filename}`,
    `runtime=${sizes.runtimeSeconds}`,
    `size=${sizes.sizeBytes}`,
  ];
  const global = kept.findIndex((line) => SECTION.exec(line)?.[1]?.trim() === "global");
  if (global >= 0) kept.splice(global + 1, 0, ...ours);
  else kept.unshift("[global]", ...ours);
  return kept.join("\n");
}
