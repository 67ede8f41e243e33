/**
 * The devices of a result as a tree: node, root bus, bridges, functions. Virtual functions that are
 * alike stand in one line.
 */
import type { InspectedDevice, InspectResult } from "../host/inspect-result.ts";
import { countText } from "./column.ts";

/** One line of the tree. */
export interface TreeLine {
  readonly depth: number;
  /** Of a function. */
  readonly bdf: string | null;
  readonly name: string;
  /** Group of a device; several as `20-83`. */
  readonly group: string;
  readonly what: string;
  /** What stands behind the description: driver, capabilities. */
  readonly facts: string;
  /** A node or a bus, which is no device. */
  readonly isPlace: boolean;
}

/** Virtual functions of one physical function that get a line each. */
const VIRTUAL_MAX = 4;
/** Bridges below each other; the rest is drawn flat. */
const DEPTH_MAX = 64;

/** Makes the lines. */
export function deviceTree(result: InspectResult): TreeLine[] {
  const below = new Map<string, InspectedDevice[]>();
  const roots: InspectedDevice[] = [];
  const known = new Set(result.devices.map(({ name }) => name));
  for (const device of result.devices) {
    const { parent } = device;
    if (parent === null || !known.has(parent)) roots.push(device);
    else if (below.has(parent)) below.get(parent)!.push(device);
    else below.set(parent, [device]);
  }
  const units = new Set(result.iommus.map(({ bdf }) => bdf));
  const lines: TreeLine[] = [];
  const places = new Map<string, InspectedDevice[]>();
  for (const device of roots) {
    const key = placeOf(device);
    const list = places.get(key);
    if (list === undefined) places.set(key, [device]);
    else list.push(device);
  }
  const named = result.nodes.length > 1;
  const sorted = [...places.values()].sort((a, b) => (a[0]!.node ?? -1) - (b[0]!.node ?? -1));
  let node: number | null | undefined;
  for (const devices of sorted) {
    const first = devices[0]!;
    if (named && first.node !== node) {
      node = first.node;
      lines.push(place(0, node === null ? "no node" : `node ${node}`));
    }
    lines.push(place(named ? 1 : 0, first.bdf === null ? "platform" : `bus ${busOf(first)}`));
    addDevices(lines, devices, named ? 2 : 1, below);
  }
  for (const [at, line] of lines.entries()) {
    if (line.bdf !== null && units.has(line.bdf))
      lines[at] = { ...line, what: `IOMMU: ${line.what}` };
  }
  return lines;
}

function placeOf(device: InspectedDevice): string {
  return `${device.node} ${device.bdf === null ? "platform" : busOf(device)}`;
}

function busOf({ bdf }: InspectedDevice): string {
  return bdf!.slice(0, bdf!.lastIndexOf(":"));
}

function place(depth: number, name: string): TreeLine {
  return { depth, bdf: null, name, group: "", what: "", facts: "", isPlace: true };
}

function addDevices(
  lines: TreeLine[],
  devices: readonly InspectedDevice[],
  depth: number,
  below: ReadonlyMap<string, InspectedDevice[]>,
): void {
  const isFolded = foldable(devices);
  for (const device of devices) {
    const { physicalFunction } = device;
    if (physicalFunction !== null && isFolded.has(physicalFunction)) continue;
    lines.push(lineOf(device, depth));
    if (isFolded.has(device.name)) {
      lines.push(...foldedLines(devices, device.name, depth + 1));
    }
    const children = below.get(device.name);
    if (children !== undefined) addDevices(lines, children, Math.min(depth + 1, DEPTH_MAX), below);
  }
}

/** Physical functions whose virtual ones are too many for a line each. */
function foldable(devices: readonly InspectedDevice[]): Set<string> {
  const here = new Set(devices.map(({ name }) => name));
  const counts = new Map<string, number>();
  for (const { physicalFunction: name } of devices) {
    if (name !== null && here.has(name)) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  return new Set([...counts].filter(([, count]) => count > VIRTUAL_MAX).map(([name]) => name));
}

function foldedLines(
  devices: readonly InspectedDevice[],
  physical: string,
  depth: number,
): TreeLine[] {
  const byDriver = new Map<string | null, InspectedDevice[]>();
  for (const device of devices) {
    if (device.physicalFunction !== physical) continue;
    const list = byDriver.get(device.driver);
    if (list === undefined) byDriver.set(device.driver, [device]);
    else list.push(device);
  }
  return [...byDriver.values()].map((list) => {
    const groups = list.map(({ group }) => group).filter((group) => group !== null);
    const first = list[0]!;
    return {
      ...lineOf(first, depth),
      name: `${shortName(first)} …`,
      group: groups.length === 0 ? "-" : spanText(groups),
      what: `${countText(list.length)} virtual functions: ${first.description ?? first.className}`,
    };
  });
}

/** A span, or how many there are where they are not in a row. */
function spanText(groups: readonly number[]): string {
  const low = groups.reduce((least, group) => Math.min(least, group));
  const high = groups.reduce((most, group) => Math.max(most, group));
  if (low === high) return `${low}`;
  return high - low + 1 === groups.length ? `${low}-${high}` : `${low}…${high}`;
}

function shortName(device: InspectedDevice): string {
  return device.bdf === null ? device.name : device.bdf.slice(device.bdf.indexOf(":") + 1);
}

function lineOf(device: InspectedDevice, depth: number): TreeLine {
  const what =
    device.description === null
      ? `${device.className}${device.vendor === null ? "" : ` [${device.vendor}:${device.device}]`}`
      : `${device.className}: ${device.description}`;
  return {
    depth,
    bdf: device.bdf,
    name: shortName(device),
    group: device.group === null ? "-" : `${device.group}`,
    what,
    facts: factsOf(device),
    isPlace: false,
  };
}

function factsOf(device: InspectedDevice): string {
  const facts: string[] = [];
  if (device.driver !== null) facts.push(device.driver);
  const isPort = device.portType === "root-port" || device.portType === "downstream";
  if (isPort && device.acs === "missing") facts.push("no ACS");
  for (const name of ["ats", "pri", "pasid"] as const) {
    if (device[name] === "enabled") facts.push(name.toUpperCase());
    else if (device[name] === "off") facts.push(`${name.toUpperCase()} off`);
  }
  if (device.virtualFunctions > 0) facts.push(`${countText(device.virtualFunctions)} VFs`);
  return facts.length === 0 ? "" : `(${facts.join(", ")})`;
}
