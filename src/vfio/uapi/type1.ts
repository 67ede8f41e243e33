/**
 * The ioctls of a type1 container: request numbers, structures byte for byte, flags.
 *
 * Source: include/uapi/linux/vfio.h. Request numbers have no size bits (`_IO(';', 100 + n)`); a
 * structure says itself how long it is (`argsz`), so that it can grow at its end.
 */
import { layout } from "../../wire/layout.ts";

const BASE = 0x3b64;

/** Request numbers. */
export const Type1Request = {
  GET_INFO: BASE + 12,
  MAP_DMA: BASE + 13,
  UNMAP_DMA: BASE + 14,
  DIRTY_PAGES: BASE + 17,
  /** VFIO_IOMMU_ENABLE_IOPF of the proposal of 2021; never merged. */
  ENABLE_IOPF: BASE + 18,
} as const;

/** Flags of GET_INFO's answer. */
export const InfoFlag = { PGSIZES: 1, CAPS: 2 } as const;

/** Flags of MAP_DMA. */
export const MapFlag = {
  READ: 1,
  WRITE: 2,
  VADDR: 4,
  /** VFIO_DMA_MAP_FLAG_MMIO_DONT_PIN of the proposal of 2024; never merged. */
  MMIO_DONT_PIN: 8,
  /** What Linux 7.2 knows. */
  ALL: 7,
  ALL_WITH_PROPOSALS: 15,
} as const;

/** Flags of UNMAP_DMA. */
export const UnmapFlag = { GET_DIRTY_BITMAP: 1, ALL: 2, VADDR: 4 } as const;

/** Flags of DIRTY_PAGES. */
export const DirtyFlag = { START: 1, STOP: 2, GET_BITMAP: 4 } as const;

/** Identities of capabilities. */
export const CapabilityId = { IOVA_RANGE: 1, MIGRATION: 2, DMA_AVAIL: 3 } as const;

const rights = { READ: 0, WRITE: 1 } as const;

/** VFIO_IOMMU_GET_INFO, without the capability chain behind it. */
export const Type1Info = layout("vfio_iommu_type1_info", 24, {
  argsz: { kind: "u32", at: 0, doc: "size of the buffer; the size needed when it is too small" },
  flags: { kind: "u32", at: 4, doc: "what is valid", bits: { PGSIZES: 0, CAPS: 1 } },
  iovaPgsizes: { kind: "u64", at: 8, doc: "bit for each page size that can be mapped" },
  capOffset: { kind: "u32", at: 16, doc: "where the capability chain begins, 0 for none" },
  pad: { kind: "u32", at: 20, doc: "zero" },
});

/** Head of a capability. */
export const CapabilityHeader = layout("vfio_info_cap_header", 8, {
  id: { kind: "u16", at: 0, doc: "which capability" },
  version: { kind: "u16", at: 2, doc: "1" },
  next: { kind: "u32", at: 4, doc: "where the next one is, from the start of the structure" },
});

/** IOVA_RANGE, without the ranges behind it. */
export const IovaRangeCapability = layout("vfio_iommu_type1_info_cap_iova_range", 16, {
  nrIovas: { kind: "u32", at: 8, doc: "ranges that follow", as: "count" },
  pad: { kind: "u32", at: 12, doc: "zero" },
});

/** A range of IOVA_RANGE. */
export const IovaRangeEntry = layout("vfio_iova_range", 16, {
  start: { kind: "u64", at: 0, doc: "first address", as: "address" },
  end: { kind: "u64", at: 8, doc: "last address, inclusive", as: "address" },
});

/** MIGRATION: dirty page tracking is there. */
export const MigrationCapability = layout("vfio_iommu_type1_info_cap_migration", 32, {
  flags: { kind: "u32", at: 8, doc: "zero" },
  pgsizeBitmap: { kind: "u64", at: 16, doc: "page sizes that dirty bitmaps can have" },
  maxDirtyBitmapSize: { kind: "u64", at: 24, doc: "most bytes of a dirty bitmap", as: "count" },
});

/** DMA_AVAIL; padded to 16 bytes in a chain. */
export const DmaAvailCapability = layout("vfio_iommu_type1_info_dma_avail", 12, {
  avail: { kind: "u32", at: 8, doc: "mappings that may still be made", as: "count" },
});

/** VFIO_IOMMU_MAP_DMA. */
export const DmaMap = layout("vfio_iommu_type1_dma_map", 32, {
  argsz: { kind: "u32", at: 0, doc: "size of the structure" },
  flags: { kind: "u32", at: 4, doc: "rights", bits: { ...rights, VADDR: 2, MMIO_DONT_PIN: 3 } },
  vaddr: { kind: "u64", at: 8, doc: "the process's virtual address", as: "address" },
  iova: { kind: "u64", at: 16, doc: "the devices' virtual address", as: "address" },
  size: { kind: "u64", at: 24, doc: "length in bytes", as: "count" },
});

/** VFIO_IOMMU_UNMAP_DMA; with GET_DIRTY_BITMAP a {@link Bitmap} follows. */
export const DmaUnmap = layout("vfio_iommu_type1_dma_unmap", 24, {
  argsz: { kind: "u32", at: 0, doc: "size of the structure" },
  flags: { kind: "u32", at: 4, doc: "how", bits: { GET_DIRTY_BITMAP: 0, ALL: 1, VADDR: 2 } },
  iova: { kind: "u64", at: 8, doc: "first address", as: "address" },
  size: { kind: "u64", at: 16, doc: "length in bytes; then the bytes unmapped", as: "count" },
});

/** A dirty bitmap of the user's. */
export const Bitmap = layout("vfio_bitmap", 24, {
  pgsize: { kind: "u64", at: 0, doc: "bytes that a bit stands for", as: "count" },
  size: { kind: "u64", at: 8, doc: "length in bytes", as: "count" },
  data: { kind: "u64", at: 16, doc: "the process's virtual address of it", as: "address" },
});

/** VFIO_IOMMU_DIRTY_PAGES; with GET_BITMAP a {@link DirtyBitmapGet} follows. */
export const DirtyPages = layout("vfio_iommu_type1_dirty_bitmap", 8, {
  argsz: { kind: "u32", at: 0, doc: "size of the structure" },
  flags: { kind: "u32", at: 4, doc: "one of them", bits: { START: 0, STOP: 1, GET_BITMAP: 2 } },
});

/** What GET_BITMAP asks for; a {@link Bitmap} lies at 16. */
export const DirtyBitmapGet = layout("vfio_iommu_type1_dirty_bitmap_get", 40, {
  iova: { kind: "u64", at: 0, doc: "first address", as: "address" },
  size: { kind: "u64", at: 8, doc: "length in bytes", as: "count" },
  bitmap: { kind: "bytes", at: 16, length: 24, doc: "the bitmap" },
});
