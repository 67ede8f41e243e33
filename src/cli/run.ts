/** The verb `run`: a workload on a simulated machine under several mapping policies. */
import { suggestion } from "../config/nearest.ts";
import { policies as allPolicies, type Policy, policyNamed, policyNames } from "../dma/policy.ts";
import { positionText, StackError } from "../errors.ts";
import { type RunGroup, type RunResult, runCsv, runJson } from "../report/run-result.ts";
import { renderRun } from "../report/run-text.ts";
import { machineOf } from "../sim/profiles/machine-profile.ts";
import { fioPicture } from "../sim/study/pictures.ts";
import { type ComparisonOptions, comparePolicies } from "../sim/workload/compare-policies.ts";
import type { FioWorkload, JobWarning } from "../sim/workload/fio-job.ts";
import { placed } from "./placed.ts";
import { Exit } from "./problem.ts";
import { type JobsInput, machineNamed, type RunFlags, readInput } from "./run-input.ts";
import type { Terminal } from "./terminal.ts";
import { type Timeline, writeTimeline } from "./timeline.ts";

const SEED = 1;
const PS_PER_NS = 1000;

/**
 * Runs the verb.
 *
 * @returns `Exit.NO` when a run did not settle, though what is known is printed
 */
export async function runWorkload(
  flags: RunFlags,
  file: string | undefined,
  terminal: Terminal,
): Promise<Exit> {
  if ([flags.json, flags.csv, flags.html].filter(Boolean).length > 1) {
    throw usage("--json, --csv and --html exclude each other");
  }
  if (flags.printMachine) return printMachine(flags, terminal);
  if (file === undefined) throw usage("Nothing to run: name a fio job file or a scenario");
  const input = await readInput(file, flags);
  if (input.kind === "study") {
    const { runStudy } = await import("./run-study.ts");
    return runStudy(input.source, flags, terminal);
  }
  return runJobs(input, flags, terminal);
}

async function runJobs(input: JobsInput, flags: RunFlags, terminal: Terminal): Promise<Exit> {
  const { workload, profile } = input;
  const warnings = [...workload.warnings, ...notFollowed(workload)];
  for (const { at, message } of warnings) {
    terminal.note(`${positionText(at)}: warning: ${message}`);
  }
  const machine = machineOf(profile);
  const seed = flags.seed ?? input.seed ?? SEED;
  const timeNs = flags.time ?? input.timeNs;
  const asked = flags.policy?.map(policyOfFlag) ?? input.policies ?? allPolicies;
  const chosen = new Set(asked);
  const common = {
    machine,
    policies: allPolicies.filter((policy) => chosen.has(policy)),
    seed,
    progress: (what: string) => terminal.progress(what, null),
    ...(timeNs === null ? {} : { timePs: timeNs * PS_PER_NS }),
    ...(input.cpus === null ? {} : { cpus: input.cpus }),
  };
  const comparisons = workload.groups.map((jobs): ComparisonOptions => ({ ...common, jobs }));
  const groups = comparisons.map(
    (options): RunGroup => ({
      jobs: options.jobs.map(({ name, processes, depth }) => ({ name, processes, depth })),
      rows: placed(input.machineAt, () => comparePolicies(options)).map((outcome) => ({
        outcome,
        machine,
      })),
    }),
  );
  const { name, about } = profile;
  const picture = fioPicture(profile);
  const result: RunResult = { machine: { name, about, picture }, seed, groups, warnings };
  if (flags.perfetto !== undefined) {
    await writeTimeline(flags.perfetto, await timelinesOf(comparisons, result));
  }
  terminal.print(await textOf(result, flags, terminal));
  return exitOf(result, terminal);
}

async function textOf(result: RunResult, flags: RunFlags, terminal: Terminal): Promise<string> {
  if (flags.json) return `${JSON.stringify(runJson(result), null, 2)}\n`;
  if (flags.csv) return runCsv(result);
  if (flags.html) {
    const { runHtml } = await import("../report/run-html.ts");
    return runHtml(result);
  }
  return `${renderRun(result, terminal.width, terminal.style).join("\n")}\n`;
}

function exitOf({ groups }: RunResult, terminal: Terminal): Exit {
  const rows = groups.flatMap(({ rows: each }) => each);
  const unsettled = rows.filter(({ outcome }) => outcome.result.requests.kind === "unsettled");
  if (unsettled.length === 0) return Exit.DONE;
  const names = unsettled.map(({ outcome }) => outcome.policy.name).join(", ");
  terminal.note(`iommukit: no steady state, so no mean: ${names}`);
  terminal.note("  hint: a longer --time, up to 1h, may settle it, if the workload settles at all");
  return Exit.NO;
}

async function printMachine(flags: RunFlags, terminal: Terminal): Promise<Exit> {
  if (flags.machine === undefined) throw usage("--print-machine prints the machine of --machine");
  const profile = await machineNamed(flags.machine, null);
  const { profileToYaml } = await import("../config/write-profile.ts");
  terminal.print(profileToYaml(profile));
  return Exit.DONE;
}

/** Options that are read and have no effect on a run that looks for a steady state. */
function notFollowed({ groups }: FioWorkload): JobWarning[] {
  return groups
    .flat()
    .filter(({ rateIops }) => rateIops !== null)
    .map(({ name, at }) => {
      const message = `rate_iops of ${name} is not followed: requests come as fast as they can`;
      return { code: "run/rate", message, at };
    });
}

async function timelinesOf(
  comparisons: readonly ComparisonOptions[],
  { groups }: RunResult,
): Promise<readonly Timeline[]> {
  const { timelineOf } = await import("../sim/workload/compare-policies.ts");
  return groups.flatMap(({ jobs, rows }, index) =>
    rows.map(({ outcome }) => ({
      name: `${jobs.map(({ name }) => name).join("+")}: ${outcome.policy.name}`,
      slices: timelineOf(comparisons[index]!, outcome),
    })),
  );
}

/** @throws StackError that names the policies */
function policyOfFlag(name: string): Policy {
  const policy = policyNamed(name);
  if (policy !== undefined) return policy;
  const message = `--policy: there is no policy "${name}"${suggestion(name, policyNames)}`;
  const hint = `policies: ${policyNames.join(", ")}`;
  throw new StackError({ code: "cli/usage", kind: "usage", message, hint });
}

function usage(message: string): StackError {
  return new StackError({
    code: "cli/usage",
    kind: "usage",
    message,
    hint: "`iommukit run --help` shows what goes together",
  });
}
