/** Reads machine files of `serve`, `vm` and `measure`; every complaint has its line and column. */
import { StackError } from "../errors.ts";
import type { Backing, LiveDisk, LiveMachine, Slot } from "../live/machine/live-machine.ts";
import { sizeText } from "../units.ts";
import { liveProblems } from "./live-problems.ts";
import { type DiskDocument, type LiveDocument, liveSchema } from "./live-schema.ts";
import { validate } from "./validate.ts";
import { parseYaml } from "./yaml-source.ts";

const HINT = "docs/live.md describes the form";

/**
 * Reads a machine file.
 *
 * @param file - how messages name it
 * @param resolve - makes a path that stands in the file usable from here
 * @throws StackError with line and column: no YAML, not of the form, or an impossible machine
 */
export function liveMachineFromYaml(
  text: string,
  file: string,
  resolve: (path: string) => string = (path) => path,
): LiveMachine {
  const source = parseYaml(text, file);
  const document = validate(source, liveSchema, HINT);
  const problems = liveProblems(document);
  const [first] = problems;
  if (first !== undefined) {
    const more = problems.length - 1;
    const others = more === 0 ? "" : ` (and ${more} more problem${more === 1 ? "" : "s"})`;
    throw new StackError({
      code: "config/impossible-machine",
      kind: "input",
      message: first.message + others,
      at: source.positionOf(first.path),
      hint: first.hint ?? HINT,
    });
  }
  return machineOf(document, resolve);
}

function machineOf(document: LiveDocument, resolve: (path: string) => string): LiveMachine {
  const { iommu, qemu = {}, metrics } = document;
  const path = (one: string | undefined) => (one === undefined ? null : resolve(one));
  return {
    name: document.name ?? "vm",
    memoryBytes: Number(document.memory),
    cpus: document.cpus ?? 1,
    nodes: (document.nodes ?? []).map(({ memory, cpus, hostNode }) => {
      return { bytes: Number(memory), cpus, hostNode: hostNode ?? null };
    }),
    ram: document.ram ?? "pin",
    ports: (document.ports ?? []).map(({ name, at }) => ({ name, device: at })),
    iommu:
      iommu === undefined
        ? null
        : {
            name: iommu.name ?? "iommu0",
            slot: { device: iommu.at, port: null },
            bypass: iommu.bypass ?? true,
            doorbell: iommu.doorbell ?? "message",
          },
    disks: (document.disks ?? []).map((one) => diskOf(one, iommu !== undefined, resolve)),
    metrics:
      metrics?.kind === "unix" ? { kind: "unix", path: resolve(metrics.path) } : (metrics ?? null),
    qemu: {
      program: path(qemu.program),
      accelerator: qemu.accelerator ?? "tcg",
      cpu: qemu.cpu ?? ((qemu.accelerator ?? "tcg") === "kvm" ? "host" : "max"),
      kernel: path(qemu.kernel),
      initrd: path(qemu.initrd),
      append: qemu.append ?? "",
      boot: qemu.boot ?? null,
      extra: qemu.arguments ?? [],
    },
  };
}

function diskOf(one: DiskDocument, hasIommu: boolean, resolve: (path: string) => string): LiveDisk {
  const slot: Slot = { device: one.at ?? 0, port: one.behind ?? null };
  const backing: Backing =
    one.image === undefined
      ? { kind: "memory", bytes: Number(one.size) }
      : { kind: "file", path: resolve(one.image) };
  return {
    kind: one.kind,
    name: one.name,
    slot,
    backing,
    isReadOnly: one.readOnly ?? false,
    queues: one.queues ?? 1,
    isTranslated: one.translated ?? hasIommu,
  };
}

/** A machine in one line, as `serve` and `vm` say it. */
export function liveMachineText(machine: LiveMachine): string {
  const { name, cpus, memoryBytes, disks, iommu } = machine;
  const cpuText = cpus === 1 ? "1 CPU" : `${cpus} CPUs`;
  const parts = [cpuText, `${sizeText(memoryBytes)} of memory`];
  if (iommu !== null) parts.push("a virtio-iommu");
  parts.push(...disks.map((disk) => `${disk.kind} ${disk.name}`));
  return `${name}: ${parts.join(", ")}`;
}
