/** Tables that are right in themselves and wrong for the machine, by the numbers of the reference. */
import { describe, expect, it } from "vitest";
import {
  EMPTY_MACHINE,
  type Iommu,
  type Machine,
  type MachineFunction,
} from "../topology/machine.ts";
import { range } from "./acpi/rich-machine.suite.ts";
import { checkMachine } from "./check-machine.ts";

const pci = (bus: number, devfn: number, more: Partial<MachineFunction> = {}): MachineFunction =>
  ({
    segment: 0,
    bus,
    devfn,
    portType: "endpoint",
    isMultifunction: false,
    acs: null,
    bridge: -1,
    secondaryBus: -1,
    header: "endpoint",
    vendor: 0x8086,
    device: 1,
    classCode: 0x02_00_00,
    physicalFunction: -1,
    ...more,
  }) as MachineFunction;

const iommuAt = (devfn: number) => pci(0, devfn, { vendor: 0x1af4, device: 0x1057 });
const bridgeAt = (devfn: number, secondaryBus: number, more: Partial<MachineFunction> = {}) =>
  pci(0, devfn, {
    header: "bridge",
    portType: "root-port",
    classCode: 0x06_04_00,
    secondaryBus,
    ...more,
  });

const virtio = (translates = [range(0, 0xffff)]): Machine => ({
  ...EMPTY_MACHINE,
  iommus: [
    {
      kind: "virtio-pci",
      name: "0000:00:04.0",
      node: null,
      segment: 0,
      rid: 0x20,
      includesRest: false,
      translates,
      endpoints: [],
      interruptSources: [],
    },
  ],
});
const machine = (...functions: MachineFunction[]): Machine => ({ ...EMPTY_MACHINE, functions });
const codes = (described: Machine, actual: Machine) =>
  checkMachine(described, actual).map((finding) => `${finding.severity} ${finding.code}`);

describe("tables held against a machine", () => {
  it("fit it when the IOMMU is there and all functions are described (F14)", () => {
    expect(codes(virtio(), machine(iommuAt(0x20), pci(0, 0x28)))).toEqual([]);
  });

  it("name an IOMMU that is not there: everything fails open (F10)", () => {
    expect(codes(virtio(), machine(pci(0, 0x28)))).toEqual(["error topology/iommu-missing"]);
  });

  it("F77: name a function for an AMD unit that is not there: no groups at all", () => {
    const [unit] = virtio().iommus as [Iommu];
    const amd = { ...unit, segment: 0, rid: 0x20, kind: "amd" as const, capabilityOffset: 0x40 };
    const registers = { start: 0xfed8_0000n, last: 0xfed8_3fffn };
    const described = {
      ...virtio(),
      iommus: [{ ...amd, registers, features: null, features2: null }],
    };
    const [finding] = checkMachine(described, machine(pci(0, 0x28)));
    expect(finding).toMatchObject({ code: "topology/iommu-missing" });
    expect(finding!.effect).toMatch(/error=-19/);
    expect(codes(described, machine(pci(0, 0x20), pci(0, 0x28)))).toEqual([]);
  });

  it("name a function that is no IOMMU: drivers wait, then go untranslated (F11)", () => {
    expect(codes(virtio(), machine(pci(0, 0x20), pci(0, 0x28)))[0]).toBe(
      "error topology/iommu-other",
    );
  });

  it("leave functions out, which are named and counted", () => {
    const left = Array.from({ length: 11 }, (_, index) => pci(1, index));
    const [finding] = checkMachine(virtio([range(0, 0xff)]), machine(iommuAt(0x20), ...left));
    expect(finding).toMatchObject({ code: "topology/uncovered", severity: "warning" });
    expect(finding!.message).toMatch(/^No IOMMU is described for 0000:01:00\.0, .* and 3 more$/);
  });

  it("leave out what is behind a host bridge that bypasses, and that is meant (F93)", () => {
    const bridge = {
      segment: 0,
      firstBus: 1,
      lastBus: 1,
      node: null,
      ecamBase: null,
      windows: [],
      bypassesIommu: true,
      atsSupported: null,
    };
    const actual = { ...machine(iommuAt(0x20), pci(1, 0)), hostBridges: [bridge] };
    expect(codes(virtio([range(0, 0xff)]), actual)).toEqual([]);
    expect(codes({ ...virtio([range(0, 0xff)]), nodes: [1, 2] as never }, actual)).toEqual([
      "warning topology/bridge-without-node",
    ]);
  });

  it("say nothing of functions where none are listed", () => {
    expect(codes(virtio(), machine())).toEqual([]);
  });

  it("cover a conventional device and not the id that its bridge sends with (F15)", () => {
    const bridge = bridgeAt(0x30, 2, { portType: "pcie-to-pci-bridge" });
    const actual = machine(
      iommuAt(0x20),
      bridge,
      pci(2, 8, { portType: "conventional", bridge: 1 }),
    );
    expect(codes(virtio([range(0, 0xff), range(0x208, 0x208)]), actual)).toEqual([
      "error topology/alias-uncovered",
    ]);
    expect(codes(virtio([range(0, 0xff), range(0x200, 0x200)]), actual)).toEqual([
      "error topology/alias-uncovered",
    ]);
    expect(codes(virtio([range(0, 0xff), range(0x200, 0x208)]), actual)).toEqual([]);
  });

  it("list an endpoint as a bridge, or a bridge as an endpoint: VT-d is off (F63)", () => {
    const vtd = (includesBelow: boolean, rid: number): Machine => ({
      ...EMPTY_MACHINE,
      iommus: [
        {
          kind: "vtd",
          name: "dmar0",
          node: null,
          segment: 0,
          includesRest: true,
          translates: [{ ...range(rid, rid), includesBelow }],
          endpoints: [],
          interruptSources: [],
          registers: { start: 0xfed9_0000n, last: 0xfed9_0fffn },
          version: null,
          capability: null,
          extendedCapability: null,
        },
      ],
    });
    const actual = machine(pci(0, 0x28), bridgeAt(0x30, 1));
    expect(codes(vtd(true, 0x28), actual)).toEqual(["error topology/scope-type"]);
    expect(codes(vtd(false, 0x30), actual)).toEqual(["error topology/scope-type"]);
    expect(codes(vtd(false, 0x28), actual)).toEqual([]);
    expect(codes(vtd(true, 0x30), actual)).toEqual([]);
  });
});
