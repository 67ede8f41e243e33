/**
 * What a driver learns from PROBE about an endpoint: its reserved regions. The device may be
 * hostile: the list ends with the area, and nothing beyond it is read.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2: viommu_probe_endpoint, viommu_add_resv_mem,
 * viommu_get_resv_regions; rules V96 to V104 of the reference "virtio-iommu".
 */
import { Errno } from "../../errno.ts";
import type { Placement } from "./device-config.ts";
import type { DriverSettings } from "./driver-settings.ts";
import {
  PlacementFlag,
  PlacementProperty,
  PROPERTY_TYPE_MASK,
  PropertyHead,
  PropertyType,
  ResvMem,
  ResvMemProperty,
} from "./protocol.ts";

/** Where Linux puts a software-managed MSI window when the device names none. */
export const SW_MSI = { start: 0x800_0000n, last: 0x80f_ffffn } as const;

/** A range of IOVAs that a domain of the endpoint must not map, inclusive, in bytes. */
export interface ReservedRegion {
  readonly start: bigint;
  readonly last: bigint;
  readonly kind: "reserved" | "msi" | "sw-msi";
}

/** What a PROBE said. */
export interface ProbeResult {
  readonly errno: Errno;
  /** By start. */
  readonly regions: readonly ReservedRegion[];
  /** Where the endpoint is; null when the device does not say, or the driver does not ask. */
  readonly placement: Placement | null;
  /** Properties of an unknown type, which are passed over. */
  readonly unknownCount: number;
}

const TWO_64 = 1n << 64n;

/**
 * Reads a properties area.
 *
 * Each bad RESV_MEM sets the errno and each good one clears it again, as in Linux: the last counts.
 */
export function parseProperties(area: Uint8Array, settings: DriverSettings): ProbeResult {
  const view = new DataView(area.buffer, area.byteOffset, area.byteLength);
  const regions: ReservedRegion[] = [];
  let errno: Errno = Errno.OK;
  let placement: Placement | null = null;
  let unknownCount = 0;
  for (let at = 0; at + PropertyHead.bytes <= area.length; ) {
    const word = PropertyHead.get.type(view, at);
    const type = word & PROPERTY_TYPE_MASK;
    if (type === PropertyType.NONE) break;
    const bytes = PropertyHead.get.length(view, at) + PropertyHead.bytes;
    const isIgnored = settings.corrections.propertyBits && word !== type;
    if (!isIgnored && type === PropertyType.RESV_MEM) {
      errno = addRegion(view, at, bytes, regions, settings.regionsMax);
    } else if (!isIgnored && type === PropertyType.PLACEMENT && settings.readsPlacement) {
      placement = placementAt(view, at, bytes) ?? placement;
    } else unknownCount += 1;
    at += bytes;
  }
  return { errno, regions, placement, unknownCount };
}

/** A property that is short or runs past the area says nothing. */
function placementAt(view: DataView, at: number, bytes: number): Placement | null {
  if (bytes < PlacementProperty.bytes || at + bytes > view.byteLength) return null;
  const { flags, proximityDomain } = PlacementProperty.decode(view, at);
  return {
    proximityDomain: (flags & PlacementFlag.DOMAIN_VALID) === 0 ? null : proximityDomain,
    hasAtsPath: (flags & PlacementFlag.ATS_PATH) !== 0,
  };
}

function addRegion(
  view: DataView,
  at: number,
  bytes: number,
  regions: ReservedRegion[],
  regionsMax: number,
): Errno {
  if (at + ResvMemProperty.bytes > view.byteLength) return Errno.EINVAL;
  // Linux looks at start and end before it looks at the length (V97).
  const start = ResvMemProperty.get.start(view, at);
  const last = ResvMemProperty.get.last(view, at);
  if (last < start || last - start + 1n === TWO_64) return Errno.EOVERFLOW;
  if (bytes < ResvMemProperty.bytes) return Errno.EINVAL;
  if (at + bytes > view.byteLength) return Errno.EINVAL;
  if (regions.length >= regionsMax) return Errno.ENOMEM;
  const kind = ResvMemProperty.get.subtype(view, at) === ResvMem.MSI ? "msi" : "reserved";
  const next = regions.findIndex((region) => region.start > start);
  regions.splice(next < 0 ? regions.length : next, 0, { start, last, kind });
  return Errno.OK;
}

/** The regions the core is told of: a software MSI window is added where the device has no MSI. */
export function regionsForCore(regions: readonly ReservedRegion[]): readonly ReservedRegion[] {
  if (regions.some((region) => region.kind === "msi")) return regions;
  return [...regions, { ...SW_MSI, kind: "sw-msi" }];
}
