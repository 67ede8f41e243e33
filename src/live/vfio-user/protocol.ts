/**
 * The vfio-user protocol's numbers and its message header.
 *
 * Source: vfio-user protocol specification, version 0.0, "Protocol Specification" and "Header"
 * (QEMU, docs/interop/vfio-user.rst). Every message is a header and a payload, little endian.
 */
import { layout } from "../../wire/layout.ts";

/** Numbers of commands. */
export const Command = {
  VERSION: 1,
  DMA_MAP: 2,
  DMA_UNMAP: 3,
  DEVICE_GET_INFO: 4,
  DEVICE_GET_REGION_INFO: 5,
  DEVICE_GET_REGION_IO_FDS: 6,
  DEVICE_GET_IRQ_INFO: 7,
  DEVICE_SET_IRQS: 8,
  REGION_READ: 9,
  REGION_WRITE: 10,
  DMA_READ: 11,
  DMA_WRITE: 12,
  DEVICE_RESET: 13,
  REGION_WRITE_MULTI: 15,
  DEVICE_FEATURE: 16,
  MIG_DATA_READ: 17,
  MIG_DATA_WRITE: 18,
} as const;

/** Parts of the header's flags. */
export const HeaderFlag = {
  /** Bits of the type: 0 is a command, 1 a reply. */
  TYPE: 0xf,
  COMMAND: 0,
  REPLY: 1,
  /** A command that wants no reply. */
  NO_REPLY: 0x10,
  /** A reply whose `error` counts. */
  ERROR: 0x20,
} as const;

/** What precedes every payload. */
export const Header = layout("vfio_user_header", 16, {
  id: { kind: "u16", at: 0, doc: "chosen by who commands, echoed by who replies" },
  command: { kind: "u16", at: 2, doc: "what to do" },
  size: { kind: "u32", at: 4, doc: "size of the message with this header, bytes", as: "count" },
  flags: {
    kind: "u32",
    at: 8,
    doc: "type, and what goes with it",
    bits: { type: [0, 3], noReply: 4, error: 5 },
  },
  error: { kind: "u32", at: 12, doc: "errno of an error reply" },
});

/** Bytes of a header. */
export const HEADER_BYTES = Header.bytes;

/** Version that this side speaks. */
export const MAJOR = 0;
export const MINOR = 0;

/** Limits of this side, offered by VERSION. */
export const Limit = {
  /** Bytes of data that one access may move. */
  TRANSFER_BYTES: 2 ** 20,
  /** Descriptors that one message may carry; QEMU takes no more as an answer. */
  MESSAGE_DESCRIPTORS: 16,
  /** DMA regions; QEMU takes no more as an answer. */
  DMA_REGIONS: 65_535,
  /** Granule of DMA regions. */
  PAGE_BYTES: 4096,
  /** Most that REGION_WRITE_MULTI may hold. */
  MULTI_WRITES: 200,
} as const;

/** Largest message: a REGION_WRITE with as much data as one access may move. */
export const MESSAGE_BYTES_MAX = HEADER_BYTES + 16 + Limit.TRANSFER_BYTES;
