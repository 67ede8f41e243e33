/**
 * JSON lines of VFIO type1 calls: what a container was opened with, then one line for each call
 * with what the kernel answered.
 *
 *     {"op": "open", "type": 3, "memlock": -1, "api": 0, "group_flags": 1}
 *     {"op": "info", "flags": 3, "pgsizes": "0x…", "caps": [{"id": 2, "version": 1, …}, …]}
 *     {"op": "map", "argsz": 32, "flags": 3, "region": "buf", "offset": "0x…", "iova": "0x…",
 *      "size": "0x…", "errno": 0}
 *     {"op": "unmap", "flags": 0, "iova": "0x…", "size": "0x…", "errno": 0, "unmapped": "0x…"}
 *     {"op": "check_extension", "ext": 1, "ret": 1}
 *     {"op": "final", "dma_avail": 65531}
 *
 * docs/verify.md describes every field. `size` and `unmapped` of an unmap are the same field of the
 * structure, before and after the call.
 */

/** Kinds of call. */
export const VfioOp = {
  MAP: 0,
  UNMAP: 1,
  CHECK_EXTENSION: 2,
  DIRTY: 3,
  IOCTL: 4,
  INFO: 5,
  FINAL: 6,
} as const;
export type VfioOp = (typeof VfioOp)[keyof typeof VfioOp];

/** What GET_INFO gave. `null` where the recording does not say. */
export interface VfioInfo {
  readonly argsz: number | null;
  readonly errno: number;
  readonly argszAfter: number | null;
  readonly flags: number;
  readonly pageSizes: bigint;
  readonly capOffset: number | null;
  /** The chain as it was told: in order, with the keys of the recording. */
  readonly capabilities: readonly VfioCapability[];
}

/** A capability of GET_INFO. */
export type VfioCapability =
  | {
      readonly kind: "migration";
      readonly version: number;
      readonly pageSizes: bigint;
      readonly bitmapBytesMax: bigint;
    }
  | { readonly kind: "dma-avail"; readonly version: number; readonly available: number }
  | {
      readonly kind: "iova-ranges";
      readonly version: number;
      readonly ranges: readonly { readonly start: bigint; readonly last: bigint }[];
    }
  | { readonly kind: "unknown"; readonly version: number; readonly id: number };

/** Rights of a page of a region: `r`, `w` (both), `n` (none), `x` (nothing mapped). */
export type PageSort = "r" | "w" | "n" | "x";

/** Memory of the recorded process that map calls name. */
export interface VfioRegion {
  readonly name: string;
  readonly pages: number;
  /** One sort for all pages, or one for each. */
  readonly sorts: readonly PageSort[];
}

/** What the recorded program began with. */
export interface VfioOpen {
  readonly line: number;
  /** 1 or 3: VFIO_TYPE1_IOMMU, VFIO_TYPE1v2_IOMMU. */
  readonly type: number;
  /** RLIMIT_MEMLOCK in bytes of a process without CAP_IPC_LOCK; null for one that has it. */
  readonly memlockBytes: number | null;
  readonly api: number;
  /** Of GROUP_GET_STATUS before the group was given to the container. */
  readonly groupFlags: number;
  /** Answer to CHECK_EXTENSION of VFIO_DMA_CC_IOMMU at the start; null where not recorded. */
  readonly isCoherent: boolean | null;
  readonly regions: readonly VfioRegion[];
}

/** Memory that the recorded program of docs/verify.md has when its first line names none. */
export const DEFAULT_REGIONS: readonly VfioRegion[] = [
  { name: "buf", pages: 256, sorts: ["w"] },
  { name: "ro", pages: 16, sorts: ["r"] },
  { name: "hole", pages: 16, sorts: ["x"] },
];

/** One call: a record that is written anew for each. Addresses are frames and offsets. */
export class VfioCall {
  line = 0;
  op: VfioOp = VfioOp.MAP;
  /** Bytes that the structure says it has. */
  argsz = 0;
  flags = 0;
  /** Index into the regions of the program. */
  region = 0;
  offsetPfn = 0;
  offsetOffset = 0;
  iovaPfn = 0;
  iovaOffset = 0;
  sizePfn = 0;
  sizeOffset = 0;
  /** Whether a bitmap was handed in; then the next two are set. */
  hasBitmap = false;
  pgsizePfn = 0;
  pgsizeOffset = 0;
  bitmapBytes = 0;
  /** What was recorded of the bitmap after the call, null when nothing was. */
  bitmap: Uint8Array | null = null;
  errno = 0;
  unmappedPfn = 0;
  unmappedOffset = 0;
  extension = 0;
  /** Of check_extension. */
  answer = 0;
  /** Of an ioctl that is none of the above. */
  request = 0;
  /** Of `final`. */
  dmaAvail = 0;
  info: VfioInfo | null = null;
}
