/** The verb `vm`: serves a machine's devices and starts QEMU against them. */
import { resolve } from "node:path";
import { liveMachineText } from "../config/read-live.ts";
import type { LiveMachine } from "../live/machine/live-machine.ts";
import { RuntimeFolder } from "../live/machine/runtime-folder.ts";
import { type ServedMachine, serveMachine } from "../live/machine/serve-machine.ts";
import { qemuArguments } from "../live/qemu/command.ts";
import { findQemu } from "../live/qemu/find-qemu.ts";
import { RunningQemu } from "../live/qemu/launcher.ts";
import { shellCommand } from "../live/qemu/shell.ts";
import { readLiveMachine, runtimePathOf } from "./live-input.ts";
import { Exit } from "./problem.ts";
import { Signals } from "./signals.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface VmFlags {
  readonly qemu?: string;
  readonly kernel?: string;
  readonly initrd?: string;
  readonly append?: string;
  readonly console?: string;
  readonly runtimeDir?: string;
  readonly print: boolean;
}

/** Arguments of QEMU for a machine whose files lie in a folder. */
export function argumentsFor(
  machine: LiveMachine,
  folder: RuntimeFolder,
  console: string | null,
): string[] {
  return qemuArguments(machine, {
    socketOf: (name) => folder.socketOf(name),
    viot: machine.iommu === null ? null : folder.viot,
    console,
  });
}

/** Runs the verb until QEMU ends. @returns `Exit.NO` when QEMU failed */
export async function vm(
  flags: VmFlags,
  file: string,
  words: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  const machine = withFlags(readLiveMachine(file), flags, words);
  const path = runtimePathOf(machine, flags.runtimeDir);
  const folder = new RuntimeFolder(path);
  const qemu = await findQemu(machine.qemu.program);
  const console = flags.console === undefined ? null : resolve(flags.console);
  const command = [...qemu.command, ...argumentsFor(machine, folder, console)];
  if (flags.print) {
    terminal.print(`${shellCommand(command)}\n`);
    return Exit.DONE;
  }
  const signals = new Signals();
  let served: ServedMachine | null = null;
  let running: RunningQemu | null = null;
  try {
    served = await serveMachine(machine, folder, (line) => terminal.note(line));
    terminal.note(liveMachineText(machine));
    terminal.note(`QEMU ${qemu.version}:\n${shellCommand(command)}`);
    running = new RunningQemu(command, { kind: "inherit" });
    const end = await Promise.race([
      running.ended,
      signals.received.then(() => null),
      served.failed.then((error) => {
        throw error;
      }),
    ]);
    // A signal is a wish to end, and what was asked for is done.
    return end === null || end.status === 0 ? Exit.DONE : Exit.NO;
  } finally {
    await running?.stop();
    await served?.stop();
    signals.close();
  }
}

function withFlags(machine: LiveMachine, flags: VmFlags, words: readonly string[]): LiveMachine {
  const { qemu } = machine;
  return {
    ...machine,
    qemu: {
      ...qemu,
      program: flags.qemu ?? qemu.program,
      kernel: flags.kernel === undefined ? qemu.kernel : resolve(flags.kernel),
      initrd: flags.initrd === undefined ? qemu.initrd : resolve(flags.initrd),
      append: flags.append ?? qemu.append,
      boot: flags.kernel === undefined ? qemu.boot : null,
      extra: [...qemu.extra, ...words],
    },
  };
}
