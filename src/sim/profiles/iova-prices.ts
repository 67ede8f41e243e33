/**
 * What IOVAs cost the DMA API: out of a CPU's magazine, and out of the tree that all CPUs share.
 *
 * No measurement of these was published; sources name the code, or say that it is a guess.
 */
import { OWN_CPU, type Price } from "../price-list.ts";

/** The lock that the tree is under (iova_rbtree_lock). */
const TREE_LOCK = "IOVA tree lock";

/** An IOVA of up to 32 pages, from a magazine or to it. */
export const IOVA_CACHE_NS = 30;
/** An IOVA of more: the tree, and each gap looked at. */
export const IOVA_TREE_NS = 100;
const IOVA_GAP_NS = 20;

function price(step: Price["step"], on: string, source: string, eachNs: number, unitNs = 0): Price {
  return { step, eachNs, unitNs, remoteUnitNs: 0, on, source, fittedOn: null };
}

/** The prices. */
export const iovaPrices: readonly Price[] = [
  price(
    "iovaCacheHit",
    OWN_CPU,
    "drivers/iommu/iova.c: a magazine under its CPU's lock, some tens of instructions",
    IOVA_CACHE_NS,
  ),
  price("iovaCacheFree", OWN_CPU, "as iovaCacheHit", IOVA_CACHE_NS),
  price(
    "iovaTreeSearch",
    TREE_LOCK,
    "a guess: a lock, and a cache miss for some of the nodes looked at",
    IOVA_TREE_NS,
    IOVA_GAP_NS,
  ),
  price("iovaTreeFree", TREE_LOCK, "a guess: as iovaTreeSearch", IOVA_TREE_NS),
];
