/**
 * The virtio-iommu protocol: feature bits, config space, requests, statuses, PROBE properties and
 * the fault record.
 *
 * Source: virtio specification 1.3, "IOMMU device"; names follow include/uapi/linux/virtio_iommu.h
 * without their prefix. Layouts leave out the tail, which lies in the writable part.
 */
import { layout } from "../../wire/layout.ts";

/** Virtio device type of an IOMMU. */
export const VIRTIO_ID_IOMMU = 23;

/** Numbers of the queues. */
export const IommuQueue = { REQUEST: 0, EVENT: 1 } as const;

/** Feature bits by number. */
export const Feature = {
  /** `input_range` is valid. */
  INPUT_RANGE: 0,
  /** `domain_range` is valid. */
  DOMAIN_RANGE: 1,
  /** MAP and UNMAP exist. */
  MAP_UNMAP: 2,
  /** Unattached endpoints pass through when negotiated; superseded by BYPASS_CONFIG. */
  BYPASS: 3,
  /** PROBE exists. */
  PROBE: 4,
  /** The MMIO flag of MAP exists. */
  MMIO: 5,
  /** The `bypass` field and the BYPASS flag of ATTACH exist. */
  BYPASS_CONFIG: 6,
} as const;
export type FeatureName = keyof typeof Feature;

/** A set of device feature bits (0 … 23) as a number. */
export function featureSet(...names: FeatureName[]): number {
  return names.reduce((bits, name) => bits | (1 << Feature[name]), 0);
}

/** Every feature that this project knows, without the superseded BYPASS (V3). */
export const FEATURES_ALL = featureSet(
  "INPUT_RANGE",
  "DOMAIN_RANGE",
  "MAP_UNMAP",
  "PROBE",
  "MMIO",
  "BYPASS_CONFIG",
);

/** Device config space. */
export const Config = layout("virtio_iommu_config", 40, {
  pageSizeMask: { kind: "u64", at: 0, doc: "page sizes; the lowest set bit is the granule" },
  inputStart: { kind: "u64", at: 8, doc: "first IOVA that can be mapped" },
  inputLast: { kind: "u64", at: 16, doc: "last IOVA that can be mapped" },
  domainFirst: { kind: "u32", at: 24, doc: "first domain ID" },
  domainLast: { kind: "u32", at: 28, doc: "last domain ID" },
  probeSize: { kind: "u32", at: 32, doc: "bytes of the properties area of PROBE" },
  bypass: { kind: "u8", at: 36, doc: "1: unattached endpoints pass through" },
});

/** Types of request. */
export const RequestType = { ATTACH: 1, DETACH: 2, MAP: 3, UNMAP: 4, PROBE: 5 } as const;

/** First bytes of every request. */
export const RequestHead = layout("virtio_iommu_req_head", 4, {
  type: { kind: "u8", at: 0, doc: "what to do" },
});

/** First four writable bytes of a completed request, or the four after the properties of PROBE. */
export const RequestTail = layout("virtio_iommu_req_tail", 4, {
  status: { kind: "u8", at: 0, doc: "outcome" },
});

export const AttachRequest = layout("virtio_iommu_req_attach", 20, {
  type: { kind: "u8", at: 0, doc: "ATTACH" },
  domain: { kind: "u32", at: 4, doc: "domain ID; the domain is created if it does not exist" },
  endpoint: { kind: "u32", at: 8, doc: "endpoint ID" },
  flags: { kind: "u32", at: 12, doc: "bit 0: BYPASS" },
  mustBeZero: { kind: "u32", at: 16, doc: "reserved; anything but zero is INVAL" },
});

export const DetachRequest = layout("virtio_iommu_req_detach", 20, {
  type: { kind: "u8", at: 0, doc: "DETACH" },
  domain: { kind: "u32", at: 4, doc: "domain ID" },
  endpoint: { kind: "u32", at: 8, doc: "endpoint ID" },
});

export const MapRequest = layout("virtio_iommu_req_map", 36, {
  type: { kind: "u8", at: 0, doc: "MAP" },
  domain: { kind: "u32", at: 4, doc: "domain ID" },
  virtStart: { kind: "u64", at: 8, doc: "first IOVA" },
  virtEnd: { kind: "u64", at: 16, doc: "last IOVA" },
  physStart: { kind: "u64", at: 24, doc: "first guest-physical address" },
  flags: { kind: "u32", at: 32, doc: "bit 0: READ, bit 1: WRITE, bit 2: MMIO" },
});

export const UnmapRequest = layout("virtio_iommu_req_unmap", 28, {
  type: { kind: "u8", at: 0, doc: "UNMAP" },
  domain: { kind: "u32", at: 4, doc: "domain ID" },
  virtStart: { kind: "u64", at: 8, doc: "first IOVA" },
  virtEnd: { kind: "u64", at: 16, doc: "last IOVA" },
});

export const ProbeRequest = layout("virtio_iommu_req_probe", 72, {
  type: { kind: "u8", at: 0, doc: "PROBE" },
  endpoint: { kind: "u32", at: 4, doc: "endpoint ID" },
});

/** Bytes of a request's tail. */
export const TAIL_BYTES = RequestTail.bytes;

/** Flags of ATTACH. */
export const AttachFlag = { BYPASS: 1 } as const;
/** Flags of MAP. */
export const MapFlag = { READ: 1, WRITE: 2, MMIO: 4 } as const;

/** Outcome of a request. */
export const Status = {
  OK: 0,
  IOERR: 1,
  UNSUPP: 2,
  DEVERR: 3,
  INVAL: 4,
  RANGE: 5,
  NOENT: 6,
  FAULT: 7,
  NOMEM: 8,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

const statusNames = new Map<number, string>(
  Object.entries(Status).map(([name, number]) => [number, name]),
);

/** Names a status as the specification does, `"status 77"` when it has no name. */
export function statusName(status: number): string {
  return statusNames.get(status) ?? `status ${status}`;
}

/**
 * Types of PROBE property. PLACEMENT is a proposal of this project, after the thread of November
 * 2019; drivers pass over types that they do not know.
 */
export const PropertyType = { NONE: 0, RESV_MEM: 1, PLACEMENT: 8 } as const;
/** Bits of a property's type word that hold the type; the others are reserved. */
export const PROPERTY_TYPE_MASK = 0xfff;

/** First bytes of every PROBE property. */
export const PropertyHead = layout("virtio_iommu_probe_property", 4, {
  type: { kind: "u16", at: 0, doc: "bits 0 … 11: type; bits 12 … 15: reserved" },
  length: { kind: "u16", at: 2, doc: "bytes of the value, this head not included" },
});

/** Subtypes of RESV_MEM. */
export const ResvMem = { RESERVED: 0, MSI: 1 } as const;

/** RESV_MEM property: a range of IOVAs that must not be mapped. */
export const ResvMemProperty = layout("virtio_iommu_probe_resv_mem", 24, {
  type: { kind: "u16", at: 0, doc: "RESV_MEM" },
  length: { kind: "u16", at: 2, doc: "20" },
  subtype: { kind: "u8", at: 4, doc: "0: RESERVED, 1: MSI" },
  start: { kind: "u64", at: 8, doc: "first IOVA" },
  last: { kind: "u64", at: 16, doc: "last IOVA" },
});

/** PLACEMENT property (proposal): where an endpoint is, and whether ATS works on the way there. */
export const PlacementProperty = layout("virtio_iommu_probe_placement", 16, {
  type: { kind: "u16", at: 0, doc: "PLACEMENT" },
  length: { kind: "u16", at: 2, doc: "12" },
  flags: { kind: "u32", at: 4, doc: "what holds", bits: { domainValid: 0, atsPath: 1 } },
  proximityDomain: { kind: "u32", at: 8, doc: "of SRAT, or numa-node-id" },
});
/** Flags of PLACEMENT. */
export const PlacementFlag = { DOMAIN_VALID: 1, ATS_PATH: 2 } as const;

/** Why an access was refused. */
export const FaultReason = { UNKNOWN: 0, DOMAIN: 1, MAPPING: 2 } as const;
/** Flags of a fault record. */
export const FaultFlag = { READ: 1, WRITE: 2, ADDRESS: 0x100 } as const;

/** What the event queue reports. */
export const FaultRecord = layout("virtio_iommu_fault", 24, {
  reason: { kind: "u8", at: 0, doc: "0: UNKNOWN, 1: DOMAIN, 2: MAPPING" },
  flags: { kind: "u32", at: 4, doc: "bit 0: READ, bit 1: WRITE, bit 8: ADDRESS is valid" },
  endpoint: { kind: "u32", at: 8, doc: "endpoint ID" },
  address: { kind: "u64", at: 16, doc: "IOVA of the first byte that was refused" },
});
