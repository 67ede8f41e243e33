/** The verb `measure`: boots a guest behind the stack and compares identity, lazy and strict. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join, resolve } from "node:path";
import { StackError } from "../errors.ts";
import type { Doorbell } from "../live/machine/live-machine.ts";
import { RuntimeFolder, runtimePath } from "../live/machine/runtime-folder.ts";
import { jobNames } from "../live/measure/plan.ts";
import {
  type Recording,
  runSession,
  type SessionPlan,
  type SessionResult,
  type SessionTools,
} from "../live/measure/session.ts";
import { summarize } from "../live/measure/summary.ts";
import { findQemu } from "../live/qemu/find-qemu.ts";
import { loadFioScript, loadScripts } from "../live/qemu/parts.ts";
import { type MeasureResult, measureJson, renderMeasure } from "../report/measure-report.ts";
import { FLUSH_QUEUE_JOBS } from "../sim/reproduce/flush-queue.ts";
import { flushQueuePublication, predictLazy } from "./measure-prediction.ts";
import { Exit } from "./problem.ts";
import { Signals } from "./signals.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface MeasureFlags {
  readonly disk?: readonly string[];
  readonly section?: readonly string[];
  readonly rounds?: number;
  /** Nanoseconds. */
  readonly runtime?: number;
  readonly doorbell?: string;
  readonly accelerator?: string;
  readonly record?: string;
  readonly qemu?: string;
  readonly fetch: boolean;
  readonly console?: string;
  readonly runtimeDir?: string;
  readonly json: boolean;
}

const ROUNDS = 3;
const RUNTIME_SECONDS = 3;
const NS_PER_SECOND = 1e9;
const kinds = ["virtio-blk", "nvme"] as const;

/** Runs the verb. */
export async function measureVerb(
  flags: MeasureFlags,
  file: string | undefined,
  terminal: Terminal,
): Promise<Exit> {
  const plan = planOf(flags, file);
  const { tools, signals } = await toolsFor(flags, terminal);
  let result: SessionResult;
  try {
    result = await runSession(plan, tools);
  } finally {
    signals.close();
  }
  const measurement = summarize(result.samples);
  const predictions = [];
  for (const recording of result.recordings) {
    const path = writeRecording(flags.record!, recording);
    const { disk, job } = recording;
    const lazy = measurement.rows.find(
      (row) => row.disk === disk && row.job === job && row.mode === "lazy",
    );
    if (lazy !== undefined) predictions.push(await predictLazy(path, lazy));
  }
  const whole: MeasureResult = {
    measurement,
    setting: settingOf(tools.qemu.version, result.kernel, plan),
    publication: file === undefined ? flushQueuePublication() : null,
    predictions,
  };
  terminal.print(textOf(whole, flags, terminal));
  return hasErrors(result) ? Exit.NO : Exit.DONE;
}

function hasErrors({ samples }: SessionResult): boolean {
  return samples.some(({ fio }) => fio.errors > 0);
}

function textOf(result: MeasureResult, flags: MeasureFlags, terminal: Terminal): string {
  if (flags.json) return `${JSON.stringify(measureJson(result), null, 2)}\n`;
  return `${renderMeasure(result, terminal.width, terminal.style).join("\n")}\n`;
}

function planOf(flags: MeasureFlags, file: string | undefined): SessionPlan {
  const jobText = file === undefined ? FLUSH_QUEUE_JOBS : readJobs(file);
  const all = jobNames(jobText, file ?? "the thread's job file");
  const chosen = flags.section ?? all;
  for (const name of chosen) {
    if (!all.includes(name)) throw usage(`there is no job "${name}": ${all.join(", ")}`);
  }
  return {
    kinds: kinds.filter((kind) => oneOf("--disk", flags.disk ?? kinds, kinds).includes(kind)),
    jobText,
    jobs: all.filter((name) => chosen.includes(name)),
    rounds: flags.rounds ?? ROUNDS,
    runtimeSeconds: Math.max(
      1,
      Math.round((flags.runtime ?? 0) / NS_PER_SECOND) || RUNTIME_SECONDS,
    ),
    doorbell: oneOf(
      "--doorbell",
      [flags.doorbell ?? "message"],
      ["message", "page"],
    )[0] as Doorbell,
    accelerator: oneOf("--accelerator", [flags.accelerator ?? "tcg"], ["tcg", "kvm"])[0] as "tcg",
    isRecorded: flags.record !== undefined,
  };
}

function oneOf(
  flag: string,
  given: readonly string[],
  known: readonly string[],
): readonly string[] {
  const wrong = given.find((one) => !known.includes(one));
  if (wrong === undefined) return given;
  throw usage(`${flag} is ${known.join(" or ")}, not "${wrong}"`);
}

function readJobs(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (cause) {
    throw new StackError({
      code: "cli/unreadable",
      kind: "input",
      message: `The job file cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      at: { file },
      cause,
    });
  }
}

async function toolsFor(
  flags: MeasureFlags,
  terminal: Terminal,
): Promise<{ readonly tools: SessionTools; readonly signals: Signals }> {
  const scripts = await loadScripts();
  const fio = await loadFioScript();
  const parts = flags.fetch ? scripts.fetchParts() : scripts.readParts();
  if (flags.fetch) fio.fetchFio();
  if (parts === null || fio.readFio() === null) {
    throw new StackError({
      code: "live/no-parts",
      kind: "input",
      message: "There is no kernel, busybox or fio for a guest in the cache folder",
      hint: "`iommukit measure --fetch` gets them from Debian's archive, beside the system",
    });
  }
  const signals = new Signals();
  const interrupted = signals.received.then((signal) => {
    throw usage(`Ended by ${signal}: what was measured so far is lost`);
  });
  interrupted.catch(() => {});
  const path = flags.runtimeDir ?? runtimePath("measure", process.env);
  const tools = {
    folder: new RuntimeFolder(resolve(path)),
    qemu: await findQemu(flags.qemu ?? null),
    scripts,
    parts,
    fio,
    console: flags.console === undefined ? null : resolve(flags.console),
    log: (line: string) => terminal.note(line),
    progress: (what: string, share: number) => terminal.progress(what, share),
    interrupted,
  };
  return { tools, signals };
}

function writeRecording(folder: string, { disk, job, trace }: Recording): string {
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${disk}-${job.replace(/[^\w.-]/g, "_")}-strict.txt.gz`);
  writeFileSync(path, trace);
  return path;
}

function settingOf(qemu: string, kernel: string, plan: SessionPlan): Record<string, string> {
  return {
    QEMU: `${qemu} (${plan.accelerator})`,
    Linux: kernel,
    host: cpus()[0]?.model ?? "unknown",
    doorbell: plan.doorbell,
    "each run": `${plan.runtimeSeconds} s`,
  };
}

function usage(message: string): StackError {
  return new StackError({
    code: "cli/usage",
    kind: "usage",
    message,
    hint: "`iommukit measure --help` shows what there is",
  });
}
