/**
 * What a type1 container says about itself: CHECK_EXTENSION, and GET_INFO's capability chain.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_check_extension,
 * vfio_iommu_type1_get_info, vfio_iommu_migration_build_caps, vfio_iommu_dma_avail_build_caps,
 * vfio_iommu_iova_build_caps.
 */
import { viewOf } from "../../wire/layout.ts";
import type { Capability } from "../uapi/capability-chain.ts";
import {
  CapabilityId,
  DmaAvailCapability,
  IovaRangeCapability,
  IovaRangeEntry,
  MigrationCapability,
} from "../uapi/type1.ts";
import { DIRTY_BYTES_MAX } from "./dirty.ts";
import type { Type1 } from "./type1.ts";

/** Extensions that type1 answers for. */
export const Type1Extension = {
  TYPE1: 1,
  TYPE1_V2: 3,
  DMA_CC: 4,
  UNMAP_ALL: 9,
  UPDATE_VADDR: 10,
  /** Of the proposal of 2024 for MMIO without pinning. */
  MMIO_DONT_PIN: 11,
} as const;

/**
 * CHECK_EXTENSION.
 *
 * @param type1 - null before SET_IOMMU
 * @param hasMmioDontPin - whether the kernel has the proposal of 2024, where `type1` cannot tell
 * @returns a positive number when the extension is there, else 0
 */
export function checkExtension(
  type1: Type1 | null,
  extension: number,
  hasMmioDontPin = type1?.hasMmioDontPin ?? false,
): number {
  switch (extension) {
    case Type1Extension.TYPE1:
    case Type1Extension.TYPE1_V2:
    case Type1Extension.UNMAP_ALL:
      return 1;
    case Type1Extension.UPDATE_VADDR:
      return type1 !== null && type1.emulatedGroups.length === 0 ? 1 : 0;
    case Type1Extension.DMA_CC:
      return type1?.domains.every((each) => each.coherencyEnforced) ? 1 : 0;
    case Type1Extension.MMIO_DONT_PIN:
      return hasMmioDontPin ? 1 : 0;
    default:
      return 0;
  }
}

/** What GET_INFO appends, in its order. */
export function capabilitiesOf(type1: Type1): Capability[] {
  const capabilities = [migration(type1), dmaAvail(type1)];
  if (type1.allowed.ranges.length > 0) capabilities.push(iovaRanges(type1));
  return capabilities;
}

function migration(type1: Type1): Capability {
  const bytes = MigrationCapability.bytesOf({
    flags: 0,
    pgsizeBitmap: BigInt(type1.pageFrames) << 12n,
    maxDirtyBitmapSize: BigInt(DIRTY_BYTES_MAX),
  });
  return { id: CapabilityId.MIGRATION, version: 1, bytes };
}

function dmaAvail(type1: Type1): Capability {
  const bytes = DmaAvailCapability.bytesOf({ avail: type1.dmaAvail });
  return { id: CapabilityId.DMA_AVAIL, version: 1, bytes };
}

function iovaRanges(type1: Type1): Capability {
  const { ranges } = type1.allowed;
  const bytes = new Uint8Array(IovaRangeCapability.bytes + ranges.length * IovaRangeEntry.bytes);
  const view = viewOf(bytes);
  IovaRangeCapability.encode({ nrIovas: ranges.length, pad: 0 }, view);
  ranges.forEach((range, index) => {
    const at = IovaRangeCapability.bytes + index * IovaRangeEntry.bytes;
    IovaRangeEntry.encode({ start: range.start, end: range.last }, view, at);
  });
  return { id: CapabilityId.IOVA_RANGE, version: 1, bytes };
}
