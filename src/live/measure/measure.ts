/** Runs a measurement's plan in a guest and counts on the device's side what each run asked for. */
import type { GuestAgent } from "../qemu/guest-agent.ts";
import { parseFio } from "./fio-result.ts";
import { putJobs, runJob, switchMode, traceJob } from "./guest.ts";
import { fitJobs, type MeasuredDisk, type Mode, planRuns } from "./plan.ts";
import type { Counts, Sample } from "./summary.ts";

/** What to measure, and with what. */
export interface MeasureOptions {
  readonly agent: GuestAgent;
  /** Words that start fio in the guest. */
  readonly fio: string;
  readonly disks: readonly MeasuredDisk[];
  /** Text of a fio job file, and the jobs of it to run. */
  readonly jobText: string;
  readonly jobs: readonly string[];
  readonly rounds: number;
  readonly runtimeSeconds: number;
  readonly sizeBytes: number;
  /** What has been counted so far; `interrupts` of the disk. */
  readonly counts: (disk: string) => Promise<Counts>;
  readonly progress: (what: string, share: number) => void;
}

/** The flush timer of lazy mode is 10 ms: what it still brings belongs to the run before. */
const SETTLE_MS = 50;

const settle = () => new Promise((resolve) => setTimeout(resolve, SETTLE_MS));

function difference(after: Counts, before: Counts): Counts {
  return {
    maps: after.maps - before.maps,
    unmaps: after.unmaps - before.unmaps,
    kicks: after.kicks - before.kicks,
    syncs: after.syncs - before.syncs,
    messages: after.messages - before.messages,
    interrupts: after.interrupts - before.interrupts,
  };
}

/** Switches a disk and gives the guest the jobs for its name there. */
async function prepare(options: MeasureOptions, disk: MeasuredDisk, mode: Mode): Promise<void> {
  const { agent, jobText, runtimeSeconds, sizeBytes } = options;
  const name = await switchMode(agent, disk, mode);
  const filename = `/dev/${name}`;
  await putJobs(agent, fitJobs(jobText, { filename, runtimeSeconds, sizeBytes }));
}

/** Does all runs of the plan. @throws StackError when the guest or fio fails */
export async function measure(options: MeasureOptions): Promise<Sample[]> {
  const { agent, fio, disks, jobs, rounds, runtimeSeconds } = options;
  const runs = planRuns(disks, jobs, rounds);
  const samples: Sample[] = [];
  let prepared = "";
  for (const [index, { disk, mode, job, round }] of runs.entries()) {
    options.progress(`${disk.name} ${mode} ${job}, round ${round + 1}`, index / runs.length);
    const wanted = `${round} ${disk.name} ${mode}`;
    if (prepared !== wanted) await prepare(options, disk, mode);
    prepared = wanted;
    await settle();
    const before = await options.counts(disk.name);
    const output = await runJob(agent, fio, job, runtimeSeconds);
    await settle();
    const counts = difference(await options.counts(disk.name), before);
    const { name, kind } = disk;
    samples.push({ disk: name, kind, mode, job, round, fio: parseFio(output), counts });
  }
  return samples;
}

/** Traces a strict run of a job: what a replay needs to predict the other modes. */
export async function recordStrict(
  options: MeasureOptions,
  disk: MeasuredDisk,
  job: string,
  runtimeSeconds: number,
): Promise<Uint8Array> {
  await prepare({ ...options, runtimeSeconds }, disk, "strict");
  return traceJob(options.agent, options.fio, job, runtimeSeconds);
}
