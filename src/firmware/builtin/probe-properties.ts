/**
 * PROBE properties of an endpoint as bytes: the reserved regions of the standard, and what the
 * thread of November 2019 proposes beside them, the endpoint's proximity domain and whether the
 * whole path to it does ATS.
 *
 * No layout of the latter was ever posted; this one is a proposal of ours: type 8 lies outside of
 * those in use and those of page table drafts (1 … 7). Linux passes over types that it does not
 * know and logs one line for each.
 */

import {
  PlacementFlag,
  PlacementProperty,
  PROPERTY_TYPE_MASK,
  PropertyHead,
  PropertyType,
  ResvMem,
  ResvMemProperty,
} from "../../virtio/iommu/protocol.ts";

/** What a device says of an endpoint. */
export interface EndpointProperties {
  readonly regions: readonly {
    readonly start: bigint;
    readonly last: bigint;
    readonly kind: "reserved" | "msi";
  }[];
  /** Null: nothing is said. */
  readonly proximityDomain: number | null;
  /** Whether ATS works on the whole path. */
  readonly hasAtsPath: boolean;
}

/** Writes properties; the area ends with zeros. */
export function writeProperties(said: EndpointProperties): Uint8Array {
  const { regions, proximityDomain, hasAtsPath } = said;
  const parts = regions.map(({ start, last, kind }) =>
    ResvMemProperty.bytesOf({
      type: PropertyType.RESV_MEM,
      length: ResvMemProperty.bytes - PropertyHead.bytes,
      subtype: kind === "msi" ? ResvMem.MSI : ResvMem.RESERVED,
      start,
      last,
    }),
  );
  if (proximityDomain !== null || hasAtsPath) {
    parts.push(
      PlacementProperty.bytesOf({
        type: PropertyType.PLACEMENT,
        length: PlacementProperty.bytes - PropertyHead.bytes,
        flags:
          (proximityDomain === null ? 0 : PlacementFlag.DOMAIN_VALID) |
          (hasAtsPath ? PlacementFlag.ATS_PATH : 0),
        proximityDomain: proximityDomain ?? 0,
      }),
    );
  }
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}

/** Reads properties; what is unknown, short or past the end is left out. */
export function readProperties(area: Uint8Array): EndpointProperties {
  const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
  const regions: { start: bigint; last: bigint; kind: "reserved" | "msi" }[] = [];
  let proximityDomain: number | null = null;
  let hasAtsPath = false;
  for (let at = 0; at + PropertyHead.bytes <= area.length; ) {
    const type = PropertyHead.get.type(view, at) & PROPERTY_TYPE_MASK;
    if (type === PropertyType.NONE) break;
    const bytes = PropertyHead.get.length(view, at) + PropertyHead.bytes;
    if (at + bytes > area.length) break;
    if (type === PropertyType.RESV_MEM && bytes >= ResvMemProperty.bytes) {
      const { start, last, subtype } = ResvMemProperty.decode(view, at);
      regions.push({ start, last, kind: subtype === ResvMem.MSI ? "msi" : "reserved" });
    } else if (type === PropertyType.PLACEMENT && bytes >= PlacementProperty.bytes) {
      const { flags, proximityDomain: domain } = PlacementProperty.decode(view, at);
      if ((flags & PlacementFlag.DOMAIN_VALID) !== 0) proximityDomain = domain;
      hasAtsPath = (flags & PlacementFlag.ATS_PATH) !== 0;
    }
    at += bytes;
  }
  return { regions, proximityDomain, hasAtsPath };
}
