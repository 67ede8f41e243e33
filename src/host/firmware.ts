/**
 * Adds to a host what its ACPI tables or its devicetree say: proximity domains and memory, ranges of
 * ids, regions.
 *
 * What the kernel shows in sysfs stands: a unit is known by the kernel's name, and one that no
 * driver has taken is a finding and no part of the machine.
 */

import { StackError } from "../errors.ts";
import { type DecodedTable, decodeTable, TABLE_BYTES_MAX } from "../firmware/acpi/decode.ts";
import { readTables } from "../firmware/acpi/machine-parts.ts";
import { readDevicetree } from "../firmware/devicetree/reader.ts";
import type { TableFinding } from "../firmware/table-finding.ts";
import type { HostBridge, Iommu, Machine, NumaNode, PlatformDevice } from "../topology/machine.ts";
import { hex } from "../units.ts";
import { BLOB, hostDevicetree, segmentsOfBridges } from "./devicetree.ts";
import { type Finding, finding } from "./findings.ts";
import type { HostTree } from "./tree.ts";

const TABLES = "/sys/firmware/acpi/tables";
/** Tables that say something of topology; the others are never opened. */
const SIGNATURES = ["SRAT", "SLIT", "MCFG", "DMAR", "IVRS", "IORT", "VIOT"];

/** A host, and what its firmware's tables gave cause to remark. */
export interface HostReading {
  readonly machine: Machine;
  readonly findings: readonly Finding[];
}

/** Reads the firmware's description of a host and merges it into what sysfs gave. */
export function withFirmware(machine: Machine, tree: HostTree): HostReading {
  return machine.firmware === "devicetree" ? withTree(machine, tree) : withTables(machine, tree);
}

function withTree(machine: Machine, tree: HostTree): HostReading {
  try {
    const root = hostDevicetree(tree);
    if (root === null) return { machine, findings: [] };
    const reading = readDevicetree(root, segmentsOfBridges(tree, machine));
    const findings = reading.findings
      .filter(({ severity }) => severity !== "note")
      .map(({ message, effect, code }) =>
        finding("firmware-table", {
          message: `devicetree: ${message}`,
          evidence: effect === undefined ? [code] : [code, effect],
          next: `sudo iommukit tables check ${BLOB}`,
        }),
      );
    findings.push(...unused(machine, reading.machine));
    return { machine: merge(machine, reading.machine), findings };
  } catch (error) {
    if (!(error instanceof StackError)) throw error;
    const message = `devicetree: ${error.message}`;
    return { machine, findings: [finding("firmware-table", { message })] };
  }
}

function withTables(machine: Machine, tree: HostTree): HostReading {
  const tables: DecodedTable[] = [];
  const findings: Finding[] = [];
  for (const signature of SIGNATURES) {
    // The first of several has a number where others of its kind came with it.
    const bytes = bytesOf(tree, signature) ?? bytesOf(tree, `${signature}1`);
    if (bytes === null) continue;
    try {
      tables.push(decodeTable(bytes));
    } catch (error) {
      if (!(error instanceof StackError)) throw error;
      findings.push(finding("firmware-table", { message: `${signature}: ${error.message}` }));
    }
  }
  if (tables.length === 0) return { machine, findings };
  const reading = readTables(tables, machine.functions);
  for (const one of reading.findings.flat()) {
    if (one.severity !== "note") findings.push(tableFinding(one));
  }
  const merged = merge(machine, reading.machine);
  findings.push(...unused(machine, reading.machine));
  return { machine: merged, findings };
}

function bytesOf(tree: HostTree, name: string): Uint8Array | null {
  return tree.bytes(`${TABLES}/${name}`, TABLE_BYTES_MAX + 1);
}

function tableFinding({ table, at, message, effect, code }: TableFinding): Finding {
  return finding("firmware-table", {
    message: `${table} at ${hex(at)}: ${message}`,
    evidence: effect === undefined ? [code] : [code, effect],
    next: `iommukit tables check ${TABLES}/${table}`,
  });
}

function merge(host: Machine, parts: Machine): Machine {
  return {
    ...host,
    nodes: host.nodes.length === 0 ? parts.nodes : host.nodes.map((one) => nodeWith(one, parts)),
    hostBridges: host.hostBridges.map((one) => bridgeWith(one, parts)),
    iommus: host.iommus.map((one) => unitWith(one, parts)),
    platformDevices: platformWith(host.platformDevices, parts.platformDevices),
    firmwareRegions: parts.firmwareRegions,
    atsScopes: parts.atsScopes,
  };
}

/** Devices with what only firmware says: where their registers are, and what they are. */
function platformWith(
  devices: readonly PlatformDevice[],
  described: readonly PlatformDevice[],
): readonly PlatformDevice[] {
  const byName = new Map(described.map((one) => [one.name, one]));
  return devices.map((device) => {
    const found = byName.get(device.name);
    if (found === undefined) return device;
    const { path, identity, registers, interrupts } = found;
    return { ...device, path, identity, registers, interrupts, node: device.node ?? found.node };
  });
}

function nodeWith(node: NumaNode, { nodes }: Machine): NumaNode {
  const found = nodes.find(({ id }) => id === node.id);
  if (found === undefined) return node;
  // Firmware also lists CPUs that are not there; then there is no telling which are which.
  const ids = found.firmwareCpuIds ?? found.cpus;
  const isAligned = ids.length === node.cpus.length;
  const isSame = ids.every((id, index) => id === node.cpus[index]);
  return {
    ...node,
    proximityDomain: found.proximityDomain,
    memory: found.memory,
    firmwareCpuIds: isAligned && !isSame ? ids : null,
  };
}

function bridgeWith(bridge: HostBridge, { hostBridges }: Machine): HostBridge {
  const found = hostBridges.find(
    ({ segment, firstBus, lastBus }) =>
      segment === bridge.segment && firstBus <= bridge.firstBus && bridge.firstBus <= lastBus,
  );
  if (found === undefined) return bridge;
  const { ecamBase, atsSupported } = found;
  const windows = bridge.windows.length === 0 ? found.windows : bridge.windows;
  return { ...bridge, ecamBase, atsSupported, windows };
}

/** A unit as the tables describe it, under the kernel's name, with what only the kernel knows. */
function unitWith(unit: Iommu, { iommus }: Machine): Iommu {
  const found = iommus.find((one) => isSameUnit(unit, one));
  if (found === undefined) return unit;
  const own = { name: unit.name, node: unit.node ?? found.node };
  if (unit.kind === "vtd" && found.kind === "vtd") {
    const { version, capability, extendedCapability } = unit;
    return { ...found, ...own, version, capability, extendedCapability };
  }
  if (unit.kind === "amd" && found.kind === "amd") {
    const features = unit.features ?? found.features;
    return { ...found, ...own, features, features2: unit.features2 ?? found.features2 };
  }
  return { ...found, ...own };
}

/** Whether the kernel's unit is the one of the tables. */
function isSameUnit(unit: Iommu, described: Iommu): boolean {
  if (unit.kind !== described.kind) return false;
  if (unit.kind === "other") return unit.name === described.name;
  if ("rid" in unit && "rid" in described) {
    return unit.segment === described.segment && unit.rid === described.rid;
  }
  if (!("registers" in unit) || !("registers" in described)) return false;
  // A device under its ACPI name does not show where its registers are; there is one at most.
  if (unit.kind === "virtio-mmio" && unit.registers.start === 0n) return true;
  return unit.registers.start === described.registers.start;
}

function unused(host: Machine, parts: Machine): Finding[] {
  const idle = parts.iommus.filter((one) => !host.iommus.some((unit) => isSameUnit(unit, one)));
  return idle.map((one) =>
    finding("iommu-off", {
      message: `firmware describes ${one.name} (${one.kind}), which the kernel does not use`,
      evidence: [
        "registers" in one ? `registers at ${hex(one.registers.start)}` : "a PCI function",
        `command line: ${host.kernel?.commandLine ?? "not known"}`,
      ],
      next: "dmesg | grep -i -e iommu -e DMAR -e AMD-Vi",
    }),
  );
}
