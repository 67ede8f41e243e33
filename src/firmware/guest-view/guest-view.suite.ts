/** Machines for tests of the guest view, and descriptions through their real bytes. */
import {
  EMPTY_MACHINE,
  type Machine,
  type MachineFunction,
  type PlatformDevice,
  type RidRange,
  type VirtioMmioIommu,
  type VirtioPciIommu,
} from "../../topology/machine.ts";
import { type AcpiKind, buildTable } from "../acpi/build.ts";
import { decodeTable } from "../acpi/decode.ts";
import { readTables } from "../acpi/machine-parts.ts";
import { buildBuiltin } from "../builtin/build.ts";
import { accessTo, readBuiltin } from "../builtin/reader.ts";
import { buildCommandLine, commandLineMachine } from "../command-line/kinds.ts";
import { readCommandLine } from "../command-line/parameter.ts";
import { decodeBlob } from "../devicetree/blob.ts";
import { flatten } from "../devicetree/blob-write.ts";
import { buildDevicetree } from "../devicetree/build.ts";
import { bridgeOf } from "../devicetree/devicetree.suite.ts";
import { readDevicetree } from "../devicetree/reader.ts";
import type { DescriptionName, GuestDescription } from "./platform.ts";

/** A PCI function with nothing special. */
export function functionAt(rid: number, parts: Partial<MachineFunction> = {}): MachineFunction {
  return {
    segment: 0,
    bus: rid >> 8,
    devfn: rid & 0xff,
    portType: "rc-endpoint",
    isMultifunction: false,
    acs: null,
    bridge: -1,
    secondaryBus: -1,
    vendor: 0x8086,
    device: 1,
    subsystemVendor: 0,
    subsystemDevice: 0,
    revision: 0,
    classCode: 0x010802,
    header: "endpoint",
    subordinateBus: -1,
    windows: [],
    node: null,
    bars: [],
    ats: null,
    pri: null,
    pasid: null,
    sriov: null,
    physicalFunction: -1,
    configRead: "extended",
    isUntrusted: false,
    driver: "nvme",
    iommu: null,
    group: null,
    ...parts,
  };
}

/** A virtio-mmio device. */
export function deviceAt(base: bigint, name: string): PlatformDevice {
  return {
    name,
    path: null,
    identity: "LNRO0005",
    registers: [{ start: base, last: base + 0x1ffn }],
    interrupts: [11],
    node: null,
    driver: "virtio-mmio",
    iommu: null,
    group: null,
  };
}

export const range = (firstRid: number, lastRid: number, firstId = firstRid): RidRange => ({
  segment: 0,
  firstRid,
  lastRid,
  firstId,
  includesBelow: false,
});

const parts = { node: null, includesRest: false, endpoints: [], interruptSources: [] };

/** A virtio-iommu at 0000:00:04.0. */
export function pciIommu(translates: readonly RidRange[]): VirtioPciIommu {
  return { ...parts, kind: "virtio-pci", name: "0000:00:04.0", segment: 0, rid: 0x20, translates };
}

/** A virtio-iommu at 0xfeb02e00. */
export const mmioIommu: VirtioMmioIommu = {
  ...parts,
  kind: "virtio-mmio",
  name: "viommu",
  registers: { start: 0xfeb0_2e00n, last: 0xfeb0_2fffn },
  interrupts: [12],
  translates: [],
  endpoints: [{ base: 0xfeb0_2c00n, id: 0x42, path: null }],
};

/** Two endpoints and a virtio-iommu on a root bus of node 1; all but 00:06.0 are covered. */
export const pciMachine: Machine = {
  ...EMPTY_MACHINE,
  hostBridges: [bridgeOf({ node: 1 })],
  functions: [0x20, 0x28, 0x30].map((rid) => functionAt(rid)),
  iommus: [pciIommu([range(0, 0x2f)])],
};

/** An endpoint and a virtio-iommu, both virtio-mmio. */
export const mmioMachine: Machine = {
  ...EMPTY_MACHINE,
  platformDevices: [deviceAt(0xfeb0_2e00n, "iommu-device"), deviceAt(0xfeb0_2c00n, "disk")],
  iommus: [mmioIommu],
};

/** Describes a machine and reads the bytes of it back. */
export function described(kind: DescriptionName, machine: Machine): GuestDescription {
  switch (kind) {
    case "devicetree": {
      const blob = decodeBlob(flatten(buildDevicetree(machine)));
      return { kind, machine: readDevicetree(blob.root).machine };
    }
    case "builtin": {
      const bytes = buildBuiltin(machine, "v1");
      return { kind, machine: readBuiltin(accessTo(bytes), "v1", "rfc").machine };
    }
    case "cmdline":
      return { kind, machine: commandLineMachine(readCommandLine(buildCommandLine(machine))) };
    case "viot-draft":
      // The IORT in it says the same of PCI as a VIOT does.
      return { ...described("viot", machine), kind };
    default: {
      const table = decodeTable(buildTable(kind as AcpiKind, machine));
      return { kind, machine: readTables([table], machine.functions).machine };
    }
  }
}
