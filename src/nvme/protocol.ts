/**
 * The NVMe protocol in numbers: registers, opcodes, status values, features, log pages, events.
 *
 * Source: NVM Express base specification 1.4 ("1.4" in this room), whose sections the tests cite.
 * Layouts of the larger structures are in `structures.ts`.
 */

/** Controller registers by offset in BAR 0 (1.4, 3.1). */
export const Register = {
  CAP: 0x00,
  VS: 0x08,
  INTMS: 0x0c,
  INTMC: 0x10,
  CC: 0x14,
  CSTS: 0x1c,
  AQA: 0x24,
  ASQ: 0x28,
  ACQ: 0x30,
  /** First doorbell; submission queue y at 8y from here, completion queue y four bytes on. */
  DOORBELLS: 0x1000,
} as const;

/** CC: enable. */
export const CC_ENABLE = 1;
/** CC: bits that a driver can write. */
export const CC_WRITABLE = 0x00ff_fff1;
/** CSTS: ready, fatal status, and the two values of shutdown status. */
export const Csts = { RDY: 1, CFS: 2, SHUTDOWN_OCCURRING: 4, SHUTDOWN_COMPLETE: 8 } as const;

/** Version 1.4.0. */
export const VERSION = 0x0001_0400;
/** Pages of the controller: CC.MPS can be 0 only. */
export const PAGE = 4096;
export const SQE_BYTES = 64;
export const CQE_BYTES = 16;
/** Largest I/O queue: CAP.MQES + 1. */
export const QUEUE_ENTRIES_MAX = 1024;
/** Largest admin queue: AQA's fields hold 12 bits. */
export const ADMIN_ENTRIES_MAX = 4096;
/** log2 of the pages that one command transfers at most (MDTS). */
export const MDTS = 8;
export const TRANSFER_BYTES_MAX = PAGE << MDTS;
/** The only namespace. */
export const NAMESPACE = 1;
export const NAMESPACE_ALL = 0xffff_ffff;

/** Words of a submission queue entry. */
export const Sqe = {
  /** Opcode, fused operation, PRP or SGL, command identifier. */
  HEAD: 0,
  NAMESPACE: 1,
  /** Data pointer: PRP 1 and 2 as halves, or one SGL descriptor. */
  DATA: 6,
  CDW10: 10,
  CDW11: 11,
  CDW12: 12,
  CDW13: 13,
  CDW14: 14,
  CDW15: 15,
  WORDS: 16,
} as const;

/** Admin opcodes (1.4, figure 139). */
export const AdminOpcode = {
  DELETE_SQ: 0x00,
  CREATE_SQ: 0x01,
  GET_LOG_PAGE: 0x02,
  DELETE_CQ: 0x04,
  CREATE_CQ: 0x05,
  IDENTIFY: 0x06,
  ABORT: 0x08,
  SET_FEATURES: 0x09,
  GET_FEATURES: 0x0a,
  ASYNC_EVENT: 0x0c,
} as const;

/** I/O opcodes of the NVM command set (1.4, figure 346). */
export const IoOpcode = {
  FLUSH: 0x00,
  WRITE: 0x01,
  READ: 0x02,
  COMPARE: 0x05,
  WRITE_ZEROES: 0x08,
  DATASET_MANAGEMENT: 0x09,
} as const;

/**
 * Status values: bits 0 … 7 code, 8 … 10 type, 14 "do not retry" (1.4, 4.6.1), which is set where
 * the same command would fail the same way again.
 */
export const Status = {
  SUCCESS: 0,
  INVALID_OPCODE: 0x4001,
  INVALID_FIELD: 0x4002,
  DATA_TRANSFER_ERROR: 0x0004,
  INTERNAL_ERROR: 0x0006,
  ABORT_REQUESTED: 0x0007,
  INVALID_NAMESPACE: 0x400b,
  COMMAND_SEQUENCE: 0x400c,
  INVALID_SGL_SEGMENT: 0x400d,
  INVALID_SGL_COUNT: 0x400e,
  DATA_SGL_LENGTH: 0x400f,
  SGL_TYPE: 0x4011,
  PRP_OFFSET: 0x4013,
  WRITE_PROTECTED: 0x4020,
  LBA_RANGE: 0x4080,
  CAPACITY_EXCEEDED: 0x4081,
  COMPLETION_QUEUE_INVALID: 0x4100,
  QUEUE_IDENTIFIER: 0x4101,
  QUEUE_SIZE: 0x4102,
  ASYNC_EVENT_LIMIT: 0x4105,
  INTERRUPT_VECTOR: 0x4108,
  LOG_PAGE: 0x4109,
  QUEUE_DELETION: 0x410c,
  FEATURE_NOT_SAVEABLE: 0x410d,
  FEATURE_NOT_CHANGEABLE: 0x410e,
  FEATURE_NOT_NAMESPACE: 0x410f,
  WRITE_FAULT: 0x0280,
  READ_ERROR: 0x0281,
  COMPARE_FAILURE: 0x4285,
} as const;
export type StatusName = keyof typeof Status;

const statusNames = new Map<number, string>(
  Object.entries(Status).map(([name, value]) => [value & 0x7ff, name]),
);

/** Names a status, retry bit or not; in hexadecimal when it has no name here. */
export function statusName(status: number): string {
  return statusNames.get(status & 0x7ff) ?? `0x${status.toString(16)}`;
}

/** Feature identifiers (1.4, figure 271). */
export const Feature = {
  ARBITRATION: 0x01,
  POWER_MANAGEMENT: 0x02,
  TEMPERATURE_THRESHOLD: 0x04,
  ERROR_RECOVERY: 0x05,
  VOLATILE_WRITE_CACHE: 0x06,
  NUMBER_OF_QUEUES: 0x07,
  INTERRUPT_COALESCING: 0x08,
  INTERRUPT_VECTOR: 0x09,
  WRITE_ATOMICITY: 0x0a,
  ASYNC_EVENTS: 0x0b,
} as const;

/** Log page identifiers (1.4, figure 191). */
export const LogPage = {
  ERROR: 0x01,
  SMART: 0x02,
  FIRMWARE: 0x03,
  CHANGED_NAMESPACES: 0x04,
  EFFECTS: 0x05,
} as const;

/** What an Identify command asks for: CNS (1.4, figure 244). */
export const Cns = {
  NAMESPACE: 0x00,
  CONTROLLER: 0x01,
  ACTIVE_NAMESPACES: 0x02,
  NAMESPACE_DESCRIPTORS: 0x03,
  /** Of 2.0: the same two for one command set. */
  COMMAND_SET_NAMESPACE: 0x05,
  COMMAND_SET_CONTROLLER: 0x06,
} as const;

/** Types of asynchronous event (1.4, figure 148). */
export const EventType = { ERROR: 0, SMART: 1 } as const;
/** Information of an error event. */
export const ErrorEvent = { INVALID_DOORBELL: 0, INVALID_DOORBELL_VALUE: 1 } as const;
/** Information of a SMART event: temperature crossed a threshold. */
export const SMART_TEMPERATURE = 1;
