/**
 * Requests and structures of a VFIO device's file, byte for byte.
 *
 * Source: include/uapi/linux/vfio.h.
 */
import { layout } from "../../wire/layout.ts";

const BASE = 0x3b64;

/** Numbers of the requests. */
export const DeviceRequest = {
  GET_INFO: BASE + 7,
  GET_REGION_INFO: BASE + 8,
  RESET: BASE + 11,
  FEATURE: BASE + 17,
} as const;

/** Flags of GET_INFO's answer. */
export const DeviceFlag = { RESET: 1, PCI: 2 } as const;

/** Flags of GET_REGION_INFO's answer. */
export const RegionFlag = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;

/** Identity of the capability that says that the MSI-X table's pages can be mapped too. */
export const REGION_CAP_MSIX_MAPPABLE = 3;

/** Features of DEVICE_FEATURE that are modelled. */
export const Feature = { LOW_POWER_ENTRY: 3, LOW_POWER_EXIT: 5, DMA_BUF: 11 } as const;

/** Flags of DEVICE_FEATURE beside the feature's number. */
export const FeatureFlag = { MASK: 0xffff, GET: 1 << 16, SET: 1 << 17, PROBE: 1 << 18 } as const;

/** VFIO_DEVICE_GET_INFO. */
export const DeviceInfo = layout("vfio_device_info", 24, {
  argsz: { kind: "u32", at: 0, doc: "size of the buffer, at least 16" },
  flags: { kind: "u32", at: 4, doc: "bit 0 can be reset, bit 1 PCI" },
  numRegions: { kind: "u32", at: 8, doc: "regions that have a number" },
  numIrqs: { kind: "u32", at: 12, doc: "kinds of interrupt that have a number" },
  capOffset: { kind: "u32", at: 16, doc: "zero: no capabilities" },
  pad: { kind: "u32", at: 20, doc: "zero" },
});

/** VFIO_DEVICE_GET_REGION_INFO. */
export const RegionInfo = layout("vfio_region_info", 32, {
  argsz: { kind: "u32", at: 0, doc: "size of the buffer; the size needed when it is too small" },
  flags: { kind: "u32", at: 4, doc: "bit 0 read, bit 1 write, bit 2 mmap, bit 3 capabilities" },
  index: { kind: "u32", at: 8, doc: "which region" },
  capOffset: { kind: "u32", at: 12, doc: "where the capability chain begins, 0 for none" },
  size: { kind: "u64", at: 16, doc: "length in bytes, 0 for a region that is not there" },
  offset: { kind: "u64", at: 24, doc: "where the region starts in the device's file" },
});

/** Head of VFIO_DEVICE_FEATURE; the feature's data follow. */
export const FeatureHead = layout("vfio_device_feature", 8, {
  argsz: { kind: "u32", at: 0, doc: "size of the buffer" },
  flags: { kind: "u32", at: 4, doc: "bits 15 … 0 feature, bit 16 get, bit 17 set, bit 18 probe" },
});

/** Data of the feature DMA_BUF; the ranges follow. */
export const FeatureDmaBuf = layout("vfio_device_feature_dma_buf", 16, {
  regionIndex: { kind: "u32", at: 0, doc: "which BAR" },
  openFlags: { kind: "u32", at: 4, doc: "flags of open for the new descriptor" },
  flags: { kind: "u32", at: 8, doc: "zero" },
  nrRanges: { kind: "u32", at: 12, doc: "ranges that follow" },
});

/** A range of the feature DMA_BUF. */
export const DmaBufRange = layout("vfio_region_dma_range", 16, {
  offset: { kind: "u64", at: 0, doc: "first byte in the BAR, a multiple of the page size" },
  length: { kind: "u64", at: 8, doc: "bytes, a multiple of the page size" },
});
