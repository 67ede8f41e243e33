/** What makes a machine file impossible although it has the form; each problem names its place. */
import { sizeText } from "../units.ts";
import type { LiveDocument } from "./live-schema.ts";
import type { ValuePath } from "./yaml-source.ts";

/** A problem, at the value that causes it. */
export interface LiveProblem {
  readonly path: ValuePath;
  readonly message: string;
  readonly hint?: string;
}

const MEBIBYTE = 1n << 20n;
const MEMORY_MIN = 128n * MEBIBYTE;
const MEMORY_MAX = 1n << 40n;
const DISK_BYTES_MAX = 1n << 47n;
/** What a disk kept in the memory of this process may hold. */
const MEMORY_DISK_MAX = 1n << 31n;
const BLOCK_BYTES = 512n;
/** Sockets of the runtime folder that are no device's. */
const RESERVED: readonly string[] = ["metrics", "control", "agent"];
/** Slots of q35 that QEMU itself fills. */
const TAKEN = new Map([
  [0, "the host bridge of q35"],
  [31, "the ISA bridge of q35"],
]);

/** All problems, in the order of the file's sections. */
export function liveProblems(document: LiveDocument): LiveProblem[] {
  return [
    ...memoryProblems(document),
    ...nodeProblems(document),
    ...nameProblems(document),
    ...slotProblems(document),
    ...diskProblems(document),
    ...qemuProblems(document),
  ];
}

function memoryProblems({ memory }: LiveDocument): LiveProblem[] {
  const path = ["memory"];
  if (memory < MEMORY_MIN) {
    return [{ path, message: `${sizeText(memory)} of memory boot no Linux; 128 MiB is the least` }];
  }
  if (memory > MEMORY_MAX) return [{ path, message: "1 TiB of memory is the most" }];
  if (memory % MEBIBYTE !== 0n) return [{ path, message: "memory comes in whole MiB" }];
  return [];
}

function nodeProblems({ nodes = [], memory, cpus = 1 }: LiveDocument): LiveProblem[] {
  if (nodes.length === 0) return [];
  const problems: LiveProblem[] = [];
  const sum = nodes.reduce((bytes, node) => bytes + node.memory, 0n);
  if (sum !== memory) {
    const message = `the nodes have ${sizeText(sum)} together, the machine ${sizeText(memory)}`;
    problems.push({ path: ["nodes"], message });
  }
  const owner = new Map<number, number>();
  nodes.forEach((node, index) => {
    if (node.memory % MEBIBYTE !== 0n || node.memory === 0n) {
      problems.push({
        path: ["nodes", index, "memory"],
        message: "a node has whole MiB of memory",
      });
    }
    for (const cpu of node.cpus) {
      const path = ["nodes", index, "cpus"];
      if (cpu >= cpus) problems.push({ path, message: `there is no CPU ${cpu} of ${cpus}` });
      else if (owner.has(cpu)) {
        problems.push({ path, message: `CPU ${cpu} is on node ${owner.get(cpu)} already` });
      } else owner.set(cpu, index);
    }
  });
  for (let cpu = 0; cpu < cpus; cpu += 1) {
    if (owner.has(cpu)) continue;
    problems.push({ path: ["nodes"], message: `CPU ${cpu} is on no node` });
    break;
  }
  return problems;
}

function nameProblems({ ports = [], iommu, disks = [] }: LiveDocument): LiveProblem[] {
  const named: [string, ValuePath][] = [
    ...ports.map(({ name }, at): [string, ValuePath] => [name, ["ports", at, "name"]]),
    ...(iommu === undefined
      ? []
      : [[iommu.name ?? "iommu0", ["iommu", "name"]] as [string, ValuePath]]),
    ...disks.map(({ name }, at): [string, ValuePath] => [name, ["disks", at, "name"]]),
  ];
  const seen = new Set<string>();
  return named.flatMap(([name, path]) => {
    if (RESERVED.includes(name)) {
      return [{ path, message: `${name}.sock is a socket of the machine's own, not of a device` }];
    }
    const isNew = !seen.has(name);
    seen.add(name);
    return isNew ? [] : [{ path, message: `there are two called ${name}` }];
  });
}

function slotProblems({ ports = [], iommu, disks = [] }: LiveDocument): LiveProblem[] {
  const used = new Map(TAKEN);
  const problems: LiveProblem[] = [];
  const take = (device: number, name: string, path: ValuePath) => {
    const before = used.get(device);
    if (before === undefined) used.set(device, name);
    else problems.push({ path, message: `slot ${device} of bus 0 has ${before} already` });
  };
  for (const [index, { name, at }] of ports.entries()) take(at, name, ["ports", index, "at"]);
  if (iommu !== undefined) take(iommu.at, "the virtio-iommu", ["iommu", "at"]);
  const behind = new Map<string, string>();
  disks.forEach((disk, index) => {
    const { name, at, behind: port } = disk;
    const path: ValuePath = ["disks", index];
    if (port === undefined) {
      if (at === undefined)
        problems.push({ path, message: `${name} has neither a slot (at) nor a port (behind)` });
      else take(at, name, [...path, "at"]);
      return;
    }
    if (!ports.some((one) => one.name === port)) {
      const message = `${name} is behind ${port}, and there is no such port`;
      problems.push({ path: [...path, "behind"], message });
    }
    if (at !== undefined && at !== 0) {
      problems.push({ path: [...path, "at"], message: "behind a root port there is slot 0 alone" });
    }
    const other = behind.get(port);
    if (other !== undefined) {
      const message = `${port} has ${other} already: a root port has one slot`;
      problems.push({ path: [...path, "behind"], message });
    }
    behind.set(port, name);
  });
  return problems;
}

function diskProblems({ iommu, disks = [] }: LiveDocument): LiveProblem[] {
  return disks.flatMap((disk, index): LiveProblem[] => {
    const path: ValuePath = ["disks", index];
    const { name, image, size } = disk;
    const problems: LiveProblem[] = [];
    if (image === undefined && size === undefined) {
      const message = `${name} is in nothing: it needs an image (a file) or a size (in memory)`;
      problems.push({ path, message });
    }
    if (image !== undefined && size !== undefined) {
      const message = `${name} has an image, whose size is the disk's`;
      problems.push({ path: [...path, "size"], message });
    } else if (
      size !== undefined &&
      (size === 0n || size % BLOCK_BYTES !== 0n || size > DISK_BYTES_MAX)
    ) {
      problems.push({ path: [...path, "size"], message: "a disk has whole blocks of 512 bytes" });
    } else if (size !== undefined && size > MEMORY_DISK_MAX) {
      const message = `${name} would hold ${sizeText(size)} in memory; 2 GiB is the most`;
      problems.push({ path: [...path, "size"], message, hint: "name an image instead" });
    }
    if (image === undefined && disk.readOnly === true) {
      const message = `${name} is in memory, and would be read-only and empty`;
      problems.push({ path: [...path, "readOnly"], message });
    }
    if (iommu === undefined && disk.translated === true) {
      const message = `${name} is translated, and the machine has no iommu`;
      problems.push({ path: [...path, "translated"], message });
    }
    return problems;
  });
}

function qemuProblems({ qemu, iommu, disks = [] }: LiveDocument): LiveProblem[] {
  if (qemu === undefined) return [];
  const problems: LiveProblem[] = [];
  const { kernel, initrd, append, boot } = qemu;
  if (boot !== undefined && !disks.some(({ name }) => name === boot)) {
    problems.push({ path: ["qemu", "boot"], message: `there is no disk ${boot} to boot from` });
  }
  if (kernel !== undefined && boot !== undefined) {
    const message = "a machine boots a kernel or a disk, not both";
    problems.push({ path: ["qemu", "boot"], message });
  }
  if (kernel === undefined && (initrd ?? append) !== undefined) {
    const key = initrd === undefined ? "append" : "initrd";
    problems.push({ path: ["qemu", key], message: `${key} is nothing without a kernel` });
  }
  if (boot !== undefined && iommu?.bypass === false) {
    const message = "firmware cannot read a disk behind an IOMMU without bypass";
    problems.push({ path: ["iommu", "bypass"], message, hint: "remove `bypass: false`" });
  }
  return problems;
}
