/** NUMA nodes of a machine as devicetree nodes: CPUs, memory, distances. Source: binding numa. */
import type { Machine } from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { checkMemoryRanges } from "../memory-ranges.ts";
import { cells, type DtNode, dtNode, strings, twoCells } from "./tree.ts";

/** What a CPU is compatible with; others have no name that Linux looks for. */
const cpuNames: Readonly<Record<string, string>> = { aarch64: "arm,armv8", riscv64: "riscv" };

/** `cpus`, `memory@…` and `distance-map`; none where the machine names no nodes. */
export function numaNodes({ nodes, architecture }: Machine, as: string): DtNode[] {
  checkMemoryRanges(as, nodes);
  if (nodes.length === 0) return [];
  const compatible = cpuNames[architecture ?? "aarch64"];
  const cpus = nodes
    .flatMap(({ id, cpus: list, firmwareCpuIds }) =>
      list.map((cpu, index) => ({ id, cpu, reg: firmwareCpuIds?.[index] ?? cpu })),
    )
    .sort((a, b) => a.cpu - b.cpu)
    .map(({ id, reg }) =>
      dtNode(`cpu@${hex(reg).slice(2)}`, {
        device_type: strings("cpu"),
        compatible: compatible === undefined ? null : strings(compatible),
        reg: cells(reg),
        "numa-node-id": cells(id),
      }),
    );
  const memory = nodes.flatMap(({ id, memory: ranges }) =>
    ranges.map(({ start, last, hotPluggable }) =>
      dtNode(`memory@${hex(start).slice(2)}`, {
        device_type: strings("memory"),
        reg: cells(...twoCells(start), ...twoCells(last - start + 1n)),
        "numa-node-id": cells(id),
        hotpluggable: hotPluggable ? new Uint8Array() : null,
      }),
    ),
  );
  const matrix = nodes.flatMap(({ id, distances }) =>
    nodes.flatMap((to, index) => [id, to.id, distances[index] ?? (to.id === id ? 10 : 20)]),
  );
  return [
    dtNode("cpus", { "#address-cells": cells(1), "#size-cells": cells(0) }, cpus),
    ...memory,
    dtNode("distance-map", {
      compatible: strings("numa-distance-map-v1"),
      "distance-matrix": cells(...matrix),
    }),
  ];
}
