/** What holds in a topology file where it says nothing. */
import type { PciPortType } from "../iommu/pci-function.ts";
import type { Machine } from "../topology/machine.ts";

/** Name and version of the form. */
export const TOPOLOGY_SCHEMA = "iommukit/topology@1";

/** What a function is where the file does not say. */
export function defaultPort(isBridge: boolean, hasBridgeAbove: boolean): PciPortType {
  if (isBridge) return hasBridgeAbove ? "downstream" : "root-port";
  return hasBridgeAbove ? "endpoint" : "rc-endpoint";
}

/** A device is on the node of its bus (`_PXM` of the host bridge). */
export function inheritedNode(
  { at }: { readonly at: { readonly segment: number; readonly bus: number } },
  { hostBridges }: Pick<Machine, "hostBridges">,
): number | null {
  const above = hostBridges.find(
    ({ segment, firstBus, lastBus }) =>
      segment === at.segment && firstBus <= at.bus && at.bus <= lastBus,
  );
  return above?.node ?? null;
}
