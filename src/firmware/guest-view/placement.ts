/**
 * On which node a guest allocates for an endpoint: its coherent DMA memory and the page tables of
 * its domain. Source: Linux 7.2 drivers/iommu/dma-iommu.c: iommu_dma_alloc; see also
 * `topology/page-tables.ts`.
 */
import type { Iommu } from "../../topology/machine.ts";
import { type TablesHome, tablesHome } from "../../topology/page-tables.ts";

/** Where memory comes from. */
export interface Placement {
  /** Node that `dev_to_node` gives; null: that of the CPU which allocates. */
  readonly dmaNode: number | null;
  /** Of the domain of its group. */
  readonly tables: TablesHome;
}

/**
 * Places memory.
 *
 * @param node - of the device
 * @param firstNode - of the first device of its group, which the domain is allocated for
 * @param iommu - null: nothing translates it
 */
export function placementOf(
  node: number | null,
  firstNode: number | null,
  iommu: Iommu | null,
): Placement {
  // Direct DMA has no tables, as identity has none.
  const tables: TablesHome =
    iommu === null
      ? { kind: "none", because: "identity" }
      : tablesHome(iommu, { node: firstNode, iommu: iommu.name }, "DMA");
  return { dmaNode: node, tables };
}
