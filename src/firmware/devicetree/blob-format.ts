/** What a flattened devicetree is made of. Source: Devicetree Specification 0.4, 5.2 to 5.5. */
import type { DevicetreeParts } from "./tree.ts";

export const FDT_MAGIC = 0xd00d_feed;
/** Tokens of the structure block. */
export const Token = { BEGIN_NODE: 1, END_NODE: 2, PROP: 3, NOP: 4, END: 9 } as const;
/** Bytes of the header by version; 17 added the size of the structure block. */
export const HEADER_BYTES = { 16: 36, 17: 40 } as const;
export type FdtVersion = keyof typeof HEADER_BYTES;

/** The header's fields. */
export interface FdtHeader {
  readonly totalBytes: number;
  readonly structureAt: number;
  readonly stringsAt: number;
  readonly reservationsAt: number;
  readonly version: number;
  readonly lastCompatibleVersion: number;
  readonly bootCpu: number;
  readonly stringsBytes: number;
  /** Null in version 16, which does not say. */
  readonly structureBytes: number | null;
}

/** Bytes at a place. */
export interface KeptBytes {
  readonly at: number;
  readonly bytes: Uint8Array;
}

/** A blob, taken apart. */
export interface DevicetreeBlob extends DevicetreeParts {
  readonly header: FdtHeader;
  readonly strings: Uint8Array;
  /** Offset of the END token. */
  readonly endAt: number;
  /** Bytes of the file, which can be more than the header says. */
  readonly bytes: number;
  /** What nothing else explains, in order. */
  readonly kept: readonly KeptBytes[];
}
