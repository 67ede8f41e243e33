/** A machine with an IOMMU of every kind, for tests that write every table from it. */
import {
  EMPTY_MACHINE,
  type FirmwareRegion,
  type Machine,
  type MachineFunction,
  type NumaNode,
  type RidRange,
} from "../../topology/machine.ts";

export const range = (first: number, last: number, firstId = first, segment = 0): RidRange => ({
  segment,
  firstRid: first,
  lastRid: last,
  firstId,
  includesBelow: false,
});

const common = { node: null, includesRest: false, endpoints: [], interruptSources: [] };

const region = (
  source: FirmwareRegion["source"],
  start: bigint,
  functions: RidRange[] | null,
): FirmwareRegion => ({
  start,
  last: start + 0xffffn,
  source,
  treatment: "mapped",
  canRead: true,
  canWrite: true,
  functions,
});

const nodes: NumaNode[] = [0, 1, 2].map((id) => ({
  id,
  proximityDomain: id,
  memory:
    id === 2
      ? []
      : [
          {
            start: BigInt(id) * 2n ** 32n,
            last: BigInt(id + 1) * 2n ** 32n - 1n,
            hotPluggable: id === 1,
            nonVolatile: false,
          },
        ],
  memoryBytes: id === 2 ? 0n : 2n ** 32n,
  cpus: id === 2 ? [] : [id],
  firmwareCpuIds: id === 2 ? [] : [id === 0 ? 3 : 0x1234],
  distances: [0, 1, 2].map((other) => (other === id ? 10 : 20 + id + other)),
}));

/** See above; `functions` holds only what tables look at. */
export const richMachine: Machine = {
  ...EMPTY_MACHINE,
  architecture: "x86_64",
  firmware: "acpi",
  nodes,
  hostBridges: [0, 1].map((segment) => ({
    segment,
    firstBus: 0,
    lastBus: 0x7f,
    node: segment,
    ecamBase: 0xb000_0000n + BigInt(segment) * 0x1000_0000n,
    windows: [],
    bypassesIommu: false,
    atsSupported: true,
  })),
  functions: [
    { segment: 0, bus: 0, devfn: 8, bridge: -1, secondaryBus: 1, header: "bridge", node: 0 },
    { segment: 0, bus: 1, devfn: 3, bridge: 0, secondaryBus: -1, header: "endpoint", node: 2 },
  ] as unknown as MachineFunction[],
  iommus: [
    {
      ...common,
      kind: "virtio-pci",
      name: "0000:00:04.0",
      segment: 0,
      rid: 0x20,
      translates: [range(0, 0x1f), range(0x21, 0xffff), range(0, 0xff, 0x1_0000, 1)],
    },
    {
      ...common,
      kind: "virtio-mmio",
      name: "virtio-mmio.0xfeb02e00",
      registers: { start: 0xfeb0_2e00n, last: 0xfeb0_2fffn },
      interrupts: [12],
      translates: [],
      endpoints: [{ base: 0xfeb0_2c00n, id: 0x42, path: null }],
    },
    {
      ...common,
      kind: "vtd",
      name: "dmar0",
      node: 1,
      segment: 0,
      registers: { start: 0xfed9_0000n, last: 0xfed9_1fffn },
      version: null,
      capability: 0x00d2_008c_40_66_0462n,
      extendedCapability: null,
      translates: [{ ...range(8, 8), includesBelow: true }, range(0x103, 0x103)],
      endpoints: [{ base: 0n, id: 0xf8, path: "\\_SB.PCI0.I2C0" }],
      interruptSources: [
        { kind: "ioapic", id: 0, segment: 0, rid: 0xff00 },
        { kind: "hpet", id: 1, segment: 0, rid: 0xfa },
      ],
    },
    {
      ...common,
      kind: "vtd",
      name: "dmar1",
      node: 0,
      includesRest: true,
      segment: 0,
      registers: { start: 0xfed9_2000n, last: 0xfed9_2fffn },
      version: null,
      capability: null,
      extendedCapability: null,
      translates: [],
    },
    {
      ...common,
      kind: "amd",
      name: "ivhd0",
      segment: 0,
      rid: 2,
      capabilityOffset: 0x40,
      registers: { start: 0xfeb8_0000n, last: 0xfeb8_3fffn },
      features: 0x58f7_7ef2_2294_ade8n,
      features2: 0n,
      translates: [range(8, 0xa4), range(0xa5, 0xa5), range(0x100, 0x100, 0xa5)],
      endpoints: [
        { base: 0n, id: 0xa5, path: "\\_SB.FUR0" },
        { base: 0n, id: 0xa5, path: "AMDI0020:1" },
      ],
      interruptSources: [{ kind: "ioapic", id: 4, segment: 0, rid: 0xa0 }],
    },
    {
      ...common,
      kind: "smmuv3",
      name: "smmu3.0x0000000009050000",
      node: 1,
      registers: { start: 0x905_0000n, last: 0x906_ffffn },
      isCoherent: true,
      interrupts: [74, 75, 77, 76],
      translates: [range(0, 0x1ff), range(0x400, 0x4ff, 0x1_0000)],
      endpoints: [{ base: 0n, id: 0x2_0000, path: "\\_SB.VR00" }],
    },
    {
      ...common,
      kind: "smmuv2",
      name: "smmu.0x000000002b400000",
      registers: { start: 0x2b40_0000n, last: 0x2b40_ffffn },
      isCoherent: false,
      interrupts: [1, 2, 3, 4],
      translates: [range(0x800, 0x8ff, 0)],
    },
  ],
  firmwareRegions: [
    region("rmrr", 0x7f00_0000n, [range(0x103, 0x103)]),
    region("ivmd", 0x1f00_0000n, null),
    region("ivmd", 0x1f10_0000n, [range(9, 9)]),
    region("ivmd", 0x1f20_0000n, [range(16, 32)]),
    region("rmr", 0x9000_0000n, [range(0x400, 0x40f, 0x1_0000)]),
  ],
  atsScopes: [
    { segment: 0, kind: "ports", rids: [8], isRequired: false },
    { segment: 0, kind: "integrated", rids: [0x103], isRequired: true },
  ],
};
