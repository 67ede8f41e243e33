/** A machine written as tables and read back; what real firmware wrote comes out byte for byte. */
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import {
  type AmdIommu,
  EMPTY_MACHINE,
  type FirmwareRegion,
  type Iommu,
  type Machine,
  type NumaNode,
  type RidRange,
  type SmmuIommu,
  type VirtioMmioIommu,
  type VirtioPciIommu,
  type VtdIommu,
} from "../../topology/machine.ts";
import { type AcpiKind, buildTable } from "./build.ts";
import { decodeTable } from "./decode.ts";
import { readTables } from "./machine-parts.ts";
import { richMachine } from "./rich-machine.suite.ts";
import { idsOf } from "./table-writer.ts";

const read = (name: string) =>
  new Uint8Array(readFileSync(new URL(`./vectors/${name}`, import.meta.url)));

/** The machine that tables describe; they must be flawless. */
function machineOf(tables: readonly Uint8Array[], functions: Machine["functions"] = []): Machine {
  const { machine, findings } = readTables(tables.map(decodeTable), functions);
  expect(findings.flat()).toEqual([]);
  return machine;
}

const range = (first: number, last: number, firstId = first, segment = 0): RidRange => ({
  segment,
  firstRid: first,
  lastRid: last,
  firstId,
  includesBelow: false,
});
const common = {
  node: null,
  includesRest: false,
  translates: [] as RidRange[],
  endpoints: [],
  interruptSources: [],
};
const node = (id: number, more: Partial<NumaNode> = {}): NumaNode => ({
  id,
  proximityDomain: id,
  memory: [],
  memoryBytes: 0n,
  cpus: [],
  firmwareCpuIds: [],
  distances: [],
  ...more,
});

describe("a table of QEMU, read and written again", () => {
  it.each(["qemu-virtio/VIOT", "reference/VIOT-expander", "reference/VIOT-injected"])(
    "%s is the same table (F1, F4)",
    (name) => {
      const bytes = read(name);
      const machine = machineOf([bytes]);
      expect(buildTable("viot", machine, idsOf(bytes))).toEqual(bytes);
    },
  );

  it.each(["SLIT", "MCFG"])("qemu-intel/%s is the same table", (name) => {
    const bytes = read(`qemu-intel/${name}`);
    const tables = name === "SLIT" ? [read("qemu-intel/SRAT"), bytes] : [bytes];
    const machine = machineOf(tables);
    const kind = name.toLowerCase() as AcpiKind;
    expect(buildTable(kind, machine, idsOf(bytes))).toEqual(bytes);
  });

  it("DMAR is the same table", () => {
    const bytes = read("qemu-intel/DMAR");
    expect(buildTable("dmar", machineOf([bytes]), idsOf(bytes))).toEqual(bytes);
  });

  it("SRAT gives the same nodes, CPUs and memory, in a later revision without filler", () => {
    const bytes = read("qemu-intel/SRAT");
    const machine = machineOf([bytes]);
    const again = buildTable("srat", machine);
    expect(again[8]).toBe(3);
    expect(again.length).toBe(bytes.length - 40);
    expect(machineOf([again])).toEqual(machine);
  });

  it("IORT gives the same host bridge, and ids without SMMU lead to the ITS (F42, F44)", () => {
    const bytes = read("reference/IORT-its");
    const machine = machineOf([bytes]);
    const again = buildTable("iort", machine, idsOf(bytes));
    // QEMU gives the ITS group revision 1 and the root complex 3, as we do: the same bytes.
    expect(again).toEqual(bytes);
  });
});

describe("a machine written and read", () => {
  const machineWith = (iommus: readonly Iommu[], more: Partial<Machine> = {}): Machine => ({
    ...EMPTY_MACHINE,
    firmware: "acpi",
    iommus,
    ...more,
  });

  it.each([
    ["vtd", "dmar"],
    ["amd", "ivrs"],
  ] as const)("refuses a %s unit with functions of another segment in %s", (kind, as) => {
    const unit = richMachine.iommus.find((one) => one.kind === kind)!;
    const iommus = [{ ...unit, translates: [range(0x10, 0x10, 0x10, 7)] }];
    expect(() => buildTable(as, { ...richMachine, iommus })).toThrow(/has functions of 7/);
  });

  it("keeps ranges of several segments as one VIOT node with ids 65536 apart (F3)", () => {
    const iommu: VirtioPciIommu = {
      ...common,
      kind: "virtio-pci",
      name: "0001:00:02.0",
      segment: 1,
      rid: 0x10,
      translates: [range(0, 0xff, 0x100, 3), range(0, 0xff, 0x1_0100, 4)],
    };
    const bytes = buildTable("viot", machineWith([iommu]));
    expect(bytes.length).toBe(88);
    expect(machineOf([bytes]).iommus).toEqual([iommu]);
  });

  it("keeps a virtio-iommu with registers in memory and its endpoints", () => {
    const iommu: VirtioMmioIommu = {
      ...common,
      kind: "virtio-mmio",
      name: "virtio-mmio.0xfeb02e00",
      registers: { start: 0xfeb0_2e00n, last: 0xfeb0_2e00n },
      interrupts: [],
      endpoints: [{ base: 0xfeb0_2c00n, id: 0x42, path: null }],
    };
    expect(machineOf([buildTable("viot", machineWith([iommu]))]).iommus).toEqual([iommu]);
  });

  const vtd: VtdIommu = {
    ...common,
    kind: "vtd",
    name: "dmar0",
    node: 1,
    segment: 0,
    registers: { start: 0xfed9_0000n, last: 0xfed9_1fffn },
    version: null,
    capability: null,
    extendedCapability: null,
    translates: [range(0x10, 0x10), { ...range(0x18, 0x18), includesBelow: true }],
    endpoints: [{ base: 0n, id: 0xf8, path: "\\_SB.PCI0.I2C0" }],
    interruptSources: [{ kind: "hpet", id: 2, segment: 0, rid: 0xfa }],
  };
  const rest: VtdIommu = {
    ...vtd,
    name: "dmar1",
    includesRest: true,
    node: 0,
    registers: { start: 0xfed9_2000n, last: 0xfed9_2fffn },
    translates: [],
    endpoints: [],
    interruptSources: [{ kind: "ioapic", id: 0, segment: 0, rid: 0xff00 }],
  };
  const nodes = [
    node(0, { cpus: [0], firmwareCpuIds: [4] }),
    node(1, { cpus: [1], firmwareCpuIds: [300] }),
  ];
  const srat = () => buildTable("srat", machineWith([], { nodes }));

  it("keeps VT-d units with their scopes, nodes, reserved memory and ATS (F60, F65)", () => {
    const regions: FirmwareRegion[] = [
      {
        start: 0x7f00_0000n,
        last: 0x7f0f_ffffn,
        source: "rmrr",
        treatment: "mapped",
        canRead: true,
        canWrite: true,
        functions: [range(0x10, 0x10)],
      },
    ];
    const atsScopes = [
      { segment: 0, kind: "ports", rids: [0x18], isRequired: false },
      { segment: 0, kind: "integrated", rids: [0x10], isRequired: true },
    ] as const;
    // The unit that takes the rest is written last, however the machine has it.
    const machine = machineWith([rest, vtd], { firmwareRegions: regions, atsScopes, nodes });
    const found = machineOf([srat(), buildTable("dmar", machine)]);
    expect(found.iommus).toEqual([vtd, rest]);
    expect(found.firmwareRegions).toEqual(regions);
    expect(found.atsScopes).toEqual(atsScopes);
  });

  it("keeps AMD-Vi units with aliases, names and memory definitions (F69, F74)", () => {
    const amd: AmdIommu = {
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
      interruptSources: [{ kind: "ioapic", id: 0, segment: 0, rid: 0xa0 }],
    };
    const region = (treatment: "mapped" | "excluded", functions: RidRange[] | null) => ({
      start: 0x1f00_0000n,
      last: 0x1f00_1fffn,
      source: "ivmd" as const,
      treatment,
      canRead: true,
      canWrite: true,
      functions,
    });
    const firmwareRegions = [
      region("mapped", null),
      region("excluded", [range(9, 9)]),
      region("mapped", [range(16, 32)]),
    ];
    const found = machineOf([buildTable("ivrs", machineWith([amd], { firmwareRegions }))]);
    expect(found.iommus).toEqual([amd]);
    expect(found.firmwareRegions).toEqual(firmwareRegions);
  });

  it("keeps SMMUs with streams, devices, node and reserved memory (F34, F40, F41)", () => {
    const smmu: SmmuIommu = {
      ...common,
      kind: "smmuv3",
      name: "smmu3.0x0000000009050000",
      node: 1,
      registers: { start: 0x905_0000n, last: 0x906_ffffn },
      isCoherent: true,
      interrupts: [74, 75, 77, 76],
      translates: [range(0, 0x1ff), range(0x400, 0x4ff, 0x1_0000)],
      endpoints: [{ base: 0n, id: 0x2_0000, path: "\\_SB.VR00" }],
    };
    const old: SmmuIommu = {
      ...smmu,
      kind: "smmuv2",
      name: "smmu.0x000000002b400000",
      node: null,
      registers: { start: 0x2b40_0000n, last: 0x2b40_ffffn },
      interrupts: [1, 2, 3, 4],
      translates: [range(0x800, 0x8ff, 0, 0)],
      endpoints: [],
    };
    const firmwareRegions: FirmwareRegion[] = [
      {
        start: 0x9000_0000n,
        last: 0x9000_ffffn,
        source: "rmr",
        treatment: "mapped",
        canRead: true,
        canWrite: true,
        functions: [range(0x400, 0x40f, 0x1_0000)],
      },
    ];
    const machine = machineWith([smmu, old], { architecture: "aarch64", firmwareRegions, nodes });
    const found = machineOf([srat(), buildTable("iort", machine)]);
    expect(found.iommus).toEqual([smmu, old]);
    expect(found.firmwareRegions).toEqual(firmwareRegions);
  });

  it("writes CPUs of each architecture and initiators of nodes that have nothing else (F46, F48)", () => {
    const pci = {
      segment: 0,
      bus: 0x21,
      devfn: 0,
      node: 2,
      header: "endpoint",
    } as unknown as Machine["functions"][number];
    const three = [...nodes, node(2)];
    for (const architecture of ["x86_64", "aarch64", "riscv64"]) {
      const machine = machineWith([], { architecture, nodes: three, functions: [pci] });
      const bytes = buildTable("srat", machine);
      const found = readTables([decodeTable(bytes)]);
      expect(found.machine.nodes.map((one) => one.firmwareCpuIds)).toEqual([[4], [300], []]);
      expect(found.initiators).toEqual([{ proximityDomain: 2, segment: 0, rid: 0x2100 }]);
      if (architecture !== "x86_64") continue;
      const initiator = [...bytes.subarray(bytes.length - 32)];
      expect(initiator.slice(0, 12)).toEqual([5, 32, 0, 1, 2, 0, 0, 0, 0, 0, 0x21, 0]);
    }
  });

  it("gives a sparse proximity domain a row of its own in SLIT (F52)", () => {
    const sparse = [
      node(0, { distances: [10, 40], cpus: [0], firmwareCpuIds: [0] }),
      node(1, { proximityDomain: 3, distances: [30, 10], cpus: [1], firmwareCpuIds: [1] }),
    ];
    const machine = machineWith([], { nodes: sparse });
    const slit = buildTable("slit", machine);
    expect(slit.length).toBe(44 + 16);
    expect(machineOf([buildTable("srat", machine), slit]).nodes).toEqual(sparse);
  });

  it.each<[AcpiKind, Partial<Machine>, RegExp]>([
    ["viot", { iommus: [vtd] }, /no virtio-iommu/],
    ["dmar", {}, /no VT-d unit/],
    ["ivrs", {}, /no AMD-Vi unit/],
    ["iort", {}, /neither SMMU nor host bridge/],
    ["srat", {}, /no NUMA node/],
    ["slit", { nodes: [node(0, { distances: [9] })] }, /distance 0 → 0 is 9/],
    ["slit", { nodes: [node(0, { proximityDomain: 5000, distances: [10] })] }, /5001 localities/],
    ["srat", { nodes: [node(0), node(1, { proximityDomain: 0 })] }, /one proximity domain/],
    ["mcfg", {}, /configuration space/],
  ])("refuses %s of a machine that it cannot describe", (kind, parts, message) => {
    const build = () => buildTable(kind, { ...EMPTY_MACHINE, ...parts });
    expect(build).toThrow(StackError);
    expect(build).toThrow(message);
  });

  it("refuses endpoint ids beyond 32 bits", () => {
    const iommu: VirtioPciIommu = {
      ...common,
      kind: "virtio-pci",
      name: "0000:00:01.0",
      segment: 0,
      rid: 8,
      translates: [range(0, 0xffff, 0xffff_0001)],
    };
    expect(() => buildTable("viot", machineWith([iommu]))).toThrow(/32 bits/);
  });
});

describe("a unit that takes the rest", () => {
  const rest = { ...common, includesRest: true, segment: 0 };
  const claimed = range(0x100, 0x1ff);

  it("is all functions of an IVRS, which has an entry for that", () => {
    const unit: AmdIommu = {
      ...rest,
      kind: "amd",
      name: "ivhd0",
      rid: 2,
      capabilityOffset: 0x40,
      registers: { start: 0xfd20_0000n, last: 0xfd27_ffffn },
      features: null,
      features2: null,
      interruptSources: [{ kind: "ioapic", id: 0, segment: 0, rid: 0xa0 }],
    };
    const { iommus } = machineOf([buildTable("ivrs", { ...EMPTY_MACHINE, iommus: [unit] })]);
    expect(iommus[0]!.translates).toMatchObject([{ firstRid: 0, lastRid: 0xffff }]);
  });

  it("has what no other claims in IORT and VIOT", () => {
    const smmu: SmmuIommu = {
      ...rest,
      kind: "smmuv3",
      name: "smmu3",
      registers: { start: 0x905_0000n, last: 0x906_ffffn },
      isCoherent: true,
      interrupts: [],
    };
    const other = { ...smmu, includesRest: false, translates: [claimed] };
    const found = machineOf([
      buildTable("iort", { ...EMPTY_MACHINE, iommus: [smmu, other] }),
    ]).iommus;
    const gaps = [range(0, 0xff), range(0x200, 0xffff)];
    expect(found.map((one) => one.translates)).toEqual([gaps, [claimed]]);
    const virtio: VirtioPciIommu = { ...rest, kind: "virtio-pci", name: "v", rid: 8, segment: 0 };
    const [viot] = machineOf([buildTable("viot", { ...EMPTY_MACHINE, iommus: [virtio] })]).iommus;
    expect(viot!.translates).toEqual([range(0, 0xffff)]);
  });
});

it("memory at unknown addresses is refused by SRAT, which names the node", () => {
  const nodes = [node(0), node(1, { memoryBytes: 2n ** 38n })];
  expect(() => buildTable("srat", { ...EMPTY_MACHINE, nodes })).toThrow(/node 1 has memory/);
});

it("an x86 machine has no IORT", () => {
  const machine = { ...EMPTY_MACHINE, architecture: "x86_64" };
  expect(() => buildTable("iort", machine)).toThrow(/no SMMU/);
});
