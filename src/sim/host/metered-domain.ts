/**
 * Calls of the IOMMU core as steps: a domain has no meter of its own, but a trace that hears of
 * each map and unmap.
 *
 * Source: include/trace/events/iommu.h: map, unmap; drivers/iommu/iommu.c: iommu_map_nosync,
 * __iommu_unmap.
 */
import type { DomainTrace } from "../../iommu/domain.ts";
import { type Meter, Step } from "../../meter.ts";

/** A trace that reports to a meter. */
export function meteredTrace(meter: Meter): DomainTrace {
  return {
    map: (_iovaPfn, _physPfn, pages) => meter.step(Step.domainMap, pages, 0),
    unmap: (_iovaPfn, pages) => meter.step(Step.domainUnmap, pages, 0),
  };
}
