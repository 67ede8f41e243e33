/** What a drawing of a machine consists of: nodes, the page tables in them, units and their buses. */
import type { InspectResult } from "../host/inspect-result.ts";
import { numberListText } from "../topology/number-list.ts";
import { sizeText } from "../units.ts";
import { type CardBus, cardBuses } from "./inspect-cards.ts";

export const REMOTE = { fill: "#ffe3e3", stroke: "#e03131", text: "#a51111" };
const LOCAL = { fill: "#e6f6ea", stroke: "#69b77e", text: "#216e39" };
const UNKNOWN = { fill: "#f1f3f5", stroke: "#adb5bd", text: "#495057" };

/** A chip in a node's memory: page tables of some groups. */
export interface Chip {
  readonly text: string;
  readonly look: typeof LOCAL;
  readonly walker: string | null;
  readonly isRemote: boolean;
}

/** Buses behind one IOMMU in one node. */
export interface Unit {
  readonly iommu: string | null;
  readonly buses: readonly CardBus[];
}

/** A node, or what has none. */
export interface Place {
  readonly node: number | null;
  readonly title: string;
  readonly subtitle: string;
  readonly chips: readonly Chip[];
  readonly units: readonly Unit[];
}

/** Nodes with what is in them; devices of no node come first. */
export function placesOf(result: InspectResult): Place[] {
  const buses = cardBuses(result);
  const places: Place[] = [];
  const nowhere = buses.filter(({ node }) => !result.nodes.some(({ id }) => id === node));
  if (nowhere.length > 0) {
    const hasNodes = result.nodes.length > 0;
    const chips = chipsOf(result, null);
    const title = hasNodes ? "No NUMA node" : "Devices";
    places.push({ node: null, title, subtitle: "", chips, units: unitsOf(nowhere) });
  }
  for (const node of result.nodes) {
    const cpus = node.cpus === "" ? "no CPU" : `CPUs ${node.cpus}`;
    places.push({
      node: node.id,
      title: `NUMA node ${node.id}`,
      subtitle: `${sizeText(node.memoryBytes)}, ${cpus}`,
      chips: chipsOf(result, node.id),
      units: unitsOf(buses.filter((bus) => bus.node === node.id)),
    });
  }
  return places;
}

function unitsOf(buses: readonly CardBus[]): Unit[] {
  const units = new Map<string | null, CardBus[]>();
  for (const bus of buses) {
    const list = units.get(bus.iommu);
    if (list === undefined) units.set(bus.iommu, [bus]);
    else list.push(bus);
  }
  return [...units].map(([iommu, list]) => ({ iommu, buses: list }));
}

/** Page tables that live on a node; `null` asks for those that live on no fixed one. */
function chipsOf(result: InspectResult, node: number | null): Chip[] {
  const home = node === null ? "mapping-cpu" : "node";
  const alike = new Map<string, { chip: Omit<Chip, "text">; ids: number[]; behind: string }>();
  for (const { id, pageTables: tables } of result.groups) {
    if (tables.home !== home || tables.node !== node) continue;
    const isRemote = tables.isRemote === true;
    const behind =
      node === null
        ? "wherever the mapping CPU is"
        : tables.isRemote === null
          ? `walked by ${tables.walker}`
          : isRemote
            ? `walked by ${tables.walker} FROM NODE ${tables.walkerNode}`
            : `walked locally by ${tables.walker}`;
    const look = tables.isRemote === null ? UNKNOWN : isRemote ? REMOTE : LOCAL;
    const entry = alike.get(behind);
    if (entry !== undefined) entry.ids.push(id);
    else alike.set(behind, { chip: { look, walker: tables.walker, isRemote }, ids: [id], behind });
  }
  return [...alike.values()].map(({ chip, ids, behind }) => {
    const list = numberListText(ids.sort((a, b) => a - b));
    const short =
      list.length > 16 ? `${ids.length} groups` : `group${ids.length > 1 ? "s" : ""} ${list}`;
    return { ...chip, text: `page tables of ${short}, ${behind}` };
  });
}
