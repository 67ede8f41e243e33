/**
 * Reads the XML that `lstopo --of xml` writes: nodes, distances, host bridges, bridges, functions.
 *
 * It says nothing of IOMMUs, groups or isolation. Source: hwloc 2.x documentation, "Importing and
 * exporting topologies from/to XML files"; hwloc/topology-xml.c (attribute names; PCI type is
 * `class [vendor:device] [subvendor:subdevice] revision`).
 */
import { SaxesParser } from "saxes";
import { StackError } from "../errors.ts";
import {
  EMPTY_MACHINE,
  type HostBridge,
  type Machine,
  type MachineFunction,
  type NumaNode,
} from "../topology/machine.ts";
import { parseBdf } from "../topology/pci-address.ts";
import { NO_CONFIG } from "./config-space.ts";

const OBJECTS_MAX = 1 << 20;
const DEPTH_MAX = 256;

/** An open `<object>`. */
interface Open {
  readonly type: string;
  /** Position in the functions where it is one, −1 otherwise. */
  readonly index: number;
  /** Nodes that it is local to, by os_index; null where it does not say. */
  readonly nodes: readonly number[] | null;
}

/** What is gathered while the file is read. */
class Reading {
  readonly open: Open[] = [];
  readonly nodes: NumaNode[] = [];
  readonly functions: MachineFunction[] = [];
  readonly hostBridges: HostBridge[] = [];
  architecture: string | null = null;
  release: string | null = null;
  objects = 0;
  /** Values of the element `distances2` that is open. */
  distances: { indexes: number[]; values: number[] } | null = null;
  text = "";
}

/**
 * Reads an export.
 *
 * @param file - how messages name it
 * @throws StackError `host/lstopo-damaged` with its position
 */
export function machineFromLstopo(text: string, file: string): Machine {
  const reading = new Reading();
  const parser = new SaxesParser({ position: true });
  parser.on("error", (error) => {
    throw damaged(file, parser.line, parser.column, error.message.replace(/^\d+:\d+: /, ""));
  });
  parser.on("opentag", ({ name, attributes }) => {
    reading.text = "";
    if (reading.open.length > DEPTH_MAX || reading.objects > OBJECTS_MAX) {
      throw damaged(file, parser.line, parser.column, "it holds too many objects");
    }
    openTag(reading, name, attributes as Readonly<Record<string, string>>);
  });
  parser.on("text", (piece) => {
    reading.text += piece;
  });
  parser.on("closetag", ({ name }) => closeTag(reading, name));
  parser.write(text).close();
  if (reading.objects === 0) throw damaged(file, 1, 1, "no object stands in it");
  return machineOf(reading);
}

function damaged(file: string, line: number, column: number, what: string): StackError {
  return new StackError({
    code: "host/lstopo-damaged",
    kind: "input",
    message: `this is no topology as lstopo exports it: ${what}`,
    at: { file, line, column },
    hint: "`lstopo --of xml FILE.xml` writes one",
  });
}

type Attributes = Readonly<Record<string, string | undefined>>;

function openTag(reading: Reading, name: string, attributes: Attributes): void {
  if (name === "info") info(reading, attributes);
  if (name === "distances2" && attributes.type === "NUMANode") {
    reading.distances = { indexes: [], values: [] };
  }
  if (name !== "object") return;
  reading.objects += 1;
  const type = attributes.type ?? "";
  const parent = reading.open.at(-1);
  const nodes = nodesOf(attributes.nodeset) ?? parent?.nodes ?? null;
  let index = -1;
  if (type === "NUMANode") addNode(reading, attributes);
  if (type === "PCIDev" || (type === "Bridge" && attributes.pci_busid !== undefined)) {
    index = addFunction(reading, attributes, nodes);
  } else if (type === "Bridge") addHostBridge(reading, attributes, nodes);
  reading.open.push({ type, index, nodes });
}

function info(reading: Reading, { name, value }: Attributes): void {
  if (name === "Architecture") reading.architecture = value ?? null;
  if (name === "OSRelease") reading.release = value ?? null;
}

function closeTag(reading: Reading, name: string): void {
  if (name === "object") reading.open.pop();
  const { distances } = reading;
  if (distances !== null && (name === "indexes" || name === "u64values")) {
    const numbers = reading.text.trim().split(/\s+/).slice(0, OBJECTS_MAX).map(Number);
    distances[name === "indexes" ? "indexes" : "values"].push(...numbers);
  }
  if (name === "distances2") {
    if (distances !== null) applyDistances(reading, distances.indexes, distances.values);
    reading.distances = null;
  }
}

/** Node numbers of a set as `0x00000003` or `0xf...f,0x0,0x1`: words of 32 bits, highest first. */
function nodesOf(text: string | undefined): number[] | null {
  if (text === undefined || !/^0x[0-9a-f]+(,0x[0-9a-f]+)*$/i.test(text)) return null;
  const words = text.split(",", 64).reverse();
  const nodes: number[] = [];
  for (const [at, word] of words.entries()) {
    const bits = Number.parseInt(word, 16);
    for (let bit = 0; bit < 32; bit += 1) {
      if (Math.floor(bits / 2 ** bit) % 2 === 1) nodes.push(at * 32 + bit);
    }
  }
  return nodes;
}

function addNode(reading: Reading, attributes: Attributes): void {
  const id = Number(attributes.os_index);
  if (!Number.isInteger(id) || id < 0 || id > 65_535) return;
  const bytes = /^\d{1,18}$/.test(attributes.local_memory ?? "") ? attributes.local_memory! : "0";
  reading.nodes.push({
    id,
    proximityDomain: null,
    memory: [],
    memoryBytes: BigInt(bytes),
    cpus: nodesOf(attributes.cpuset) ?? [],
    firmwareCpuIds: null,
    distances: [],
  });
}

function onlyNode(nodes: readonly number[] | null): number | null {
  return nodes?.length === 1 ? nodes[0]! : null;
}

function addHostBridge(
  reading: Reading,
  attributes: Attributes,
  nodes: readonly number[] | null,
): void {
  const buses = /^([0-9a-f]{4,8}):\[([0-9a-f]{2})-([0-9a-f]{2})\]$/i.exec(
    attributes.bridge_pci ?? "",
  );
  if (buses === null) return;
  const [segment, firstBus, lastBus] = buses.slice(1).map((part) => Number.parseInt(part, 16));
  reading.hostBridges.push({
    segment: segment!,
    firstBus: firstBus!,
    lastBus: lastBus!,
    node: onlyNode(nodes),
    ecamBase: null,
    windows: [],
    bypassesIommu: false,
    atsSupported: null,
  });
}

function addFunction(
  reading: Reading,
  attributes: Attributes,
  nodes: readonly number[] | null,
): number {
  const address = parseBdf(attributes.pci_busid ?? "");
  if (address === null) return -1;
  const ids =
    /^([0-9a-f]{4}) \[([0-9a-f]{4}):([0-9a-f]{4})\](?: \[([0-9a-f]{4}):([0-9a-f]{4})\])?(?: ([0-9a-f]{2}))?/i.exec(
      attributes.pci_type ?? "",
    );
  const number = (at: number) => Number.parseInt(ids?.[at] ?? "0", 16);
  const isBridge = attributes.type === "Bridge";
  const below = /\[([0-9a-f]{2})-([0-9a-f]{2})\]/i.exec(attributes.bridge_pci ?? "");
  const above = reading.open.findLast(({ index }) => index >= 0)?.index ?? -1;
  const parent = reading.functions[above];
  const isBelow =
    parent !== undefined && parent.segment === address.segment && parent.bus < address.bus;
  reading.functions.push({
    ...NO_CONFIG,
    ...address,
    vendor: ids === null ? 0xffff : number(2),
    device: ids === null ? 0xffff : number(3),
    subsystemVendor: number(4),
    subsystemDevice: number(5),
    revision: number(6),
    classCode: number(1) * 256,
    header: isBridge ? "bridge" : "endpoint",
    secondaryBus: below === null ? -1 : Number.parseInt(below[1]!, 16),
    subordinateBus: below === null ? -1 : Number.parseInt(below[2]!, 16),
    isMultifunction: (address.devfn & 7) > 0,
    bridge: isBelow ? above : -1,
    node: onlyNode(nodes),
    bars: [],
    physicalFunction: -1,
    isUntrusted: false,
    driver: null,
    iommu: null,
    group: null,
  });
  return reading.functions.length - 1;
}

/** The matrix is row-major, over the nodes whose os_index stands in `indexes`. */
function applyDistances(reading: Reading, indexes: number[], values: number[]): void {
  const { nodes } = reading;
  if (indexes.length !== nodes.length || values.length !== nodes.length ** 2) return;
  const at = (id: number) => indexes.indexOf(id);
  for (const [index, node] of nodes.entries()) {
    const row = nodes.map(({ id }) => values[at(node.id) * nodes.length + at(id)] ?? Number.NaN);
    if (row.every((value) => value > 0 && value < 256)) nodes[index] = { ...node, distances: row };
  }
}

function machineOf(reading: Reading): Machine {
  const nodes = [...reading.nodes].sort((a, b) => a.id - b.id);
  const order = new Map(nodes.map(({ id }, index) => [id, index]));
  const isOrdered = reading.nodes.every(({ id }, index) => order.get(id) === index);
  const count = nodes.length;
  const placed = nodes.map((node, index): NumaNode => {
    const assumed = nodes.map((_, to) => (to === index ? 10 : 20));
    const isUsable = isOrdered && node.distances.length === count;
    return isUsable ? node : { ...node, distances: assumed };
  });
  return {
    ...EMPTY_MACHINE,
    architecture: reading.architecture,
    nodes: placed,
    hostBridges: reading.hostBridges,
    functions: reading.functions,
    kernel:
      reading.release === null
        ? null
        : { release: reading.release, commandLine: null, isStrict: null, isPassthrough: null },
  };
}
