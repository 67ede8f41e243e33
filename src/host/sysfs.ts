/**
 * Reads a host into the machine model: sysfs, a little of /proc, and the firmware's tables.
 *
 * What sysfs says of a running system stands above what firmware meant; firmware adds what sysfs
 * does not show (proximity domains, ranges of ids, regions of memory).
 */
import { pciName } from "../iommu/pci-function.ts";
import { EMPTY_MACHINE, type Machine, type PlatformDevice } from "../topology/machine.ts";
import { hasDevicetree } from "./devicetree.ts";
import { type HostReading, withFirmware } from "./firmware.ts";
import { readKernel } from "./kernel-facts.ts";
import { readGroups } from "./sysfs-groups.ts";
import { readIommus } from "./sysfs-iommus.ts";
import { readNodes } from "./sysfs-nodes.ts";
import { nameBehind, nodeOf, readPci } from "./sysfs-pci.ts";
import { follow, type HostTree } from "./tree.ts";

/** Platform devices that are looked at; others are in no group. */
const PLATFORM_MAX = 65_536;

/** Reads a host. Whatever is missing stays empty: the reader of a damaged tree gets what is left. */
export function readHost(tree: HostTree): HostReading {
  const { kernel, architecture } = readKernel(tree);
  const nodes = readNodes(tree);
  const { iommus, devices } = readIommus(tree);
  const groups = readGroups(tree);
  const groupOf = new Map(groups.flatMap(({ id, devices }) => devices.map((name) => [name, id])));
  const iommuOf = new Map<string, string>();
  for (const [iommu, names] of devices) for (const name of names) iommuOf.set(name, iommu);
  const { functions, hostBridges } = readPci(tree, { groupOf, iommuOf });
  const known = new Set(functions.map(pciName));
  const others = [...new Set([...groupOf.keys(), ...iommuOf.keys()])]
    .filter((name) => !known.has(name))
    .sort()
    .slice(0, PLATFORM_MAX)
    .map((name) => platformDevice(tree, name, groupOf.get(name), iommuOf.get(name)));
  const hasTables = tree.list("/sys/firmware/acpi/tables") !== null;
  const hasTree = !hasTables && hasDevicetree(tree);
  const recorded: Machine = {
    ...EMPTY_MACHINE,
    architecture,
    firmware: hasTables ? "acpi" : hasTree ? "devicetree" : "none",
    nodes,
    hostBridges,
    functions,
    platformDevices: others,
    iommus,
    groups,
    kernel,
  };
  return withFirmware(recorded, tree);
}

function platformDevice(
  tree: HostTree,
  name: string,
  group: number | undefined,
  iommu: string | undefined,
): PlatformDevice {
  const directory = follow(tree, `/sys/bus/platform/devices/${name}`);
  const base = /^([0-9a-f]{3,16})\./.exec(name)?.[1];
  return {
    name,
    path: tree.text(`${directory}/firmware_node/path`),
    identity: /^([A-Z]{3,4}[0-9A-F]{4}):/.exec(name)?.[1] ?? null,
    registers:
      base === undefined ? [] : [{ start: BigInt(`0x${base}`), last: BigInt(`0x${base}`) }],
    interrupts: [],
    node: nodeOf(tree, directory),
    driver: nameBehind(tree, `${directory}/driver`),
    iommu: iommu ?? null,
    group: group ?? null,
  };
}
