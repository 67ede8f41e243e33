/**
 * The host of the RFC "vfio: add attach_group_by_node": two nodes, in each two root complexes with
 * two GPUs and two NICs behind them, and an IOMMU for each root complex.
 */
import type { DevicePlan, HostPlan, UnitPlan } from "./host-plan.ts";

const MIB = 2 ** 20;

/** Root complexes: first bus and node. */
const complexes = [
  { bus: 0x10, node: 0 },
  { bus: 0x20, node: 0 },
  { bus: 0x90, node: 1 },
  { bus: 0xa0, node: 1 },
] as const;

const DISPLAY = 0x03_0200;
const ETHERNET = 0x02_0000;

/** The host; options replace parts. */
export function allReduceHost(options: Partial<HostPlan> = {}): HostPlan {
  return {
    nodes: [{ memory: 256 * MIB }, { memory: 256 * MIB }],
    distances: [
      [10, 21],
      [21, 10],
    ],
    units: complexes.map(({ node }, index): UnitPlan => ({ name: `dmar${index}`, node })),
    devices: complexes.flatMap(({ bus }, index) =>
      [DISPLAY, DISPLAY, ETHERNET, ETHERNET].map((classCode, slot): DevicePlan => {
        const address = `0000:${(bus + 1 + slot).toString(16)}:00.0`;
        return { address, unit: `dmar${index}`, classCode };
      }),
    ),
    ...options,
  };
}
