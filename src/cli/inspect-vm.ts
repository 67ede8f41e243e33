/** `inspect` of a virtual machine, and the arguments that give one its host's topology. */
import { StackError } from "../errors.ts";
import { vmFindings } from "../host/check-vm.ts";
import { emitForms, emitVm } from "../host/emit.ts";
import { emitIommus } from "../host/emit-plan.ts";
import { inspectMachine } from "../host/inspect.ts";
import type { InspectResult } from "../host/inspect-result.ts";
import { liveHost, openHost } from "../host/open-host.ts";
import { readHost } from "../host/sysfs.ts";
import type { VirtualMachine } from "../host/vm.ts";
import type { Machine } from "../topology/machine.ts";
import { readVm, type VmFlags } from "./vm-input.ts";

/** A virtual machine and what is found about its guest. */
export interface InspectedVm {
  readonly vm: VirtualMachine;
  readonly result: InspectResult;
}

/** Reads a virtual machine; `root` says what the host's devices are. */
export async function inspectVm(flags: VmFlags, root: string | undefined): Promise<InspectedVm> {
  const isHere = flags.pid !== undefined;
  const host = root !== undefined || isHere ? hostMachine(root) : null;
  const vm = await readVm(flags, host);
  const limits = { host, memlockBytes: null, entryLimit: null };
  // What inspect itself finds is about files of a running kernel.
  return { vm, result: { ...inspectMachine(vm.machine), findings: vmFindings(vm, limits) } };
}

/** The text of `--emit`. */
export function emitted(form: string, flags: EmitFlags, root: string | undefined): string {
  const { device = [], memory, cpus } = flags;
  const known = oneOf("--emit", emitForms, form);
  const iommu = oneOf("--iommu", emitIommus, flags.iommu ?? "none");
  return emitVm(hostMachine(root), device, known, {
    iommu,
    ...(memory === undefined ? {} : { memoryBytes: memory }),
    ...(cpus === undefined ? {} : { cpus }),
  });
}

/** Flags of `--emit`. */
export interface EmitFlags {
  readonly device?: readonly string[];
  readonly iommu?: string;
  readonly memory?: bigint;
  readonly cpus?: number;
}

function oneOf<Name extends string>(flag: string, names: readonly Name[], given: string): Name {
  const known = names.find((one) => one === given);
  if (known !== undefined) return known;
  throw new StackError({
    code: "cli/usage",
    kind: "usage",
    message: `${flag} takes ${names.slice(0, -1).join(", ")} or ${names.at(-1)}, not "${given}"`,
    hint: "iommukit inspect --emit qemu --iommu virtio --device 0000:03:00.0",
  });
}

function hostMachine(root: string | undefined): Machine {
  const host = root === undefined ? liveHost() : openHost(root);
  if (host.kind === "tree") return readHost(host.tree).machine;
  throw new StackError({
    code: "cli/usage",
    kind: "usage",
    message: "an lstopo export does not do as the host here",
    hint: "use `iommukit inspect --capture` on the host",
  });
}
