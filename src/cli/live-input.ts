/** Reads a machine file for the verbs that serve one, and knows where its runtime folder is. */
import { readFileSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { liveMachineFromYaml } from "../config/read-live.ts";
import { StackError } from "../errors.ts";
import type { LiveMachine, MetricsEndpoint } from "../live/machine/live-machine.ts";
import { RuntimeFolder, runtimePath } from "../live/machine/runtime-folder.ts";

const FILE_BYTES_MAX = 1 << 20;

/** Reads a machine file; paths in it are relative to it. */
export function readLiveMachine(file: string): LiveMachine {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file === "-" ? 0 : file);
  } catch (cause) {
    throw new StackError({
      code: "cli/unreadable",
      kind: "input",
      message: `The machine file cannot be read (${(cause as NodeJS.ErrnoException).code})`,
      at: { file },
      cause,
    });
  }
  if (bytes.length > FILE_BYTES_MAX) {
    const message = "The machine file is longer than 1 MiB";
    throw new StackError({ code: "cli/unreadable", kind: "input", message, at: { file } });
  }
  const base = file === "-" ? process.cwd() : dirname(file);
  return liveMachineFromYaml(bytes.toString("utf8"), file, (path) => resolve(base, path));
}

/** Where the runtime folder of a machine is. */
export function runtimePathOf(machine: LiveMachine, named: string | undefined): string {
  return named === undefined ? runtimePath(machine.name, process.env) : resolve(named);
}

/** Where the metrics of a machine are. */
export function metricsOf(machine: LiveMachine, named: string | undefined): MetricsEndpoint {
  const folder = new RuntimeFolder(runtimePathOf(machine, named));
  return machine.metrics ?? { kind: "unix", path: folder.metrics };
}
