/**
 * The fault log of an IOMMU: reasons, and a bounded queue of records with a count of what it lost.
 *
 * Source: Intel VT-d specification, 7 "Fault Logging" and table 24 "Fault Reason Encodings";
 * virtio 1.3, 5.13.6.9 "Fault reporting" for the reasons that a virtio-iommu knows.
 */
import { assert, unreachable } from "../errors.ts";
import { Prot } from "./prot.ts";
import { NO_PASID } from "./tag-array.ts";

/** Why a DMA was refused. */
export const FaultReason = {
  NONE: 0,
  /** Nothing is attached, or DMA is blocked. */
  NO_DOMAIN: 1,
  /** The address is wider than the page table translates. */
  ADDRESS_WIDTH: 2,
  /** No page is mapped. */
  NOT_PRESENT: 3,
  /** The page may not be read. */
  NO_READ: 4,
  /** The page may not be written. */
  NO_WRITE: 5,
  /** A page-table entry has a reserved encoding. */
  RESERVED_BITS: 6,
  /** A page-table entry points to where no memory is. */
  TABLE_ACCESS: 7,
  /** The address lies in a range that is set apart. */
  RESERVED_RANGE: 8,
} as const;
export type FaultReason = (typeof FaultReason)[keyof typeof FaultReason];

/**
 * VT-d's number for a reason: what is not mapped lacks the right that the access asked for.
 * Source: VT-d specification, table 24; QEMU hw/i386/intel_iommu_internal.h:VTDFaultReason.
 */
export function vtdFaultReason(reason: FaultReason, access: number): number {
  switch (reason) {
    case FaultReason.NONE:
      return 0;
    case FaultReason.NO_DOMAIN:
      return 0x02;
    case FaultReason.ADDRESS_WIDTH:
      return 0x04;
    case FaultReason.NOT_PRESENT:
      return (access & Prot.WRITE) !== 0 ? 0x05 : 0x06;
    case FaultReason.NO_READ:
      return 0x06;
    case FaultReason.NO_WRITE:
      return 0x05;
    case FaultReason.RESERVED_BITS:
      return 0x0c;
    case FaultReason.TABLE_ACCESS:
      return 0x07;
    case FaultReason.RESERVED_RANGE:
      return 0x0e;
    default:
      return unreachable(reason);
  }
}

/** virtio-iommu's reason: 0 unknown, 1 domain, 2 mapping. */
export function virtioFaultReason(reason: FaultReason): number {
  switch (reason) {
    case FaultReason.NO_DOMAIN:
      return 1;
    case FaultReason.ADDRESS_WIDTH:
    case FaultReason.NOT_PRESENT:
    case FaultReason.NO_READ:
    case FaultReason.NO_WRITE:
    case FaultReason.RESERVED_RANGE:
      return 2;
    case FaultReason.NONE:
    case FaultReason.RESERVED_BITS:
    case FaultReason.TABLE_ACCESS:
      return 0;
    default:
      return unreachable(reason);
  }
}

/** One refused DMA. */
export interface FaultRecord {
  reason: FaultReason;
  /** Requester: bus << 8 | devfn. */
  rid: number;
  /** PASID, or `NO_PASID`. */
  pasid: number;
  iovaPfn: number;
  /** Bits of `Prot`: what was attempted. */
  access: number;
}

/** A fresh record for {@link FaultQueue.take}. */
export function createFaultRecord(): FaultRecord {
  return { reason: FaultReason.NONE, rid: 0, pasid: NO_PASID, iovaPfn: 0, access: Prot.READ };
}

/** A ring of fault records; what comes while it is full is counted and lost. */
export class FaultQueue {
  readonly capacity: number;
  readonly #reasons: Uint8Array;
  readonly #rids: Int32Array;
  readonly #pasids: Int32Array;
  readonly #pfns: Float64Array;
  readonly #accesses: Uint8Array;
  #first = 0;
  #count = 0;
  #recorded = 0;
  #lost = 0;

  /** @param capacity - number of records it can hold, 1 … 65536 */
  constructor(capacity: number) {
    assert(capacity >= 1 && capacity <= 65536, "a fault queue holds 1 … 65536 records");
    this.capacity = capacity;
    this.#reasons = new Uint8Array(capacity);
    this.#rids = new Int32Array(capacity);
    this.#pasids = new Int32Array(capacity);
    this.#pfns = new Float64Array(capacity);
    this.#accesses = new Uint8Array(capacity);
  }

  /** Records waiting to be taken. */
  get count(): number {
    return this.#count;
  }

  /** Faults ever recorded. */
  get recorded(): number {
    return this.#recorded;
  }

  /** Faults lost because the queue was full. */
  get lost(): number {
    return this.#lost;
  }

  /** Records a fault. @returns false when it was lost */
  put(reason: FaultReason, rid: number, pasid: number, iovaPfn: number, access: number): boolean {
    if (this.#count === this.capacity) {
      this.#lost += 1;
      return false;
    }
    const at = (this.#first + this.#count) % this.capacity;
    this.#reasons[at] = reason;
    this.#rids[at] = rid;
    this.#pasids[at] = pasid;
    this.#pfns[at] = iovaPfn;
    this.#accesses[at] = access;
    this.#count += 1;
    this.#recorded += 1;
    return true;
  }

  /** Takes the oldest record out. @returns false when there is none */
  take(out: FaultRecord): boolean {
    if (this.#count === 0) return false;
    const at = this.#first;
    out.reason = this.#reasons[at] as FaultReason;
    out.rid = this.#rids[at]!;
    out.pasid = this.#pasids[at]!;
    out.iovaPfn = this.#pfns[at]!;
    out.access = this.#accesses[at]!;
    this.#first = (at + 1) % this.capacity;
    this.#count -= 1;
    return true;
  }
}
