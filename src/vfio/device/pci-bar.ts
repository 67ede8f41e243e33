/**
 * The regions of a PCI function as VFIO numbers them, and where each lies in the device's file.
 *
 * Source: include/uapi/linux/vfio.h, VFIO_PCI_*_REGION_INDEX; include/linux/vfio_pci_core.h,
 * VFIO_PCI_OFFSET_SHIFT (40); drivers/vfio/pci/vfio_pci_core.c: vfio_pci_probe_mmaps, vma_to_pfn.
 *
 *     page of the file:  bits 51 … 28  region index      bits 27 … 0  page in the region
 *
 * A page of the file is therefore never a frame: the frame is that of the region's start plus the
 * low bits.
 */
import { PAGE_BYTES, pagesOf } from "../../units.ts";

/** Numbers of the regions. */
export const RegionIndex = {
  BAR0: 0,
  BAR1: 1,
  BAR2: 2,
  BAR3: 3,
  BAR4: 4,
  BAR5: 5,
  ROM: 6,
  CONFIG: 7,
  VGA: 8,
} as const;

/** Regions that every PCI function has a number for. */
export const REGION_COUNT = 9;

/** Pages of the file that a region takes: 2^40 bytes. */
export const REGION_PAGES = 2 ** 28;

/** A base address register's range. */
export interface PciBar {
  /** Frame of its first byte. */
  readonly pfn: number;
  /** Offset of its first byte in that frame; only ranges smaller than a page may have one. */
  readonly offset?: number;
  /** Length in bytes, below 2^53. */
  readonly bytes: number;
  /** Memory by default, else I/O ports. */
  readonly isMemory?: boolean;
  /** Whether somebody else has claimed the range, or what is left of a page that it starts. */
  readonly isBusy?: boolean;
}

/** A region, as GET_REGION_INFO tells of it. */
export interface DeviceRegion {
  readonly flags: number;
  /** Length in bytes. */
  readonly bytes: number;
  /** Where it starts in the device's file. */
  readonly fileOffset: bigint;
  readonly isMsixMappable: boolean;
}

/** A part of a BAR that a dma-buf is to have, in bytes. */
export interface RegionRange {
  readonly offset: bigint;
  readonly length: bigint;
}

/** Page of the device's file at which a region starts. */
export function regionPage(index: number): number {
  return index * REGION_PAGES;
}

/** Byte of the device's file at which a region starts. */
export function regionOffset(index: number): bigint {
  return BigInt(index) << 40n;
}

/** Whether a range can be mapped into processes: pages of it hold nothing else. */
export function canMapBar(bar: PciBar): boolean {
  if (bar.isMemory === false || bar.bytes === 0) return false;
  if (bar.bytes >= PAGE_BYTES) return true;
  return (bar.offset ?? 0) === 0 && bar.isBusy !== true;
}

/** Pages that a range fills. */
export function barPages(bar: PciBar): number {
  return pagesOf(bar.bytes);
}
