/**
 * The properties that a machine is read from. A host's capture holds these and no others: the rest
 * has serial numbers, network addresses and the command line in it.
 */
import type { DtNode } from "./tree.ts";

/** Names of all properties that the reader of a tree looks at. */
export const topologyProperties: ReadonlySet<string> = new Set([
  "#address-cells",
  "#interrupt-cells",
  "#iommu-cells",
  "#size-cells",
  "ats-supported",
  "bus-range",
  "compatible",
  "device_type",
  "distance-matrix",
  "dma-coherent",
  "hotpluggable",
  "interrupt-parent",
  "interrupts",
  "iommu-map",
  "iommu-map-mask",
  "iommus",
  "linux,pci-domain",
  "linux,phandle",
  "numa-node-id",
  "phandle",
  "ranges",
  "reg",
  "status",
]);

/** A tree with nothing but these. */
export function topologyPart(node: DtNode): DtNode {
  return {
    ...node,
    properties: node.properties.filter(({ name }) => topologyProperties.has(name)),
    children: node.children.map(topologyPart),
  };
}
