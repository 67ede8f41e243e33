/** The verb `serve`: is the IOMMU and the disks of a machine that somebody else starts. */
import { execFile } from "node:child_process";
import { liveMachineText } from "../config/read-live.ts";
import { StackError } from "../errors.ts";
import { scrapeText } from "../live/machine/metrics-server.ts";
import { RuntimeFolder } from "../live/machine/runtime-folder.ts";
import { serveMachine } from "../live/machine/serve-machine.ts";
import { shellCommand } from "../live/qemu/shell.ts";
import { metricsOf, readLiveMachine, runtimePathOf } from "./live-input.ts";
import { Exit } from "./problem.ts";
import { Signals } from "./signals.ts";
import type { Terminal } from "./terminal.ts";
import { argumentsFor } from "./vm.ts";

/** Flags of the verb. */
export interface ServeFlags {
  readonly wait: boolean;
  /** Nanoseconds. */
  readonly timeout?: number;
  readonly runtimeDir?: string;
  readonly json: boolean;
}

const TIMEOUT_NS = 30e9;
const LOOK_EVERY_MS = 50;
const PROGRAM = "qemu-system-x86_64";

/** Runs the verb until a signal comes; SIGUSR2 has a newly loaded worker go on. */
export async function serve(flags: ServeFlags, file: string, terminal: Terminal): Promise<Exit> {
  const machine = readLiveMachine(file);
  const path = runtimePathOf(machine, flags.runtimeDir);
  if (flags.wait) {
    await waitUntilServed(() => scrapeText(metricsOf(machine, flags.runtimeDir)), flags, path);
    return Exit.DONE;
  }
  const signals = new Signals();
  const folder = new RuntimeFolder(path);
  const served = await serveMachine(machine, folder, (line) => terminal.note(line));
  const handOver = () => {
    served.handOver().catch((error: Error) => terminal.note(`iommukit: ${error.message}`));
  };
  process.on("SIGUSR2", handOver);
  try {
    terminal.note(`${liveMachineText(machine)}; sockets in ${path}`);
    const words = [PROGRAM, ...argumentsFor(machine, folder, null)];
    if (flags.json) {
      const result = { folder: path, qemu: words };
      terminal.print(`${JSON.stringify({ schema: "iommukit/serve@1", result })}\n`);
    } else terminal.print(`${shellCommand(words)}\n`);
    tellSystemd();
    const ended = await Promise.race([signals.received, served.failed]);
    if (ended instanceof Error) throw ended;
    return Exit.DONE;
  } finally {
    process.off("SIGUSR2", handOver);
    await served.stop();
    signals.close();
  }
}

/** `Type=notify`: the service has started. Nothing to do where systemd did not ask. */
function tellSystemd(): void {
  if (process.env.NOTIFY_SOCKET === undefined) return;
  execFile("systemd-notify", ["--ready", `--pid=${process.pid}`], () => {});
}

async function waitUntilServed(
  look: () => Promise<unknown>,
  flags: ServeFlags,
  path: string,
): Promise<void> {
  const timeoutMs = (flags.timeout ?? TIMEOUT_NS) / 1e6;
  const endMs = performance.now() + timeoutMs;
  for (;;) {
    const isServed = await look().then(
      () => true,
      () => false,
    );
    if (isServed) return;
    if (performance.now() > endMs) {
      throw new StackError({
        code: "live/not-served",
        kind: "input",
        message: `Nothing serves this machine after ${timeoutMs / 1000} s`,
        at: { file: path },
        hint: "start `iommukit serve` with the same machine file and runtime folder",
      });
    }
    await new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
  }
}
