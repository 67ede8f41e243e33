/**
 * The structures of NVMe that are longer than a queue entry, as layouts: what Identify and Get Log
 * Page return. Source: 1.4, figures 245 to 249 and 192 to 198. Fields that this controller leaves
 * zero are reserved bytes here.
 */
import { layout } from "../wire/layout.ts";

/** Identify Controller (figure 247). */
export const IdentifyController = layout("nvme_id_ctrl", 4096, {
  vid: { kind: "u16", at: 0, doc: "PCI vendor" },
  ssvid: { kind: "u16", at: 2, doc: "PCI subsystem vendor" },
  sn: { kind: "bytes", at: 4, length: 20, doc: "serial number, padded with spaces" },
  mn: { kind: "bytes", at: 24, length: 40, doc: "model number, padded with spaces" },
  fr: { kind: "bytes", at: 64, length: 8, doc: "firmware revision, padded with spaces" },
  rab: { kind: "u8", at: 72, doc: "recommended arbitration burst, as a power of two" },
  mdts: { kind: "u8", at: 77, doc: "largest transfer, in pages, as a power of two" },
  ver: { kind: "u32", at: 80, doc: "version" },
  cntrltype: { kind: "u8", at: 111, doc: "1: I/O controller" },
  acl: { kind: "u8", at: 258, doc: "Abort commands at a time, less one" },
  aerl: { kind: "u8", at: 259, doc: "Asynchronous Event Requests at a time, less one" },
  frmw: { kind: "u8", at: 260, doc: "firmware slots, and that the first is read only" },
  lpa: { kind: "u8", at: 261, doc: "bit 1: effects log, bit 2: offsets in log pages" },
  elpe: { kind: "u8", at: 262, doc: "entries of the error log, less one" },
  wctemp: { kind: "u16", at: 266, doc: "warning temperature, kelvin" },
  cctemp: { kind: "u16", at: 268, doc: "critical temperature, kelvin" },
  sqes: {
    kind: "u8",
    at: 512,
    doc: "size of submission entries: smallest, largest, powers of two",
  },
  cqes: { kind: "u8", at: 513, doc: "the same of completion entries" },
  nn: { kind: "u32", at: 516, doc: "number of namespaces" },
  oncs: { kind: "u16", at: 520, doc: "optional commands" },
  vwc: { kind: "u8", at: 525, doc: "bit 0: volatile write cache; 3 << 1: flush of all namespaces" },
  sgls: { kind: "u32", at: 536, doc: "bits 0 … 1: SGLs, any alignment; bit 16: bit buckets" },
  subnqn: { kind: "bytes", at: 768, length: 256, doc: "name of the subsystem" },
  maximumPower: { kind: "u16", at: 2048, doc: "power state 0: centiwatts" },
});

/** Identify Namespace (figure 245). */
export const IdentifyNamespace = layout("nvme_id_ns", 4096, {
  nsze: { kind: "u64", at: 0, doc: "size in blocks" },
  ncap: { kind: "u64", at: 8, doc: "capacity in blocks" },
  nuse: { kind: "u64", at: 16, doc: "blocks in use" },
  dlfeat: { kind: "u8", at: 33, doc: "bit 3: Write Zeroes may deallocate" },
  nsattr: { kind: "u8", at: 99, doc: "bit 0: write protected" },
  lbaDataSize: { kind: "u8", at: 130, doc: "format 0: size of a block as a power of two" },
});

/** Error Information log entry (figure 192). */
export const ErrorEntry = layout("nvme_error_log_page", 64, {
  errorCount: { kind: "u64", at: 0, doc: "number of this error, from 1" },
  sqid: { kind: "u16", at: 8, doc: "submission queue" },
  cid: { kind: "u16", at: 10, doc: "command identifier" },
  status: { kind: "u16", at: 12, doc: "bits 1 … 15: status" },
  parameter: { kind: "u16", at: 14, doc: "place of the error in the command; 0xffff: no place" },
  lba: { kind: "u64", at: 16, doc: "first block of the command" },
  nsid: { kind: "u32", at: 24, doc: "namespace" },
});

/** SMART / Health Information log (figure 194). */
export const SmartLog = layout("nvme_smart_log", 512, {
  criticalWarning: { kind: "u8", at: 0, doc: "bit 1: a temperature threshold is passed" },
  temperature: { kind: "u16", at: 1, doc: "composite temperature, kelvin" },
  availableSpare: { kind: "u8", at: 3, doc: "per cent" },
  spareThreshold: { kind: "u8", at: 4, doc: "per cent" },
  dataUnitsRead: { kind: "u64", at: 32, doc: "thousands of 512 bytes, rounded up" },
  dataUnitsWritten: { kind: "u64", at: 48, doc: "thousands of 512 bytes, rounded up" },
  readCommands: { kind: "u64", at: 64, doc: "Read and Compare commands" },
  writeCommands: { kind: "u64", at: 80, doc: "Write commands" },
  mediaErrors: { kind: "u64", at: 160, doc: "operations that the store failed" },
  errorEntries: { kind: "u64", at: 176, doc: "errors in the life of the error log" },
});
