/** Reads machine profiles and scenarios; every complaint has its line and column. */
import type { z } from "zod";
import { type Policy, policyNamed, policyNames } from "../dma/policy.ts";
import { CPUS_MAX, FIO_RESOURCES, type MachineProfile } from "../sim/profiles/machine-profile.ts";
import { type Complain, checkedPrices, complainer, hintFor, shownName } from "./complaints.ts";
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
  readonly wrong: Complain;
}

const HINT = "docs/run.md describes the form";

/** Reads a machine profile. @throws StackError with line and column */
export function profileFromYaml(text: string, file: string): MachineProfile {
  const source = parseYaml(text, file);
  return possible(source, validate(source, profileSchema, HINT), []);
}

/** Reads a scenario. @throws StackError with line and column */
export function scenarioFromYaml(text: string, file: string): Scenario {
  return scenarioFromSource(parseYaml(text, file));
}

/** Makes a parsed document into a scenario. @throws StackError as {@link scenarioFromYaml} */
export function scenarioFromSource(source: YamlSource): Scenario {
  const document = validate(source, scenarioSchema, HINT);
  const { machine, workload, seed, timeMs } = document;
  const wrong = complainer(source, "config/scenario");
  const policies = document.policies?.map((name, index) => {
    const policy = policyNamed(name);
    if (policy !== undefined) return policy;
    const message = `policies[${index}]: there is no policy ${shownName(name)}`;
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

/** Refuses a machine that is of the right form and cannot exist. */
function possible(
  source: YamlSource,
  body: z.output<typeof machineBody>,
  path: ValuePath,
): MachineProfile {
  const impossible = complainer(source, "config/impossible-machine", path);
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
  const prices = checkedPrices(body.prices, FIO_RESOURCES, impossible);
  const blockPages = Number(host?.blockPages);
  return { ...body, host: host === null ? null : { ...host, blockPages }, prices };
}
