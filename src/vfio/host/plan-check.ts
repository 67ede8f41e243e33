/** What a host's plan must be before it is built: everything that is wrong has a place and a hint. */
import { StackError } from "../../errors.ts";
import { formatByName } from "../../iommu/formats/catalog.ts";
import type { HostPlan, UnitPlan } from "./host-plan.ts";

const MIB = 2 ** 20;
/** Nodes' memory lies this far apart. */
const NODE_BYTES_MAX = 2 ** 36;
const NODES_MAX = 256;
const BARS_MAX = 6;

/** @throws StackError `vfio/bad-plan`, `vfio/no-such-unit` */
export function checkPlan(plan: HostPlan): void {
  const { nodes, units, devices, distances } = plan;
  if (nodes.length < 1 || nodes.length > NODES_MAX) {
    throw bad("nodes", `a host has 1 to ${NODES_MAX} nodes`);
  }
  for (const [index, { memory }] of nodes.entries()) {
    const isWhole = Number.isInteger(memory / MIB) && memory > 0 && memory <= NODE_BYTES_MAX;
    if (!isWhole) throw bad(`nodes[${index}].memory`, "give whole MiB, 64 GiB at most");
  }
  const isSquare = distances?.every((row) => row.length === nodes.length) ?? true;
  if (!isSquare || (distances?.length ?? nodes.length) !== nodes.length) {
    throw bad("distances", "give a row and a column for each node");
  }
  const names = new Set<string>();
  for (const unit of units) {
    if (names.has(unit.name)) throw bad(`unit ${unit.name}`, "give each unit a name of its own");
    names.add(unit.name);
    checkNode(unit.node, nodes.length, `unit ${unit.name}`);
    checkFormats(unit);
  }
  const segments = new Map<string, string>();
  for (const { address, unit, node = -1, bars = [] } of devices) {
    const segment = address.slice(0, 4);
    if (unit !== null && (segments.get(unit) ?? segment) !== segment) {
      throw bad(`device ${address}`, `unit ${unit} serves one segment, which has requester ids`);
    }
    if (unit !== null) segments.set(unit, segment);
    if (unit !== null && !names.has(unit)) throw noUnit(address, unit);
    checkNode(node, nodes.length, `device ${address}`);
    if (bars.length > BARS_MAX)
      throw bad(`device ${address}`, "a PCI function has six BARs at most");
  }
}

function checkNode(node: number, nodes: number, where: string): void {
  if (Number.isInteger(node) && node >= -1 && node < nodes) return;
  throw bad(`${where}: node ${node}`, `nodes are 0 to ${nodes - 1}, and -1 for an unknown one`);
}

function checkFormats({ name, format, formats = [] }: UnitPlan): void {
  for (const each of format === undefined ? formats : [format, ...formats]) {
    if (formatByName(each) !== null) continue;
    throw bad(
      `unit ${name}: format ${each}`,
      "such as vtd-second-stage-4, amd-v1, arm-stage1-4k-48",
    );
  }
}

function bad(where: string, hint: string): StackError {
  const message = `The plan of the host does not hold together: ${where}`;
  return new StackError({ code: "vfio/bad-plan", kind: "input", message, hint });
}

function noUnit(address: string, unit: string): StackError {
  return new StackError({
    code: "vfio/no-such-unit",
    kind: "input",
    message: `Device ${address} is behind ${unit}, which is not one of the host's units`,
    hint: "name one of the plan's units, or null for a device that no IOMMU serves",
  });
}
