/**
 * The built-in topology: a virtio-iommu that describes in its config space which endpoints it
 * translates. A proposal in three dialects, none of them standard.
 *
 * All of them took feature bit 6, which the standard gave to BYPASS_CONFIG, and config offset 36,
 * where the standard has `bypass`: they are read only by those who know the dialect (F29). Source:
 * RFC "virtio-iommu on non-devicetree platforms" of November 2019 (v1), the development branch and
 * cloud-hypervisor of January 2020 (v2), the series of August 2020 (v3).
 */
import type { Layout } from "../../wire/layout.ts";
import { type Fields, layout } from "../../wire/layout.ts";

/** Number of the feature bit; today's BYPASS_CONFIG. */
export const TOPOLOGY_FEATURE = 6;
/** Where the proposals put their fields. */
export const TOPOLOGY_AT = 36;
/** What the RFC's early fixup matched; a modern virtio-iommu is 1af4:1057 (F33). */
export const RFC_FIXUP_DEVICE = 0x1014;
/** Structures after which the RFC's reader stops. */
export const STRUCTURES_MAX = 65_535;

export const HeaderV1 = layout("virtio_iommu_config, RFC", 2, {
  offset: { kind: "u16", at: 0, doc: "first structure, from the start of the config space" },
});
export const HeaderV2 = layout("virtio_iommu_topo_config, array", 12, {
  offset: { kind: "u32", at: 0, doc: "first structure" },
  count: { kind: "u32", at: 4, doc: "structures" },
  stride: { kind: "u32", at: 8, doc: "bytes from one to the next" },
});
export const HeaderV3 = layout("virtio_iommu_topo_config, v3", 4, {
  count: { kind: "u16", at: 0, doc: "structures" },
  offset: { kind: "u16", at: 2, doc: "first structure, a multiple of 8" },
});

const pciV1 = layout("virtio_iommu_topo_pci_range, RFC", 16, {
  type: { kind: "u16", at: 0, doc: "0" },
  next: { kind: "u16", at: 2, doc: "next structure, from the start of the config space; 0: last" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint id of the first" },
  segment: { kind: "u16", at: 8, doc: "hierarchy: segment" },
  first: { kind: "u16", at: 10, doc: "first requester id", as: "bdf" },
  last: { kind: "u16", at: 12, doc: "last requester id", as: "bdf" },
});
const endpointV1 = layout("virtio_iommu_topo_endpoint, RFC", 16, {
  type: { kind: "u16", at: 0, doc: "1" },
  next: { kind: "u16", at: 2, doc: "next structure; 0: last" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint id" },
  address: { kind: "u64", at: 8, doc: "first MMIO address", as: "address" },
});
const pciV2 = layout("virtio_iommu_topo_pci_range, array", 12, {
  type: { kind: "u16", at: 0, doc: "1" },
  segment: { kind: "u16", at: 2, doc: "hierarchy: segment" },
  first: { kind: "u16", at: 4, doc: "first requester id", as: "bdf" },
  last: { kind: "u16", at: 6, doc: "last requester id", as: "bdf" },
  endpoint: { kind: "u32", at: 8, doc: "endpoint id of the first" },
});
const endpointV2 = layout("virtio_iommu_topo_endpoint, array", 16, {
  type: { kind: "u16", at: 0, doc: "2" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint id" },
  address: { kind: "u64", at: 8, doc: "first MMIO address", as: "address" },
});
const pciV3 = layout("virtio_iommu_topo_pci_range, v3", 16, {
  type: { kind: "u8", at: 0, doc: "1" },
  length: { kind: "u16", at: 2, doc: "bytes of this structure" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint id of the first" },
  segment: { kind: "u16", at: 8, doc: "segment" },
  first: { kind: "u16", at: 10, doc: "first requester id", as: "bdf" },
  last: { kind: "u16", at: 12, doc: "last requester id", as: "bdf" },
});
const mmioV3 = layout("virtio_iommu_topo_mmio, v3", 16, {
  type: { kind: "u8", at: 0, doc: "2" },
  length: { kind: "u16", at: 2, doc: "bytes of this structure" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint id" },
  address: { kind: "u64", at: 8, doc: "first MMIO address", as: "address" },
});

/** What differs between the dialects. */
export interface DialectFormat {
  readonly title: string;
  readonly pciType: number;
  readonly mmioType: number;
  readonly pci: Layout<Fields>;
  readonly mmio: Layout<Fields>;
  /** Where its own first structure stands. */
  readonly listAt: number;
}

const any = (one: unknown) => one as Layout<Fields>;

/** The dialects by name. */
export const dialects = {
  v1: {
    title: "linked list of the RFC, November 2019",
    pciType: 0,
    mmioType: 1,
    pci: any(pciV1),
    mmio: any(endpointV1),
    listAt: 40,
  },
  v2: {
    title: "array of equal strides, January 2020",
    pciType: 1,
    mmioType: 2,
    pci: any(pciV2),
    mmio: any(endpointV2),
    listAt: 48,
  },
  v3: {
    title: "structures that know their length, August 2020",
    pciType: 1,
    mmioType: 2,
    pci: any(pciV3),
    mmio: any(mmioV3),
    listAt: 40,
  },
} as const satisfies Record<string, DialectFormat>;
export type Dialect = keyof typeof dialects;
