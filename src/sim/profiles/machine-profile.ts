/** A machine with a name: what it can do, what steps cost on it, and where each figure is from. */
import type { DiskSpeed } from "../device/disk.ts";
import type { HostMemory } from "../guest/second-stage.ts";
import { OWN_CPU, type Price, PriceList } from "../price-list.ts";
import type { FioMachine } from "../workload/fio-run.ts";

/** A profile as files hold it. Sources are for people; a figure without one is a guess. */
export interface MachineProfile {
  readonly name: string;
  readonly about: string;
  readonly iommu: "virtio" | "vtd";
  /** CPUs of each node; IOMMU, disk and their queues are on node 0. */
  readonly cpusByNode: readonly number[];
  readonly software: {
    readonly submitNs: number;
    readonly completeNs: number;
    readonly source: string;
  };
  readonly disk: DiskSpeed & { readonly source: string };
  /** In how many of a thousand places the next page of a buffer lies elsewhere. */
  readonly buffers: { readonly breaksPerMille: number; readonly source: string };
  /** Host memory behind a guest with a passed-through disk; null for none. */
  readonly host: HostMemory | null;
  readonly prices: readonly Price[];
}

/** What steps can be paid on: the CPU of the process, and what everybody shares. */
export const FIO_RESOURCES: readonly string[] = [
  OWN_CPU,
  "virtio-iommu request lock",
  "invalidation queue",
  "IOVA tree lock",
];

/** CPUs of a machine. */
export const CPUS_MAX = 4096;

/** The machine that a profile describes. @throws StackError `sim/price` */
export function machineOf(profile: MachineProfile): FioMachine {
  const { iommu, cpusByNode, software, disk, buffers, host, prices } = profile;
  const nodeOfCpu = cpusByNode.flatMap((count, node) => Array.from({ length: count }, () => node));
  const { source: _, ...speed } = disk;
  return {
    iommu,
    cpus: nodeOfCpu.length,
    ...(cpusByNode.length > 1 ? { nodeOfCpu } : {}),
    disk: speed,
    prices: new PriceList(prices),
    submitNs: software.submitNs,
    completeNs: software.completeNs,
    scatter: { breaksPerMille: buffers.breaksPerMille },
    host,
  };
}
