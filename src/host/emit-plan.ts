/**
 * A virtual machine with its host's topology for chosen devices: a guest node for each of the host's
 * that they are on, with its memory and as many CPUs.
 */
import { StackError } from "../errors.ts";
import { pciName } from "../iommu/pci-function.ts";
import type { Machine, MachineFunction } from "../topology/machine.ts";
import { distanceOf } from "../topology/page-tables.ts";
import { sizeText } from "../units.ts";

/** IOMMUs that a guest can have in front of devices of its host. */
export const emitIommus = ["none", "virtio", "intel", "amd"] as const;
export type EmitIommu = (typeof emitIommus)[number];

/** What is not taken from the host. */
export interface EmitOptions {
  /** Memory of the guest, shared out evenly; half of what the host's nodes have when absent. */
  readonly memoryBytes?: bigint;
  /** CPUs of the guest, shared out evenly; those of the host's nodes when absent. */
  readonly cpus?: number;
  readonly iommu?: EmitIommu;
}

/** A guest node. */
export interface PlannedNode {
  readonly hostNode: number;
  /** CPUs of the host's node, for those that pin. */
  readonly hostCpus: readonly number[];
  readonly memoryBytes: bigint;
  readonly cpus: number;
  readonly distances: readonly number[];
}

/** A machine to write down. */
export interface VmPlan {
  readonly isArm: boolean;
  readonly iommu: EmitIommu;
  /** By guest node; empty where the host says nothing of nodes. */
  readonly nodes: readonly PlannedNode[];
  readonly memoryBytes: bigint;
  readonly cpus: number;
  /** Devices with the guest's node, −1 for one that has none. */
  readonly devices: readonly { readonly name: string; readonly node: number }[];
}

/** First bus of an expander, and how far they are apart. */
export const BUS_STEP = 0x20;
const NODES_MAX = 7;
/** Ports on one root bus: its own number and one for each. */
const PORTS_MAX = BUS_STEP - 1;
/** Slots of the first root bus that a board and an IOMMU leave. */
const ROOT_PORTS_MAX = 24;
const DISTANCE_DEFAULT = 20;
/** What a guest node's memory is a multiple of. */
const MEMORY_STEP = 128n << 20n;
/** What one has of whose host nothing is known. */
const MEMORY_UNKNOWN = 2n << 30n;
const CPUS_UNKNOWN = 2;

/** Plans it. @throws StackError when a device is not there, or something does not fit */
export function planOf(host: Machine, names: readonly string[], options: EmitOptions): VmPlan {
  const chosen = chosenOf(host, names);
  const used = new Set(chosen.flatMap(({ node }) => node ?? []));
  const ids = [...used].sort((a, b) => a - b);
  if (ids.length > NODES_MAX) throw refused(`${ids.length} nodes; at most ${NODES_MAX} fit`);
  const nodes = ids.map((id): PlannedNode => {
    const found = host.nodes.find((one) => one.id === id);
    const hostCpus = found?.cpus ?? [];
    const half = (found?.memoryBytes ?? 0n) / 2n;
    return {
      hostNode: id,
      hostCpus,
      memoryBytes: shareOf(options.memoryBytes, ids.length) ?? rounded(half),
      cpus: hostCpus.length,
      distances: ids.map((to) => distanceOf(host, id, to) ?? (id === to ? 10 : DISTANCE_DEFAULT)),
    };
  });
  const counted = withCpus(nodes, options.cpus);
  const isArm = host.architecture === "aarch64";
  const iommu = options.iommu ?? "none";
  if (isArm && (iommu === "intel" || iommu === "amd")) throw refused(`Arm has no ${iommu} IOMMU`);
  const sum = counted.reduce((total, { memoryBytes }) => total + memoryBytes, 0n);
  return {
    isArm,
    iommu,
    nodes: counted,
    memoryBytes: counted.length > 0 ? sum : (options.memoryBytes ?? MEMORY_UNKNOWN),
    cpus: counted.reduce((total, { cpus }) => total + cpus, 0) || (options.cpus ?? CPUS_UNKNOWN),
    devices: chosen.map((one) => ({
      name: pciName(one),
      node: one.node === null ? -1 : ids.indexOf(one.node),
    })),
  };
}

function chosenOf(host: Machine, names: readonly string[]): MachineFunction[] {
  const byName = new Map(host.functions.map((one) => [pciName(one), one]));
  const chosen = [...new Set(names)].map((name) => {
    const found = byName.get(name);
    if (found === undefined) throw refused(`the host has no function ${name}`);
    if (found.header !== "endpoint") throw refused(`${name} is a bridge; name what is behind it`);
    return found;
  });
  if (chosen.length === 0) throw refused("no device is named");
  const counts = new Map<number | null, number>();
  for (const { node } of chosen) {
    const count = (counts.get(node) ?? 0) + 1;
    counts.set(node, count);
    const most = node === null ? ROOT_PORTS_MAX : PORTS_MAX;
    if (count > most) throw refused(`more than ${most} devices are on one root bus`);
  }
  return chosen;
}

/** An even part of what was asked for; null where nothing was. */
function shareOf(bytes: bigint | undefined, nodes: number): bigint | null {
  if (bytes === undefined) return null;
  const share = bytes / BigInt(nodes);
  if (share * BigInt(nodes) === bytes && share > 0n && share % (2n << 20n) === 0n) return share;
  const hint = "memory is shared out in multiples of 2MiB";
  throw refused(`${sizeText(bytes)} cannot be shared out evenly to ${nodes} nodes`, hint);
}

function rounded(bytes: bigint): bigint {
  if (bytes === 0n) return MEMORY_UNKNOWN;
  return bytes < MEMORY_STEP ? MEMORY_STEP : bytes - (bytes % MEMORY_STEP);
}

/** CPUs as asked for, or as the host's nodes have them; a guest without any gets some. */
function withCpus(nodes: readonly PlannedNode[], asked: number | undefined): PlannedNode[] {
  if (asked === undefined) {
    const isBare = nodes.every(({ cpus }) => cpus === 0);
    return nodes.map((one) => (isBare ? { ...one, cpus: CPUS_UNKNOWN } : one));
  }
  if (nodes.length > 0 && (asked < nodes.length || asked % nodes.length !== 0)) {
    const hint = "give a multiple of the nodes that the devices are on";
    throw refused(`${asked} CPUs cannot be shared out evenly to ${nodes.length} nodes`, hint);
  }
  return nodes.map((one) => ({ ...one, cpus: asked / nodes.length }));
}

/** Why the arguments cannot be written. */
export function refused(
  message: string,
  hint = "name devices of the host with --device; `iommukit inspect` lists them",
): StackError {
  return new StackError({ code: "host/emit", kind: "input", message, hint });
}
