/**
 * PCI functions and host bridges out of sysfs.
 *
 * Source: Linux drivers/pci/pci-sysfs.c (resource_show, numa_node_show, pci_read_config),
 * drivers/pci/iov.c (physfn, virtfn), include/linux/ioport.h (resource flags),
 * drivers/pci/probe.c: pci_scan_slot (which function counts as one of several).
 */
import type { Bar, BridgeWindow, HostBridge, MachineFunction } from "../topology/machine.ts";
import { parseBdf } from "../topology/pci-address.ts";
import { quirksOf } from "../topology/pci-quirks.ts";
import { type ConfigFacts, NO_CONFIG, readConfig } from "./config-space.ts";
import { baseName, directoryOf, follow, type HostTree } from "./tree.ts";

const DEVICES = "/sys/bus/pci/devices";
/** Functions that are looked at; segments of 65536 each would go on. */
export const FUNCTIONS_MAX = 1 << 20;

const RESOURCE_IO = 0x100n;
const RESOURCE_MEMORY = 0x200n;
const RESOURCE_PREFETCH = 0x2000n;
const RESOURCE_64BIT = 0x10_0000n;
/** How a line begins whose resource does not exist. */
const UNUSED = "0x0000000000000000 0x0000000000000000";
/** Standard BARs and the ROM, then the BARs of virtual functions. */
const RESOURCES = 13;

const NO_QUIRKS = {};

/** What the walk through sysfs found. */
export interface PciReading {
  readonly functions: MachineFunction[];
  readonly hostBridges: HostBridge[];
}

interface Found {
  readonly name: string;
  readonly segment: number;
  readonly bus: number;
  readonly devfn: number;
  /** Directory of the function, links followed. */
  readonly directory: string;
}

/** Which group and IOMMU the kernel put a device into, by its name. */
export interface Placements {
  readonly groupOf: ReadonlyMap<string, number>;
  readonly iommuOf: ReadonlyMap<string, string>;
}

/** Reads all functions. */
export function readPci(tree: HostTree, { groupOf, iommuOf }: Placements): PciReading {
  const found: Found[] = [];
  for (const name of tree.list(DEVICES) ?? []) {
    const address = parseBdf(name);
    if (address === null || found.length >= FUNCTIONS_MAX) continue;
    found.push({ ...address, name, directory: follow(tree, `${DEVICES}/${name}`) });
  }
  found.sort((a, b) => a.segment - b.segment || a.bus - b.bus || a.devfn - b.devfn);
  const indexByName = new Map(found.map(({ name }, index) => [name, index]));
  const configs = found.map(({ directory }) => configOf(tree, directory));
  const bySecondary = secondaryBuses(found, configs);
  const hasIvrs = tree.list("/sys/firmware/acpi/tables")?.includes("IVRS") === true;
  const functions = found.map((one, index): MachineFunction => {
    const facts = configs[index]!;
    const physical = tree.link(`${one.directory}/physfn`);
    const physicalFunction = physical === null ? -1 : (indexByName.get(baseName(physical)) ?? -1);
    // What a virtual function is called stands with its physical one.
    const sriov = configs[physicalFunction]?.sriov ?? null;
    let { vendor, device } = facts;
    if (vendor === 0xffff && sriov !== null) {
      vendor = configs[physicalFunction]!.vendor;
      device = sriov.vfDevice;
    } else if (vendor === 0xffff) ({ vendor, device } = identityOf(tree, one.directory, facts));
    const bridge = bridgeOf(one, found, indexByName, bySecondary);
    const isMultifunction = physicalFunction < 0 && (facts.isMultifunction || (one.devfn & 7) > 0);
    const above = configs[bridge]?.portType ?? null;
    const { portType, header } = facts;
    const { devfn } = one;
    const named = { vendor, device, portType, header, devfn, isMultifunction, above, hasIvrs };
    const quirks = quirksOf(named);
    // Field by field: to spread ten thousand objects of this size takes as long as to read them.
    return {
      segment: one.segment,
      bus: one.bus,
      devfn: one.devfn,
      portType: facts.portType,
      isMultifunction,
      acs: facts.acs,
      bridge,
      secondaryBus: facts.secondaryBus,
      ...(quirks === null ? NO_QUIRKS : { quirks }),
      vendor,
      device,
      subsystemVendor: facts.subsystemVendor,
      subsystemDevice: facts.subsystemDevice,
      revision: facts.revision,
      classCode: facts.classCode,
      header: facts.header,
      subordinateBus: facts.subordinateBus,
      windows: facts.windows,
      node: nodeOf(tree, one.directory),
      bars: barsOf(tree.text(`${one.directory}/resource`), facts.header === "bridge"),
      ats: facts.ats,
      pri: facts.pri,
      pasid: facts.pasid,
      sriov: facts.sriov,
      physicalFunction,
      configRead: facts.configRead,
      isUntrusted: false,
      driver: nameBehind(tree, `${one.directory}/driver`),
      iommu: iommuOf.get(one.name) ?? null,
      group: groupOf.get(one.name) ?? null,
    };
  });
  return { functions, hostBridges: hostBridgesOf(tree, found, functions) };
}

/** Name of what a link points to. */
export function nameBehind(tree: HostTree, path: string): string | null {
  const target = tree.link(path);
  return target === null ? null : baseName(target);
}

/** A device's NUMA node; −1 in sysfs is none. */
export function nodeOf(tree: HostTree, directory: string): number | null {
  const text = tree.text(`${directory}/numa_node`);
  return text !== null && /^\d{1,5}$/.test(text) ? Number(text) : null;
}

function configOf(tree: HostTree, directory: string): ConfigFacts {
  const file = tree.open(`${directory}/config`);
  if (file === null) return identityOf(tree, directory, NO_CONFIG);
  try {
    const facts = readConfig(file);
    return facts.configRead === "none" ? identityOf(tree, directory, facts) : facts;
  } finally {
    file.close();
  }
}

/** Identity out of single files: virtual functions do not show theirs in configuration space. */
function identityOf(tree: HostTree, directory: string, facts: ConfigFacts): ConfigFacts {
  const number = (name: string, otherwise: number) => {
    const text = tree.text(`${directory}/${name}`);
    return text !== null && /^0x[0-9a-f]{1,6}$/i.test(text) ? Number(text) : otherwise;
  };
  return {
    ...facts,
    vendor: number("vendor", facts.vendor),
    device: number("device", facts.device),
    subsystemVendor: number("subsystem_vendor", facts.subsystemVendor),
    subsystemDevice: number("subsystem_device", facts.subsystemDevice),
    revision: number("revision", facts.revision) & 0xff,
    classCode: number("class", facts.classCode),
  };
}

/** Bridges by segment and secondary bus, for trees that lost their links. */
function secondaryBuses(found: readonly Found[], configs: readonly ConfigFacts[]) {
  const bridges = new Map<string, number>();
  for (const [index, { segment, bus }] of found.entries()) {
    const { secondaryBus } = configs[index]!;
    // A bridge leads to a higher bus; anything else is not set up, or a loop.
    if (secondaryBus > bus) bridges.set(`${segment}:${secondaryBus}`, index);
  }
  return bridges;
}

function bridgeOf(
  one: Found,
  found: readonly Found[],
  indexByName: ReadonlyMap<string, number>,
  bySecondary: ReadonlyMap<string, number>,
): number {
  const parent = baseName(directoryOf(one.directory));
  const byPath = indexByName.get(parent);
  if (byPath !== undefined) {
    // A bus has a higher number than the bridge that leads to it; what has not is a loop.
    const bridge = found[byPath]!;
    return bridge.segment === one.segment && bridge.bus < one.bus ? byPath : -1;
  }
  if (parent.startsWith("pci")) return -1;
  return bySecondary.get(`${one.segment}:${one.bus}`) ?? -1;
}

/** Resources in use, out of the text of `resource`: a line each of start, last and flags. */
export function barsOf(text: string | null, isBridge: boolean): Bar[] {
  const bars: Bar[] = [];
  const lines = (text ?? "").split("\n", RESOURCES);
  for (const [index, line] of lines.entries()) {
    // Of a bridge the first two are registers, then comes the ROM, then its windows.
    if (isBridge && index > 1 && index !== 6) continue;
    if (line.startsWith(UNUSED)) continue;
    const match = /^0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16}) 0x([0-9a-f]{1,16})$/.exec(line);
    if (match === null) continue;
    const [start, last, flags] = match.slice(1).map((digits) => BigInt(`0x${digits}`));
    if (last! <= start! || (flags! & (RESOURCE_IO | RESOURCE_MEMORY)) === 0n) continue;
    const isIo = (flags! & RESOURCE_IO) !== 0n;
    const wide = (flags! & RESOURCE_64BIT) === 0n ? "memory32" : "memory64";
    bars.push({
      index,
      kind: isIo ? "io" : wide,
      prefetchable: (flags! & RESOURCE_PREFETCH) !== 0n,
      start: start!,
      bytes: last! - start! + 1n,
    });
  }
  return bars;
}

/** A host bridge for each root bus: the directories `pciSSSS:BB`. */
function hostBridgesOf(
  tree: HostTree,
  found: readonly Found[],
  functions: readonly MachineFunction[],
): HostBridge[] {
  const roots = new Map<string, { segment: number; firstBus: number }>();
  for (const [index, { segment, bus, directory }] of found.entries()) {
    if (functions[index]!.bridge >= 0 || functions[index]!.physicalFunction >= 0) continue;
    const match = /\/pci([0-9a-f]{4,8}):([0-9a-f]{2})\//.exec(`${directory}/`);
    const firstBus = match === null ? bus : Number.parseInt(match[2]!, 16);
    roots.set(`${segment}:${firstBus}`, { segment, firstBus });
  }
  const sorted = [...roots.values()].sort(
    (a, b) => a.segment - b.segment || a.firstBus - b.firstBus,
  );
  const windows = rootWindows(tree);
  let at = 0;
  return sorted.map(({ segment, firstBus }, index): HostBridge => {
    const next = sorted[index + 1];
    const limit = next?.segment === segment ? next.firstBus - 1 : 255;
    let lastBus = firstBus;
    let node: number | null = null;
    // Both lists are sorted, so that one pass serves all.
    for (; at < functions.length; at += 1) {
      const one = functions[at]!;
      if (one.segment > segment || (one.segment === segment && one.bus > limit)) break;
      if (one.segment < segment || one.bus < firstBus) continue;
      lastBus = Math.max(lastBus, one.bus, Math.min(one.subordinateBus, limit));
      if (one.bus === firstBus && one.bridge < 0) node ??= one.node;
    }
    return {
      segment,
      firstBus,
      lastBus,
      node,
      ecamBase: null,
      windows: windows.get(`${segment}:${firstBus}`) ?? [],
      bypassesIommu: false,
      atsSupported: null,
    };
  });
}

/** Lines of `/proc/iomem` about host bridges; ordinary users see zeros, which say nothing. */
export function cleanIomem(text: string): string {
  return text
    .split("\n")
    .filter((line) => /^[0-9a-f]+-[0-9a-f]+ : PCI Bus [0-9a-f]{4,8}:[0-9a-f]{2}$/.test(line))
    .join("\n");
}

function rootWindows(tree: HostTree): Map<string, BridgeWindow[]> {
  const windows = new Map<string, BridgeWindow[]>();
  const text = tree.text("/proc/iomem", cleanIomem) ?? "";
  for (const line of text.split("\n")) {
    const match = /^([0-9a-f]+)-([0-9a-f]+) : PCI Bus ([0-9a-f]+):([0-9a-f]+)$/.exec(line);
    if (match === null) continue;
    const [start, last] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    if (last <= start) continue;
    const key = `${Number.parseInt(match[3]!, 16)}:${Number.parseInt(match[4]!, 16)}`;
    const list = windows.get(key) ?? [];
    list.push({ kind: "memory", start, last });
    windows.set(key, list);
  }
  return windows;
}
