/**
 * The mapping policies that a replay compares, named as in the discussion of the single flush queue
 * for virtio-iommu: "sq" and "mq" are one flush queue or one per CPU, "+map" is iotlb_sync_map.
 *
 * - Strict waits for the invalidation in every unmap; lazy leaves it to a flush queue.
 * - Without "+map" the virtio-iommu driver waits for each MAP request by itself; with it, MAP
 *   requests are queued and one sync per map call waits for all of them.
 *
 * Source: linux-iommu list, "[RFC] iommu/virtio: Use single flush queue" (July 2023) and its
 * measurements; drivers/iommu/dma-iommu.c for strict, lazy and the queues.
 */

/** How unmaps are completed: not at all (no translation), at once, or by a flush queue. */
export type PolicyMode = "passthrough" | "strict" | "lazy";

/** One policy. */
export interface Policy {
  readonly name: string;
  readonly mode: PolicyMode;
  /** Which flush queue a lazy policy uses. */
  readonly queue: "none" | "single" | "per-cpu";
  /** Whether a map call waits once, at its end (iotlb_sync_map). */
  readonly syncMap: boolean;
}

function policy(name: string, mode: PolicyMode, queue: Policy["queue"], syncMap: boolean): Policy {
  return { name, mode, queue, syncMap };
}

/** Every policy, in the order in which results show them. */
export const policies: readonly Policy[] = [
  policy("passthrough", "passthrough", "none", false),
  policy("strict", "strict", "none", false),
  policy("strict+map", "strict", "none", true),
  policy("lazy-sq", "lazy", "single", false),
  policy("lazy-mq", "lazy", "per-cpu", false),
  policy("lazy-sq+map", "lazy", "single", true),
  policy("lazy-mq+map", "lazy", "per-cpu", true),
];

/** The names of all policies. */
export const policyNames: readonly string[] = policies.map(({ name }) => name);

/** The policy of that name, or `undefined`. */
export function policyNamed(name: string): Policy | undefined {
  return policies.find((candidate) => candidate.name === name);
}
