/**
 * The virtio-blk protocol: features, config space, requests.
 *
 * Source: virtio specification 1.3, "Block Device"; names follow include/uapi/linux/virtio_blk.h
 * without their prefix.
 */
import { layout } from "../../wire/layout.ts";

/** Virtio device type of a block device. */
export const VIRTIO_ID_BLOCK = 2;
/** PCI class: mass storage, SCSI, as QEMU has it. */
export const BLOCK_CLASS = 0x01_0000;
/** Unit of sector numbers, whatever the block size is. */
export const SECTOR_BYTES = 512;
/** Bytes of the answer to GET_ID. */
export const ID_BYTES = 20;

/** Feature bits by number. */
export const BlockFeature = {
  SIZE_MAX: 1,
  SEG_MAX: 2,
  RO: 5,
  BLK_SIZE: 6,
  FLUSH: 9,
  TOPOLOGY: 10,
  CONFIG_WCE: 11,
  MQ: 12,
  DISCARD: 13,
  WRITE_ZEROES: 14,
} as const;

/** A set of features as a number. */
export function blockFeatures(...names: (keyof typeof BlockFeature)[]): number {
  return names.reduce((bits, name) => bits | (1 << BlockFeature[name]), 0);
}

/** Device config space. */
export const BlockConfig = layout("virtio_blk_config", 60, {
  capacity: { kind: "u64", at: 0, doc: "sectors of 512 bytes" },
  sizeMax: { kind: "u32", at: 8, doc: "longest segment, bytes" },
  segMax: { kind: "u32", at: 12, doc: "most segments of a request" },
  cylinders: { kind: "u16", at: 16, doc: "geometry, not offered" },
  heads: { kind: "u8", at: 18, doc: "geometry, not offered" },
  sectors: { kind: "u8", at: 19, doc: "geometry, not offered" },
  blockBytes: { kind: "u32", at: 20, doc: "best size of an access" },
  physicalBlockExponent: { kind: "u8", at: 24, doc: "log2 of logical blocks in a physical one" },
  alignmentOffset: { kind: "u8", at: 25, doc: "first aligned logical block" },
  minimumBlocks: { kind: "u16", at: 26, doc: "smallest access without a penalty" },
  optimalBlocks: { kind: "u32", at: 28, doc: "best length of an access" },
  writeback: { kind: "u8", at: 32, doc: "1: writes need FLUSH to be durable" },
  queueCount: { kind: "u16", at: 34, doc: "request queues" },
  discardSectorsMax: { kind: "u32", at: 36, doc: "longest range of a discard" },
  discardSegmentsMax: { kind: "u32", at: 40, doc: "most ranges of a discard" },
  discardAlignment: { kind: "u32", at: 44, doc: "sectors by which discards are aligned" },
  zeroesSectorsMax: { kind: "u32", at: 48, doc: "longest range of zeroes" },
  zeroesSegmentsMax: { kind: "u32", at: 52, doc: "most ranges of zeroes" },
  zeroesMayUnmap: { kind: "u8", at: 56, doc: "1: zeroes may give space back" },
});

/** First bytes of every request. */
export const BlockRequest = layout("virtio_blk_req", 16, {
  type: { kind: "u32", at: 0, doc: "what to do" },
  sector: { kind: "u64", at: 8, doc: "where, in sectors" },
});

/** Types of request. */
export const BlockType = {
  IN: 0,
  OUT: 1,
  FLUSH: 4,
  GET_ID: 8,
  DISCARD: 11,
  WRITE_ZEROES: 13,
} as const;

/** One range of a discard or of zeroes. */
export const BlockRange = layout("virtio_blk_discard_write_zeroes", 16, {
  sector: { kind: "u64", at: 0, doc: "first sector" },
  sectors: { kind: "u32", at: 8, doc: "how many" },
  flags: { kind: "u32", at: 12, doc: "bit 0: space may be given back" },
});
/** Flag of a range. */
export const RANGE_UNMAP = 1;

/** Outcome of a request: its last writable byte. */
export const BlockStatus = { OK: 0, IOERR: 1, UNSUPP: 2 } as const;
export type BlockStatus = (typeof BlockStatus)[keyof typeof BlockStatus];
