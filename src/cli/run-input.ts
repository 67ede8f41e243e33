/** What the verb `run` reads: job files, scenarios and machine profiles, by name or by path. */
import { dirname, isAbsolute, join } from "node:path";
import { suggestion } from "../config/nearest.ts";
import type { Scenario } from "../config/read-profile.ts";
import type { YamlSource } from "../config/yaml-source.ts";
import type { Policy } from "../dma/policy.ts";
import { type Position, StackError } from "../errors.ts";
import { openFile, STDIN_PATH } from "../recording/node/file-source.ts";
import { profileNamed, profileNames } from "../sim/profiles/catalog.ts";
import type { MachineProfile } from "../sim/profiles/machine-profile.ts";
import { type FioWorkload, fioJobs } from "../sim/workload/fio-job.ts";

/** Job files and profiles are small; anything larger is none. */
const BYTES_MAX = 4 * 2 ** 20;

/** Flags of the verb. */
export interface RunFlags {
  readonly machine?: string;
  /** Names; which there are depends on the workload. */
  readonly policy?: readonly string[];
  readonly section?: readonly string[];
  readonly seed?: number;
  /** Nanoseconds. */
  readonly time?: number;
  readonly json: boolean;
  readonly csv: boolean;
  readonly html: boolean;
  readonly perfetto?: string;
  readonly printMachine: boolean;
}

/** What is to be run: jobs, or a scenario of a device's workload. */
export type RunInput = JobsInput | { readonly kind: "study"; readonly source: YamlSource };

/** Jobs on a machine. */
export interface JobsInput {
  readonly kind: "jobs";
  readonly profile: MachineProfile;
  /** Where it is described; null for one that is built in. */
  readonly machineAt: Position | null;
  readonly workload: FioWorkload;
  readonly policies: readonly Policy[] | null;
  readonly seed: number | null;
  readonly timeNs: number | null;
  readonly cpus: readonly number[] | null;
}

/** Reads a job file or a scenario. Flags win over what a scenario says. */
export async function readInput(file: string, flags: RunFlags): Promise<RunInput> {
  const name = nameOf(file);
  const text = await readText(file, name);
  const isYaml = /\.ya?ml$/i.test(file) || /^(\s*#.*\n|\s+)*schema\s*:/.test(text);
  if (isYaml) return readScenario(text, file, flags);
  if (flags.machine === undefined) {
    throw new StackError({
      code: "run/no-machine",
      kind: "usage",
      message: "A job file needs a machine to run on",
      hint: `add --machine with ${profileNames.join(", ")}, or a profile in YAML`,
    });
  }
  const profile = await machineNamed(flags.machine, null);
  const workload = fioJobs(text, name, sectionsOf(flags));
  const machineAt = placeOf(flags.machine);
  const unsaid = { policies: null, seed: null, timeNs: null, cpus: null };
  return { kind: "jobs", profile, machineAt, workload, ...unsaid };
}

async function readScenario(text: string, file: string, flags: RunFlags): Promise<RunInput> {
  const { scenarioFromSource } = await import("../config/read-profile.ts");
  const { parseYaml } = await import("../config/yaml-source.ts");
  const { isStudy } = await import("../config/read-study.ts");
  const name = nameOf(file);
  const source = parseYaml(text, name);
  if (isStudy(source)) return { kind: "study", source };
  const scenario = scenarioFromSource(source);
  const beside = (path: string) =>
    isAbsolute(path) || path === STDIN_PATH ? path : join(dirname(file), path);
  const profile = await profileOf(scenario, flags, beside);
  const { jobs, policies, seed, timeMs, cpus } = scenario;
  const sections = sectionsOf(flags) ?? scenario.sections ?? undefined;
  const path = beside(jobs.value);
  const workload =
    jobs.kind === "text"
      ? fioJobs(jobs.value, `${name} (workload.jobs)`, sections)
      : fioJobs(await readText(path, nameOf(path)), nameOf(path), sections);
  const count = profile.cpusByNode.reduce((sum, each) => sum + each, 0);
  const outside = cpus?.find((cpu) => cpu >= count);
  if (outside !== undefined || cpus?.length === 0) {
    const message =
      outside === undefined ? "no CPU is left to run on" : `there is no CPU ${outside}`;
    const hint = `the machine "${profile.name}" has CPUs 0-${count - 1}`;
    throw scenario.wrong(["workload", "cpus"], `workload.cpus: ${message}`, hint);
  }
  return {
    kind: "jobs",
    profile,
    machineAt:
      flags.machine === undefined ? source.positionOf(["machine"]) : placeOf(flags.machine),
    workload,
    policies,
    seed,
    timeNs: timeMs === null ? null : timeMs * 1e6,
    cpus,
  };
}

async function profileOf(
  { machine, wrong }: Scenario,
  flags: RunFlags,
  beside: (path: string) => string,
): Promise<MachineProfile> {
  if (flags.machine !== undefined) return machineNamed(flags.machine, null);
  if (typeof machine !== "string") return machine;
  return machineNamed(machine, { beside, wrong });
}

/** A machine that is built in, or one of a file. */
export async function machineNamed(
  name: string,
  within: (Pick<Scenario, "wrong"> & { beside: (path: string) => string }) | null,
): Promise<MachineProfile> {
  const known = profileNamed(name);
  if (known !== undefined) return known;
  if (!/[./\\]/.test(name)) {
    const message = `there is no machine "${name}"${suggestion(name, profileNames)}`;
    const hint = `known are ${profileNames.join(", ")}; a file has a . or / in its name`;
    throw (
      within?.wrong(["machine"], `machine: ${message}`, hint) ??
      new StackError({ code: "run/no-such-machine", kind: "usage", message, hint })
    );
  }
  const path = within === null ? name : within.beside(name);
  const text = await readText(path, path);
  const { profileFromYaml } = await import("../config/read-profile.ts");
  return profileFromYaml(text, path);
}

/** Where a machine of that name is described. */
function placeOf(machine: string): Position | null {
  return profileNamed(machine) === undefined ? { file: machine } : null;
}

function sectionsOf(flags: RunFlags): readonly string[] | undefined {
  return flags.section === undefined || flags.section.length === 0 ? undefined : flags.section;
}

function nameOf(path: string): string {
  return path === STDIN_PATH ? "(standard input)" : path;
}

async function readText(path: string, name: string): Promise<string> {
  const chunks: Uint8Array[] = [];
  let bytes = 0;
  for await (const chunk of openFile(path)) {
    chunks.push(chunk);
    bytes += chunk.length;
    if (bytes <= BYTES_MAX) continue;
    throw new StackError({
      code: "run/too-large",
      kind: "input",
      message: `The file has more than ${BYTES_MAX} bytes`,
      at: { file: name },
      hint: "job files, scenarios and profiles are text of some kilobytes",
    });
  }
  return new TextDecoder().decode(Buffer.concat(chunks));
}
