/** Reads machine profiles and scenarios; every complaint has its line and column. */
import type { z } from "zod";
import { type Policy, policyNamed, policyNames } from "../dma/policy.ts";
import { StackError } from "../errors.ts";
import { Step, type StepName } from "../meter.ts";
import { CPUS_MAX, type MachineProfile } from "../sim/profiles/machine-profile.ts";
import { nearest } from "./nearest.ts";
import { type machineBody, profileSchema, scenarioSchema } from "./profile-schema.ts";
import { validate } from "./validate.ts";
import { parseYaml, type ValuePath, type YamlSource } from "./yaml-source.ts";

/** A scenario as its file has it; names and paths are still to be looked up. */
export interface Scenario {
  /** Name of a built-in machine, or path of a profile; or the machine itself. */
  readonly machine: string | MachineProfile;
  readonly policies: readonly Policy[] | null;
  readonly seed: number | null;
  readonly timeMs: number | null;
  /** Path of a job file, or its text. */
  readonly jobs: { readonly kind: "file" | "text"; readonly value: string };
  readonly sections: readonly string[] | null;
  readonly cpus: readonly number[] | null;
  /** Complains about a member of the file. */
  readonly wrong: (path: ValuePath, message: string, hint: string) => StackError;
}

const HINT = "docs/run.md describes the form";
const stepNames = Object.keys(Step);

/** Reads a machine profile. @throws StackError with line and column */
export function profileFromYaml(text: string, file: string): MachineProfile {
  const source = parseYaml(text, file);
  return possible(source, validate(source, profileSchema, HINT), []);
}

/** Reads a scenario. @throws StackError with line and column */
export function scenarioFromYaml(text: string, file: string): Scenario {
  const source = parseYaml(text, file);
  const document = validate(source, scenarioSchema, HINT);
  const { machine, workload, seed, timeMs } = document;
  const wrong = (path: ValuePath, message: string, hint: string) =>
    refusal("config/scenario", source, path, message, hint);
  const policies = document.policies?.map((name, index) => {
    const policy = policyNamed(name);
    if (policy !== undefined) return policy;
    const message = `policies[${index}]: there is no policy "${name.slice(0, 60)}"`;
    throw wrong(["policies", index], message, hintFor(name, policyNames));
  });
  return {
    machine: typeof machine === "string" ? machine : possible(source, machine, ["machine"]),
    policies: policies ?? null,
    seed: seed ?? null,
    timeMs: timeMs ?? null,
    jobs:
      workload.fio === undefined
        ? { kind: "text", value: workload.jobs! }
        : { kind: "file", value: workload.fio },
    sections: workload.sections ?? null,
    cpus: workload.cpus ?? null,
    wrong,
  };
}

function hintFor(name: string, known: readonly string[]): string {
  const best = nearest(name, known);
  return best === null ? `known are ${known.join(", ")}` : `did you mean "${best}"?`;
}

function refusal(
  code: `config/${string}`,
  source: YamlSource,
  path: ValuePath,
  message: string,
  hint: string,
): StackError {
  return new StackError({ code, kind: "input", message, at: source.positionOf(path), hint });
}

/** Refuses a machine that is of the right form and cannot exist. */
function possible(
  source: YamlSource,
  body: z.output<typeof machineBody>,
  path: ValuePath,
): MachineProfile {
  const impossible = (members: ValuePath, message: string, hint: string) =>
    refusal("config/impossible-machine", source, [...path, ...members], message, hint);
  const { disk, software, cpusByNode, host, name } = body;
  const what = `the machine "${name}"`;
  const cpus = cpusByNode.reduce((sum, count) => sum + count, 0);
  if (cpus === 0) {
    throw impossible(["cpusByNode"], `${what} has no CPU`, "jobs run on one CPU at least");
  }
  if (cpus > CPUS_MAX) {
    throw impossible(["cpusByNode"], `${what} has ${cpus} CPUs`, `at most ${CPUS_MAX} are run`);
  }
  if (disk.channels === 0) {
    const message = `the disk of ${what} takes no request: it has 0 channels`;
    throw impossible(["disk", "channels"], message, "one channel is one request at a time");
  }
  if (disk.bytesPerSecond < 1) {
    const message = `the disk of ${what} moves nothing: its bandwidth is ${disk.bytesPerSecond}`;
    throw impossible(["disk", "bytesPerSecond"], message, "give bytes a second, such as 2.5e9");
  }
  if (software.submitNs + software.completeNs < 1) {
    const message = `on ${what} a request costs no software: submitNs and completeNs are 0`;
    throw impossible(["software"], message, "a kernel needs some hundred nanoseconds at least");
  }
  if (host !== null && body.iommu === "vtd") {
    const message = `${what} has a VT-d unit of its own and a host below it`;
    throw impossible(["host"], message, "a guest has iommu: virtio; bare metal has host: null");
  }
  const seen = new Set<string>();
  const prices = body.prices.map((price, index) => {
    const at = ["prices", index, "step"];
    if (!stepNames.includes(price.step)) {
      const message = `prices[${index}].step: there is no step "${price.step.slice(0, 60)}"`;
      throw impossible(at, message, hintFor(price.step, stepNames));
    }
    if (seen.has(price.step)) {
      const message = `prices[${index}].step: ${price.step} has a price already`;
      throw impossible(at, message, "each step has one price");
    }
    seen.add(price.step);
    return { ...price, step: price.step as StepName };
  });
  const blockPages = Number(host?.blockPages);
  return { ...body, host: host === null ? null : { ...host, blockPages }, prices };
}
