/**
 * Fault records on their way to the event queue: a bounded ring that drops the newest.
 *
 * Source: virtio specification 1.3, "IOMMU device", "Fault reporting"; V117–V123. A driver of an
 * endpoint can cause faults at the speed of DMA, so a record that finds the ring full is counted and
 * forgotten; neither the request queue nor the endpoint ever waits.
 */
import { FaultFlag, FaultRecord } from "./protocol.ts";

/** Bytes of a record on the wire. */
export const FAULT_BYTES = FaultRecord.bytes;

/** The ring. */
export class FaultLog {
  /** Records that found the ring full. */
  dropped = 0;
  readonly #capacity: number;
  readonly #reasons: Uint8Array;
  readonly #flags: Uint16Array;
  readonly #endpoints: Uint32Array;
  readonly #pfns: Float64Array;
  readonly #offsets: Uint16Array;
  #first = 0;
  #count = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
    this.#reasons = new Uint8Array(capacity);
    this.#flags = new Uint16Array(capacity);
    this.#endpoints = new Uint32Array(capacity);
    this.#pfns = new Float64Array(capacity);
    this.#offsets = new Uint16Array(capacity);
  }

  /** Records that wait. */
  get count(): number {
    return this.#count;
  }

  /**
   * Appends a record.
   *
   * @param access - READ and WRITE bits of {@link FaultFlag}: what was attempted
   */
  push(reason: number, access: number, endpoint: number, pfn: number, offset: number): void {
    if (this.#count === this.#capacity) {
      this.dropped += 1;
      return;
    }
    const at = (this.#first + this.#count) % this.#capacity;
    this.#reasons[at] = reason;
    this.#flags[at] = access | FaultFlag.ADDRESS;
    this.#endpoints[at] = endpoint;
    this.#pfns[at] = pfn;
    this.#offsets[at] = offset;
    this.#count += 1;
  }

  /** Writes the oldest record out, reserved fields zero; the log must not be empty. */
  encodeFirst(view: DataView): void {
    const at = this.#first;
    view.setBigUint64(0, 0n);
    view.setBigUint64(8, 0n);
    FaultRecord.set.reason(view, 0, this.#reasons[at]!);
    FaultRecord.set.flags(view, 0, this.#flags[at]!);
    FaultRecord.set.endpoint(view, 0, this.#endpoints[at]!);
    FaultRecord.setAddress.address(view, 0, this.#pfns[at]!, this.#offsets[at]!);
  }

  /** Forgets the oldest record. */
  removeFirst(): void {
    if (this.#count === 0) return;
    this.#first = (this.#first + 1) % this.#capacity;
    this.#count -= 1;
  }

  /** Forgets everything. */
  clear(): void {
    this.#first = 0;
    this.#count = 0;
  }
}
