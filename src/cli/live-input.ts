/** Reads a machine file for the verbs that serve one, and knows where its runtime folder is. */
import { closeSync, constants, fstatSync, openSync, readSync } from "node:fs";
import { dirname, resolve } from "node:path";
import { liveMachineFromYaml } from "../config/read-live.ts";
import { StackError } from "../errors.ts";
import type { LiveMachine, MetricsEndpoint } from "../live/machine/live-machine.ts";
import { RuntimeFolder, runtimePath } from "../live/machine/runtime-folder.ts";

const FILE_BYTES_MAX = 1 << 20;

/** Reads a machine file; paths in it are relative to it. */
export function readLiveMachine(file: string): LiveMachine {
  const text = textOf(file);
  const base = file === "-" ? process.cwd() : dirname(file);
  return liveMachineFromYaml(text, file, (path) => resolve(base, path));
}

/** Reads no more than a machine file may have, whatever it is that is named: a device never ends. */
function textOf(file: string): string {
  const bytes = Buffer.alloc(FILE_BYTES_MAX + 1);
  let count = 0;
  let fd = 0;
  try {
    // A pipe that nobody writes to would hold the opening for ever.
    if (file !== "-") fd = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    if (file !== "-" && !fstatSync(fd).isFile()) throw unreadable(file, "it is no regular file");
    for (let more = 1; more > 0 && count < bytes.length; count += more)
      more = readSync(fd, bytes, count, bytes.length - count, null);
  } catch (cause) {
    if (cause instanceof StackError) throw cause;
    throw unreadable(file, (cause as NodeJS.ErrnoException).code ?? String(cause), cause);
  } finally {
    if (fd > 0) closeSync(fd);
  }
  if (count > FILE_BYTES_MAX) throw unreadable(file, "it is longer than 1 MiB");
  return bytes.toString("utf8", 0, count);
}

function unreadable(file: string, why: string, cause?: unknown): StackError {
  return new StackError({
    code: "cli/unreadable",
    kind: "input",
    message: `The machine file cannot be read: ${why}`,
    at: { file },
    hint: "name a file in YAML; `-` reads standard input",
    cause,
  });
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
