/**
 * What makes the kinds of IOMMU differ for their drivers: tables, reserved regions, invalidation.
 *
 * Source: drivers/iommu/intel/iommu.c: intel_iommu_domain_alloc_second_stage,
 * intel_iommu_get_resv_regions; drivers/iommu/amd/iommu.c: amd_iommu_domain_alloc_paging_v1;
 * drivers/iommu/io-pgtable-arm.c:__arm_lpae_alloc_pages (the node of the SMMU, not of the device).
 */
import type { SelectiveInvalidation } from "../../iommu/invalidation.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import {
  amdRegions,
  type ReservedRegion,
  smmuRegions,
  vtdRegions,
} from "../../iommu/reserved-regions.ts";
import type { DevicePlan, UnitKind } from "./host-plan.ts";

/** What is particular about a kind. */
export interface UnitKindTraits {
  /** Name of the driver. */
  readonly driver: string;
  /** Format of tables where nothing else is asked for. */
  readonly format: string;
  /** Name of the driver's operations for domains of a format. */
  operationsOf(format: string): string;
  /** Whether a device is blocked before a new domain is looked at. */
  readonly blocksFirst: boolean;
  /** Whose node tables come from: that of the device a domain is made for, or of its unit. */
  readonly tableNode: "device" | "unit";
  /** Whether the driver of Linux 6.6 kept a node in each domain, which the by-node RFC uses. */
  readonly keepsNode: boolean;
  readonly selective: SelectiveInvalidation;
  regionsOf(device: DevicePlan): ReservedRegion[];
}

/** The kinds by name. */
export const unitKinds: Readonly<Record<UnitKind, UnitKindTraits>> = {
  vtd: {
    driver: "intel",
    format: "vtd-second-stage-4",
    operationsOf: (format) => (format.includes("first") ? "first-stage" : "second-stage"),
    blocksFirst: true,
    tableNode: "device",
    keepsNode: true,
    selective: { kind: "mask", maskMax: 18 },
    regionsOf: ({ classCode = 0, directRanges = [] }) => vtdRegions(classCode, directRanges),
  },
  amd: {
    driver: "amd",
    format: "amd-v1",
    operationsOf: (format) => (format.startsWith("amd-v1") ? "v1" : "v2"),
    blocksFirst: false,
    tableNode: "device",
    keepsNode: false,
    selective: { kind: "mask", maskMax: 51 },
    regionsOf: ({ directRanges = [] }) =>
      amdRegions(directRanges.map((range) => ({ ...range, prot: PROT_RW, excluded: false }))),
  },
  smmu: {
    driver: "arm-smmu-v3",
    format: "arm-stage1-4k-48",
    operationsOf: () => "paging",
    blocksFirst: false,
    tableNode: "unit",
    keepsNode: false,
    selective: { kind: "range" },
    regionsOf: () => smmuRegions(),
  },
};
