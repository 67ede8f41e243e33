/**
 * Request numbers and structures of the container and group files; those of type1 are in uapi/.
 *
 * Source: include/uapi/linux/vfio.h: VFIO_TYPE ';', VFIO_BASE 100, numbers without size bits.
 */
import { layout } from "../wire/layout.ts";

const BASE = 0x3b64;

/** Numbers of the requests. */
export const VfioRequest = {
  GET_API_VERSION: BASE,
  CHECK_EXTENSION: BASE + 1,
  SET_IOMMU: BASE + 2,
  GROUP_GET_STATUS: BASE + 3,
  GROUP_SET_CONTAINER: BASE + 4,
  GROUP_UNSET_CONTAINER: BASE + 5,
  GROUP_GET_DEVICE_FD: BASE + 6,
} as const;

/** What GET_API_VERSION answers. */
export const API_VERSION = 0;

/** Values of CHECK_EXTENSION; those of back ends are also types for SET_IOMMU. */
export const VfioExtension = {
  TYPE1: 1,
  SPAPR_TCE: 2,
  TYPE1_V2: 3,
  DMA_CC: 4,
  EEH: 5,
  /** Reserved since Linux 6.13; no type that can be set. */
  TYPE1_NESTING: 6,
  SPAPR_TCE_V2: 7,
  NOIOMMU: 8,
  UNMAP_ALL: 9,
  UPDATE_VADDR: 10,
} as const;

/** Flags of GROUP_GET_STATUS. */
export const GroupFlag = { VIABLE: 1, CONTAINER_SET: 2 } as const;

/** GROUP_GET_STATUS. */
export const GroupStatus = layout("vfio_group_status", 8, {
  argsz: { kind: "u32", at: 0, doc: "size of the structure, at least 8" },
  flags: { kind: "u32", at: 4, doc: "bit 0 viable, bit 1 container set; written by the kernel" },
});
