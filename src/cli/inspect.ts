/** The verb `inspect`: what is where on a machine, who shares what, and where page tables live. */
import { writeFileSync } from "node:fs";
import { StackError } from "../errors.ts";
import { CapturingTree } from "../host/capture.ts";
import type { Finding } from "../host/findings.ts";
import { inspectMachine } from "../host/inspect.ts";
import { liveHost, type OpenedHost, openHost } from "../host/open-host.ts";
import { installedNames } from "../host/pci-ids.ts";
import { readHost } from "../host/sysfs.ts";
import { inspectJson } from "../report/inspect-json.ts";
import { renderInspected } from "../report/inspect-text.ts";
import type { Machine } from "../topology/machine.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";
import { namesVm, type VmFlags } from "./vm-input.ts";

/** Flags of the verb. */
export interface InspectFlags extends VmFlags {
  readonly emit?: string;
  readonly iommu?: string;
  readonly memory?: bigint;
  readonly cpus?: number;
  readonly device?: readonly string[];
  readonly root?: string;
  readonly capture?: string;
  readonly json: boolean;
  readonly yaml: boolean;
  readonly svg: boolean;
}

/**
 * Runs the verb.
 *
 * @param file - an archive, a directory or an lstopo export; the running system when absent
 */
export async function inspect(
  flags: InspectFlags,
  file: string | undefined,
  terminal: Terminal,
): Promise<Exit> {
  const forms = [flags.json, flags.yaml, flags.svg, flags.capture !== undefined];
  if (forms.filter(Boolean).length > 1) {
    throw usage("--json, --yaml, --svg and --capture exclude each other");
  }
  if (flags.root !== undefined && file !== undefined) {
    throw usage("--root and a file exclude each other");
  }
  const path = flags.root ?? file;
  if (flags.emit !== undefined) {
    const { emitted } = await import("./inspect-vm.ts");
    terminal.print(emitted(flags.emit, flags, path));
    return Exit.DONE;
  }
  if ([flags.iommu, flags.memory, flags.cpus].some((one) => one !== undefined)) {
    throw usage("--iommu, --memory and --cpus go with --emit");
  }
  if (namesVm(flags)) return inspectGuest(flags, path, terminal);
  const host = path === undefined ? liveHost() : openHost(path);
  if (flags.capture !== undefined) return capture(host, flags.capture, terminal);
  const { machine, name, ...rest } = await read(host);
  if (flags.yaml) {
    const { machineToYaml } = await import("../config/write-machine.ts");
    terminal.print(machineToYaml(machine));
    return Exit.DONE;
  }
  const result = inspectMachine(machine, { names: installedNames(), ...rest });
  if (flags.json) {
    terminal.print(`${JSON.stringify(inspectJson(result), null, 2)}\n`);
  } else if (flags.svg) {
    const { inspectSvg } = await import("../report/inspect-svg.ts");
    terminal.print(inspectSvg(result, { name }));
  } else {
    const heading = {
      name,
      release: machine.kernel?.release ?? null,
      architecture: machine.architecture,
    };
    const lines = renderInspected(result, heading, terminal.width, terminal.style);
    terminal.print(`${lines.join("\n")}\n`);
  }
  return Exit.DONE;
}

async function inspectGuest(
  flags: InspectFlags,
  root: string | undefined,
  terminal: Terminal,
): Promise<Exit> {
  const { inspectVm } = await import("./inspect-vm.ts");
  const { renderVm, vmJson } = await import("../report/vm-report.ts");
  const { vm, result } = await inspectVm(flags, root);
  const { width, style } = terminal;
  if (flags.yaml) {
    const { machineToYaml } = await import("../config/write-machine.ts");
    terminal.print(machineToYaml(vm.machine));
  } else if (flags.svg) {
    const { inspectSvg } = await import("../report/inspect-svg.ts");
    terminal.print(inspectSvg(result, { name: vm.name }));
  } else if (flags.json) {
    const { schema, result: inspected } = inspectJson(result);
    const document = { schema, result: { ...inspected, vm: vmJson(vm) } };
    terminal.print(`${JSON.stringify(document, null, 2)}\n`);
  } else {
    const { architecture } = vm.machine;
    const heading = { name: vm.name, release: vm.board, architecture };
    const lines = [
      ...renderInspected(result, heading, width, style),
      "",
      ...renderVm(vm, width, style),
    ];
    terminal.print(`${lines.join("\n")}\n`);
  }
  return Exit.DONE;
}

interface Read {
  readonly machine: Machine;
  readonly name: string;
  readonly deniedCount: number;
  readonly findings: readonly Finding[];
}

async function read(host: OpenedHost): Promise<Read> {
  if (host.kind === "lstopo") {
    const { machineFromLstopo } = await import("../host/lstopo.ts");
    const machine = machineFromLstopo(host.text, host.name);
    return { machine, name: host.name, deniedCount: 0, findings: [] };
  }
  const { tree } = host;
  const name = tree.isLive ? "this host" : tree.name;
  return { ...readHost(tree), name, deniedCount: tree.deniedCount };
}

function capture(host: OpenedHost, path: string, terminal: Terminal): Exit {
  if (host.kind === "lstopo")
    throw usage("--capture takes a host's own files, not an lstopo export");
  const tree = new CapturingTree(host.tree);
  readHost(tree);
  const archive = tree.archive();
  if (path === "-") throw usage("--capture writes a file; standard output is for results");
  try {
    writeFileSync(path, archive);
  } catch (cause) {
    throw new StackError({
      code: "cli/unwritable",
      kind: "input",
      message: `the capture cannot be written (${(cause as NodeJS.ErrnoException).code})`,
      at: { file: path },
      cause,
    });
  }
  terminal.note(`${path}: ${archive.length} bytes; \`iommukit inspect ${path}\` reads it`);
  return Exit.DONE;
}

function usage(message: string): StackError {
  return new StackError({
    code: "cli/usage",
    kind: "usage",
    message,
    hint: "`iommukit inspect --help` shows what goes together",
  });
}
