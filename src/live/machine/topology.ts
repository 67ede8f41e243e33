/**
 * A served machine as the machine model has it, and the VIOT that tells its guest: one range for
 * each function behind the virtio-iommu, with its requester id as endpoint id.
 *
 * Never a range over functions that QEMU emulates itself: their drivers would be given IOVAs that
 * QEMU takes for guest-physical addresses.
 */
import { defaultIds } from "../../firmware/acpi/table-writer.ts";
import { buildViot } from "../../firmware/acpi/viot-build.ts";
import type { PciPortType } from "../../iommu/pci-function.ts";
import {
  EMPTY_MACHINE,
  type Machine,
  type MachineFunction,
  type VirtioPciIommu,
} from "../../topology/machine.ts";
import { type LiveDisk, type LiveMachine, ridOf, type Slot } from "./live-machine.ts";

/** Vendor, device and class of what is served. */
const identities = {
  iommu: { vendor: 0x1af4, device: 0x1057, classCode: 0x088000 },
  "virtio-blk": { vendor: 0x1af4, device: 0x1042, classCode: 0x010000 },
  nvme: { vendor: 0x1234, device: 0x4e56, classCode: 0x010802 },
  port: { vendor: 0x1b36, device: 0x000c, classCode: 0x060400 },
} as const;

type Identity = (typeof identities)[keyof typeof identities];

/** The machine that the guest sees, as far as it is ours. */
export function topologyOf(machine: LiveMachine): Machine {
  const { ports, iommu, disks } = machine;
  const functions: MachineFunction[] = [];
  const lastBus = ports.length;
  const place = (slot: Slot) => {
    const rid = ridOf(machine, slot);
    return { bus: rid >> 8, devfn: rid & 0xff };
  };
  for (const { name, device } of ports) {
    const bus = ridOf(machine, { device: 0, port: name }) >> 8;
    functions.push({
      ...functionOf(identities.port, { bus: 0, devfn: device << 3 }, "root-port"),
      header: "bridge",
      secondaryBus: bus,
      subordinateBus: bus,
    });
  }
  if (iommu !== null) {
    functions.push(functionOf(identities.iommu, place(iommu.slot), "conventional"));
  }
  for (const { kind, slot } of disks) {
    const at = place(slot);
    const bridge = functions.findIndex(({ secondaryBus }) => secondaryBus === at.bus);
    const express = slot.port === null ? "rc-endpoint" : "endpoint";
    const type = kind === "nvme" ? express : "conventional";
    functions.push({ ...functionOf(identities[kind], at, type), bridge });
  }
  return {
    ...EMPTY_MACHINE,
    architecture: "x86_64",
    firmware: "acpi",
    hostBridges: [
      {
        segment: 0,
        firstBus: 0,
        lastBus,
        node: null,
        ecamBase: null,
        windows: [],
        bypassesIommu: false,
        atsSupported: null,
      },
    ],
    functions,
    iommus: iommu === null ? [] : [iommuOf(machine, iommu.slot)],
  };
}

/** The VIOT of a served machine, or null when it has no virtio-iommu. */
export function viotOf(machine: LiveMachine): Uint8Array | null {
  return machine.iommu === null ? null : buildViot(topologyOf(machine), defaultIds);
}

/** Endpoint id of a disk: its requester id. */
export function endpointOf(machine: LiveMachine, disk: LiveDisk): number {
  return ridOf(machine, disk.slot);
}

function iommuOf(machine: LiveMachine, slot: Slot): VirtioPciIommu {
  const translates = machine.disks
    .filter(({ isTranslated }) => isTranslated)
    .map((disk) => endpointOf(machine, disk))
    .sort((a, b) => a - b)
    .map((rid) => {
      return { segment: 0, firstRid: rid, lastRid: rid, firstId: rid, includesBelow: false };
    });
  const rid = ridOf(machine, slot);
  return {
    kind: "virtio-pci",
    name: `0000:00:${slot.device.toString(16).padStart(2, "0")}.0`,
    node: null,
    includesRest: false,
    translates,
    endpoints: [],
    interruptSources: [],
    segment: 0,
    rid,
  };
}

function functionOf(
  { vendor, device, classCode }: Identity,
  { bus, devfn }: { readonly bus: number; readonly devfn: number },
  portType: PciPortType,
): MachineFunction {
  return {
    segment: 0,
    bus,
    devfn,
    portType,
    isMultifunction: false,
    acs: null,
    bridge: -1,
    secondaryBus: -1,
    vendor,
    device,
    subsystemVendor: 0,
    subsystemDevice: 0,
    revision: 0,
    classCode,
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
    configRead: "conventional",
    isUntrusted: false,
    driver: null,
    iommu: null,
    group: null,
  };
}
