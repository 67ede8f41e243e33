/**
 * Reserved regions: ranges of I/O virtual addresses that a device needs left alone or mapped to
 * themselves; how the lists of a group's devices combine; what each IOMMU driver reports.
 *
 * Source: drivers/iommu/iommu.c: iommu_insert_resv_region, iommu_get_group_resv_regions,
 * iommu_group_show_resv_regions; include/linux/iommu.h, enum iommu_resv_type;
 * drivers/iommu/intel/iommu.c:intel_iommu_get_resv_regions; drivers/iommu/amd/iommu.c:
 * amd_iommu_get_resv_regions; drivers/iommu/virtio-iommu.c:viommu_get_resv_regions. Addresses are
 * bytes here, as firmware and devices give them.
 */
import { hex } from "../units.ts";
import { PROT_RW } from "./prot.ts";

/** Values of a region's type, in the order in which lists sort them. */
export const ReservedType = {
  /** Mapped to itself, always: firmware uses it behind the system's back. */
  DIRECT: 0,
  /** Mapped to itself until a user takes the device. */
  DIRECT_RELAXABLE: 1,
  /** Never mapped. */
  RESERVED: 2,
  /** Writes are interrupts. */
  MSI: 3,
  /** Where software maps the interrupt doorbell. */
  SW_MSI: 4,
} as const;
export type ReservedType = (typeof ReservedType)[keyof typeof ReservedType];

const typeNames = ["direct", "direct-relaxable", "reserved", "msi", "msi"] as const;

/** A reserved region. */
export interface ReservedRegion {
  readonly type: ReservedType;
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
  /** Bits of `Prot`, for the regions that are mapped. */
  readonly prot: number;
}

/**
 * The regions of a group: those of all its devices, sorted by start and type; of one type,
 * overlapping and adjacent ones are one.
 */
export function combineRegions(lists: readonly (readonly ReservedRegion[])[]): ReservedRegion[] {
  const sorted = lists.flat().sort((a, b) => {
    if (a.start !== b.start) return a.start < b.start ? -1 : 1;
    return a.type - b.type;
  });
  const combined: ReservedRegion[] = [];
  const lastOfType: number[] = [-1, -1, -1, -1, -1];
  for (const region of sorted) {
    const index = lastOfType[region.type]!;
    const below = combined[index];
    if (below !== undefined && region.start <= below.last + 1n) {
      if (region.last > below.last) combined[index] = { ...below, last: region.last };
      continue;
    }
    lastOfType[region.type] = combined.length;
    combined.push(region);
  }
  return combined;
}

/**
 * The text of a group's `reserved_regions` file.
 *
 * @example
 * regionsText([MSI_WINDOW]); // "0x00000000fee00000 0x00000000feefffff msi\n"
 */
export function regionsText(regions: readonly ReservedRegion[]): string {
  return regions
    .map(({ type, start, last }) => `${hex(start, 16)} ${hex(last, 16)} ${typeNames[type]}\n`)
    .join("");
}

/** Whether a user's mapping of `start` … `last` stands in the way of a group with these regions. */
export function forbidMapping(
  regions: readonly ReservedRegion[],
  start: bigint,
  last: bigint,
): boolean {
  return regions.some(
    (region) =>
      region.type !== ReservedType.DIRECT_RELAXABLE && region.start <= last && start <= region.last,
  );
}

/** Where a PC's devices write their interrupts. */
export const MSI_WINDOW: ReservedRegion = {
  type: ReservedType.MSI,
  start: 0xfee0_0000n,
  last: 0xfeef_ffffn,
  prot: 0,
};

/** Where Linux maps the interrupt doorbell of a platform whose doorbell is memory. */
export const SW_MSI_WINDOW: ReservedRegion = {
  type: ReservedType.SW_MSI,
  start: 0x800_0000n,
  last: 0x80f_ffffn,
  prot: 0,
};

const HYPER_TRANSPORT: ReservedRegion = {
  type: ReservedType.RESERVED,
  start: 0xfd_0000_0000n,
  last: 0xff_ffff_ffffn,
  prot: 0,
};

/** A range that firmware asks for. */
export interface FirmwareRange {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/**
 * What the VT-d driver reports for a device.
 *
 * @param classCode - PCI class, subclass and interface (24 bits); −1 when it is no PCI device
 * @param rmrrs - ranges of the RMRR structures that name the device
 */
export function vtdRegions(classCode: number, rmrrs: readonly FirmwareRange[]): ReservedRegion[] {
  const isGraphics = classCode >> 16 === 0x03;
  const isUsb = classCode >> 8 === 0x0c03;
  const type = isGraphics || isUsb ? ReservedType.DIRECT_RELAXABLE : ReservedType.DIRECT;
  const regions: ReservedRegion[] = rmrrs.map(({ start, last }) => {
    return { type, start, last, prot: PROT_RW };
  });
  // Floppy controllers behind an ISA bridge use the first 16 MiB untranslated.
  if (classCode >> 8 === 0x0601) {
    const relaxable = ReservedType.DIRECT_RELAXABLE;
    regions.push({ type: relaxable, start: 0n, last: 0xff_ffffn, prot: PROT_RW });
  }
  regions.push(MSI_WINDOW);
  return regions;
}

/** A range of an IVMD block. */
export interface UnityRange extends FirmwareRange {
  /** Bits of `Prot`. */
  readonly prot: number;
  /** Whether the range is excluded from translation instead of mapped to itself. */
  readonly excluded: boolean;
}

/** What the AMD driver reports for a device that these IVMD ranges name. */
export function amdRegions(unity: readonly UnityRange[]): ReservedRegion[] {
  const regions: ReservedRegion[] = unity.map(({ start, last, prot, excluded }) => {
    return { type: excluded ? ReservedType.RESERVED : ReservedType.DIRECT, start, last, prot };
  });
  return [...regions, MSI_WINDOW, HYPER_TRANSPORT];
}

/** What the SMMU drivers report for every device. */
export function smmuRegions(): ReservedRegion[] {
  return [SW_MSI_WINDOW];
}

/** What the virtio-iommu driver reports for an endpoint whose PROBE gave these regions. */
export function virtioRegions(probed: readonly ReservedRegion[]): ReservedRegion[] {
  const hasMsi = probed.some((region) => region.type === ReservedType.MSI);
  return hasMsi ? [...probed] : [...probed, SW_MSI_WINDOW];
}
