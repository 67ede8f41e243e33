/**
 * The ioctls of /dev/iommu: request numbers, structures byte for byte, flags.
 *
 * Source: include/uapi/linux/iommufd.h; drivers/iommu/iommufd/main.c, iommufd_ioctl_ops (the size
 * each structure must have at least). Field names are the header's in camel case; a field named
 * `out…` there is only written, `reserved…` must be zero.
 */
import { type Fields, layout, type ValueOf } from "../../wire/layout.ts";

/** `_IO(';', nr)`: no size in the number. */
const requestOf = (nr: number): number => 0x3b00 + nr;

/** Request numbers. */
export const IommufdRequest = {
  DESTROY: requestOf(0x80),
  IOAS_ALLOC: requestOf(0x81),
  IOAS_ALLOW_IOVAS: requestOf(0x82),
  IOAS_COPY: requestOf(0x83),
  IOAS_IOVA_RANGES: requestOf(0x84),
  IOAS_MAP: requestOf(0x85),
  IOAS_UNMAP: requestOf(0x86),
  OPTION: requestOf(0x87),
  VFIO_IOAS: requestOf(0x88),
  HWPT_ALLOC: requestOf(0x89),
  GET_HW_INFO: requestOf(0x8a),
  HWPT_SET_DIRTY_TRACKING: requestOf(0x8b),
  HWPT_GET_DIRTY_BITMAP: requestOf(0x8c),
  HWPT_INVALIDATE: requestOf(0x8d),
  FAULT_QUEUE_ALLOC: requestOf(0x8e),
  IOAS_MAP_FILE: requestOf(0x8f),
  VIOMMU_ALLOC: requestOf(0x90),
  VDEVICE_ALLOC: requestOf(0x91),
  IOAS_CHANGE_PROCESS: requestOf(0x92),
  VEVENTQ_ALLOC: requestOf(0x93),
  HW_QUEUE_ALLOC: requestOf(0x94),
} as const;

/** Flags of IOAS_MAP, IOAS_MAP_FILE and IOAS_COPY. */
export const MapFlag = { FIXED_IOVA: 1, WRITEABLE: 2, READABLE: 4 } as const;
/** Flags of HWPT_ALLOC. */
export const HwptFlag = {
  NEST_PARENT: 1,
  DIRTY_TRACKING: 2,
  FAULT_ID_VALID: 4,
  PASID: 8,
} as const;
/** What OPTION sets or gets. */
export const IommuOption = { RLIMIT_MODE: 0, HUGE_PAGES: 1 } as const;
/** Operations of OPTION. */
export const OptionOp = { SET: 0, GET: 1 } as const;
/** Operations of VFIO_IOAS. */
export const VfioIoasOp = { GET: 0, SET: 1, CLEAR: 2 } as const;
/** Flag of HWPT_SET_DIRTY_TRACKING. */
export const DIRTY_TRACKING_ENABLE = 1;
/** Flag of HWPT_GET_DIRTY_BITMAP. */
export const DIRTY_BITMAP_NO_CLEAR = 1;
/** Bit of `outCapabilities` of GET_HW_INFO. */
export const HW_CAP_DIRTY_TRACKING = 1n;

const u16 = (at: number, doc: string) => ({ kind: "u16", at, doc }) as const;
const u32 = (at: number, doc: string) => ({ kind: "u32", at, doc }) as const;
const u64 = (at: number, doc: string) => ({ kind: "u64", at, doc }) as const;
const size = u32(0, "size of this structure, bytes");

export const Destroy = layout("iommu_destroy", 8, { size, id: u32(4, "any object") });

export const IoasAlloc = layout("iommu_ioas_alloc", 12, {
  size,
  flags: u32(4, "must be 0"),
  outIoasId: u32(8, "the new IOAS"),
});

export const IovaRange = layout("iommu_iova_range", 16, {
  start: u64(0, "first IOVA"),
  last: u64(8, "last IOVA, inclusive"),
});

export const IoasIovaRanges = layout("iommu_ioas_iova_ranges", 32, {
  size,
  ioasId: u32(4, "IOAS"),
  numIovas: u32(8, "in: room for that many; out: how many there are"),
  reserved0: u32(12, "must be 0"),
  allowedIovas: u64(16, "pointer to iommu_iova_range[]"),
  outIovaAlignment: u64(24, "what IOVAs and lengths must be multiples of"),
});

export const IoasAllowIovas = layout("iommu_ioas_allow_iovas", 24, {
  size,
  ioasId: u32(4, "IOAS"),
  numIovas: u32(8, "ranges"),
  reserved0: u32(12, "must be 0"),
  allowedIovas: u64(16, "pointer to iommu_iova_range[]"),
});

export const IoasMap = layout("iommu_ioas_map", 40, {
  size,
  flags: u32(4, "MapFlag"),
  ioasId: u32(8, "IOAS"),
  reserved0: u32(12, "must be 0"),
  userVa: u64(16, "address in the process"),
  length: u64(24, "bytes"),
  iova: u64(32, "in: where, with FIXED_IOVA; out: where it is"),
});

export const IoasMapFile = layout("iommu_ioas_map_file", 40, {
  size,
  flags: u32(4, "MapFlag"),
  ioasId: u32(8, "IOAS"),
  fd: u32(12, "memfd or dma-buf"),
  start: u64(16, "offset in the file, bytes"),
  length: u64(24, "bytes"),
  iova: u64(32, "in: where, with FIXED_IOVA; out: where it is"),
});

export const IoasCopy = layout("iommu_ioas_copy", 40, {
  size,
  flags: u32(4, "MapFlag"),
  dstIoasId: u32(8, "IOAS to map into"),
  srcIoasId: u32(12, "IOAS that has the pages"),
  length: u64(16, "bytes"),
  dstIova: u64(24, "in: where, with FIXED_IOVA; out: where it is"),
  srcIova: u64(32, "where it is in the source"),
});

export const IoasUnmap = layout("iommu_ioas_unmap", 24, {
  size,
  ioasId: u32(4, "IOAS"),
  iova: u64(8, "first byte; 0 with the longest length for everything"),
  length: u64(16, "in: bytes; out: bytes unmapped"),
});

export const IoasChangeProcess = layout("iommu_ioas_change_process", 8, {
  size,
  reserved0: u32(4, "must be 0"),
});

export const Option = layout("iommu_option", 24, {
  size,
  optionId: u32(4, "IommuOption"),
  op: u16(8, "OptionOp"),
  reserved0: u16(10, "must be 0"),
  objectId: u32(12, "IOAS for HUGE_PAGES, 0 for RLIMIT_MODE"),
  val64: u64(16, "value"),
});

export const VfioIoas = layout("iommu_vfio_ioas", 12, {
  size,
  ioasId: u32(4, "IOAS that VFIO's container ioctls work on"),
  op: u16(8, "VfioIoasOp"),
  reserved0: u16(10, "must be 0"),
});

export const HwptAlloc = layout("iommu_hwpt_alloc", 48, {
  size,
  flags: u32(4, "HwptFlag"),
  devId: u32(8, "device whose IOMMU the table has to suit"),
  ptId: u32(12, "IOAS"),
  outHwptId: u32(16, "the new hardware page table"),
  reserved0: u32(20, "must be 0"),
  dataType: u32(24, "0 without driver data"),
  dataLen: u32(28, "bytes of driver data"),
  dataUptr: u64(32, "pointer to driver data"),
  faultId: u32(40, "fault object, with FAULT_ID_VALID"),
  reserved1: u32(44, "not looked at"),
});

export const HwInfo = layout("iommu_hw_info", 40, {
  size,
  flags: u32(4, "must be 0"),
  devId: u32(8, "device"),
  dataLen: u32(12, "in: room for driver data; out: bytes there are"),
  dataUptr: u64(16, "pointer to driver data"),
  outDataType: u32(24, "kind of driver data, 0 for none"),
  outMaxPasidLog2: { kind: "u8", at: 28, doc: "log2 of the PASIDs" },
  reserved0: { kind: "bytes", at: 29, length: 3, doc: "must be 0" },
  outCapabilities: u64(32, "bit 0: dirty tracking"),
});

export const HwptSetDirtyTracking = layout("iommu_hwpt_set_dirty_tracking", 16, {
  size,
  flags: u32(4, "1 to enable"),
  hwptId: u32(8, "hardware page table"),
  reserved0: u32(12, "not looked at"),
});

export const HwptGetDirtyBitmap = layout("iommu_hwpt_get_dirty_bitmap", 48, {
  size,
  hwptId: u32(4, "hardware page table"),
  flags: u32(8, "1 to leave the dirty state as it is"),
  reserved0: u32(12, "must be 0"),
  iova: u64(16, "first byte"),
  length: u64(24, "bytes"),
  pageSize: u64(32, "bytes that one bit stands for"),
  data: u64(40, "pointer to the bitmap"),
});

export const FaultAlloc = layout("iommu_fault_alloc", 16, {
  size,
  flags: u32(4, "must be 0"),
  outFaultId: u32(8, "the new fault object"),
  outFaultFd: u32(12, "file to read faults from and write answers to"),
});

/** Record of a read of the fault file. */
export const HwptPgfault = layout("iommu_hwpt_pgfault", 40, {
  flags: u32(0, "1 PASID valid, 2 last of its group"),
  devId: u32(4, "device"),
  pasid: u32(8, "PASID"),
  grpid: u32(12, "page request group"),
  perm: u32(16, "1 read, 2 write, 4 execute, 8 privileged"),
  addr: u64(24, "faulting address"),
  length: u32(32, "hint of how much to prefault, 0 today"),
  cookie: u32(36, "names the group in the answer"),
});

/** Record of a write to the fault file. */
export const HwptPageResponse = layout("iommu_hwpt_page_response", 8, {
  cookie: u32(0, "as read"),
  code: u32(4, "0 success, 1 invalid"),
});

export type { Fields };

/** What a caller gives: every field optional and 0 by default, as in a zeroed structure of C. */
export type Input<F extends Fields> = {
  readonly [Name in keyof F as Name extends "size" | `out${string}` ? never : Name]?: ValueOf<
    F[Name]
  >;
};
