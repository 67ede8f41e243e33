/**
 * NUMA nodes of a devicetree. Its id of a node is Linux's number of it, unlike ACPI's (F87).
 *
 * Source: binding numa; Linux 7.2 drivers/of/of_numa.c: of_numa_parse_cpu_nodes,
 * of_numa_parse_memory_nodes, of_numa_parse_distance_map_v1, of_node_to_nid.
 */
import type { MemoryRange, NumaNode } from "../../topology/machine.ts";
import type { Findings } from "../table-finding.ts";
import { registersOf } from "./addresses.ts";
import { bytesOf, cellOf, cellsOf, type DtPlace, propertyOf, stringsOf } from "./tree.ts";

/** Linux's largest MAX_NUMNODES. */
const NODES_MAX = 1024;
const LOCAL = 10;
const REMOTE = 20;

/** The node of a place: its own or the nearest above; null where none is named. */
export function nodeIdOf(place: DtPlace): number | null {
  for (let at: DtPlace | null = place; at !== null; at = at.parent) {
    const id = cellOf(at.node, "numa-node-id");
    if (id !== null) return id < NODES_MAX ? id : null;
  }
  return null;
}

interface OpenNode {
  readonly memory: MemoryRange[];
  readonly cpus: number[];
  readonly firmwareCpuIds: number[];
}

/** Reads all nodes; a tree that names none has none. */
export function readNodes(places: readonly DtPlace[], findings: Findings): NumaNode[] {
  const open = new Map<number, OpenNode>();
  const at = (id: number): OpenNode => {
    const node = open.get(id) ?? { memory: [], cpus: [], firmwareCpuIds: [] };
    open.set(id, node);
    return node;
  };
  let cpu = 0;
  for (const place of places) {
    const type = stringsOf(place.node, "device_type")[0];
    if (type !== "cpu" && type !== "memory") continue;
    const id = ownNode(place, findings);
    if (type === "cpu") {
      const number = cpu++;
      if (id === null) continue;
      at(id).cpus.push(number);
      at(id).firmwareCpuIds.push(
        cellsOf(bytesOf(place.node, "reg") ?? new Uint8Array()).at(-1) ?? 0,
      );
    } else if (id !== null) at(id).memory.push(...memoryOf(place));
  }
  const ids = [...open.keys()].sort((a, b) => a - b);
  const distances = readDistances(places, findings);
  return ids.map((id): NumaNode => {
    const { memory, cpus, firmwareCpuIds } = open.get(id)!;
    return {
      id,
      proximityDomain: id,
      memory,
      memoryBytes: memory.reduce((sum, { start, last }) => sum + last - start + 1n, 0n),
      cpus,
      firmwareCpuIds: firmwareCpuIds.every((one, index) => one === cpus[index])
        ? null
        : firmwareCpuIds,
      distances: ids.map(
        (to) => distances?.get(id * NODES_MAX + to) ?? (to === id ? LOCAL : REMOTE),
      ),
    };
  });
}

function memoryOf(place: DtPlace): MemoryRange[] {
  const isHotPluggable = bytesOf(place.node, "hotpluggable") !== null;
  return registersOf(place)
    .filter((range) => range !== null)
    .map((range) => ({ ...range, hotPluggable: isHotPluggable, nonVolatile: false }));
}

function ownNode({ node }: DtPlace, findings: Findings): number | null {
  const id = cellOf(node, "numa-node-id");
  if (id === null || id < NODES_MAX) return id;
  findings.add({
    code: "devicetree/node-id",
    severity: "error",
    at: propertyOf(node, "numa-node-id")!.at,
    message: `Node ${id} is beyond the ${NODES_MAX} nodes of Linux`,
    effect: "Linux warns and ignores it",
    source: "drivers/of/of_numa.c: of_numa_parse_cpu_nodes",
  });
  return null;
}

/** Distances by `from * NODES_MAX + to`; null when there is no map, or Linux refuses it. */
function readDistances(places: readonly DtPlace[], findings: Findings): Map<number, number> | null {
  const map = places.find(({ node }) =>
    stringsOf(node, "compatible").includes("numa-distance-map-v1"),
  );
  if (map === undefined) return null;
  const matrix = propertyOf(map.node, "distance-matrix");
  const reject = (message: string) => {
    findings.add({
      code: "devicetree/distance",
      severity: "error",
      at: matrix?.at ?? map.node.at,
      message,
      effect: "Linux does not use the distance map",
      source: "drivers/of/of_numa.c: of_numa_parse_distance_map_v1",
    });
    return null;
  };
  if (matrix === null) return reject("The distance map has no distance-matrix");
  const words = cellsOf(matrix.value);
  if (words.length === 0 || words.length % 3 !== 0) {
    return reject(`A distance matrix has triples, this one has ${words.length} cells`);
  }
  const distances = new Map<number, number>();
  for (let at = 0; at < words.length; at += 3) {
    const [from, to, distance] = words.slice(at, at + 3) as [number, number, number];
    if (from === to ? distance !== LOCAL : distance <= LOCAL) {
      return reject(`The distance from node ${from} to node ${to} is ${distance}`);
    }
    distances.set(from * NODES_MAX + to, distance);
    // One direction stands for both, until the other comes.
    if (to > from) distances.set(to * NODES_MAX + from, distance);
  }
  return distances;
}
