/**
 * When a user's container may put a group on a domain that it has already, instead of a new one.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c:vfio_iommu_type1_attach_group; the by-node rule is that
 * of the RFC "vfio: Add attach_group_by_node to control behavior of attaching group to domain".
 */

/** What counts about a domain. */
export interface MergeKey {
  /** Which driver and which kind of table: domains of different ones never merge. */
  readonly operations: object | string;
  readonly coherencyEnforced: boolean;
  /** NUMA node of the unit it was attached to last; −1 unknown. */
  readonly node: number;
}

/**
 * Whether a group whose own domain is `fresh` may be tried on the domain `existing`.
 *
 * @param attachByNode - module parameter: 0 ignores nodes, 1 wants equal ones, any other value
 *   keeps every group apart
 */
export function mayMerge(existing: MergeKey, fresh: MergeKey, attachByNode: number): boolean {
  if (existing.operations !== fresh.operations) return false;
  if (existing.coherencyEnforced !== fresh.coherencyEnforced) return false;
  if (attachByNode === 0) return true;
  return attachByNode === 1 && existing.node === fresh.node;
}
