/**
 * The device's side of a split virtqueue: takes chains off the available ring, copies them in and
 * out, returns them, and decides about notifications. The driver may be hostile: whatever stands in
 * the rings, each call is bounded, touches only guest memory, and answers with a value. A malformed
 * ring breaks the queue, with the reason in `fault`.
 *
 * Source: virtio specification 1.3, "Split Virtqueues".
 * Budget: 60 ns for a chain of two descriptors, bench/virtqueue.bench.ts.
 */
import { assert } from "../errors.ts";
import { addressOfHalves, type GuestMemory } from "../memory/guest-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import {
  areasFault,
  CHAIN_BYTES_MAX,
  DESCRIPTOR_BYTES,
  DescriptorFlag,
  NO_INTERRUPT,
  NO_NOTIFY,
  passedEvent,
  type QueueAreas,
  type QueueFault,
  type QueueFaultReason,
  type QueueFeatures,
} from "./virtqueue-layout.ts";
import { SplitRing } from "./virtqueue-ring.ts";
import type { Chain } from "./virtqueue-segments.ts";

/** What {@link DeviceQueue.pop} found. */
export const Pop = {
  /** Nothing to do, or the queue is not running. */
  EMPTY: 0,
  /** A chain was taken. */
  CHAIN: 1,
  /** A part of the ring is unmapped at the moment. */
  PAUSED: 2,
  /** The ring is malformed: `fault` says why. The device needs a reset. */
  BROKEN: 3,
} as const;
export type Pop = (typeof Pop)[keyof typeof Pop];

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

/** One queue of a device. */
export class DeviceQueue {
  readonly memory: GuestMemory;
  /** Largest size that is offered to the driver. */
  readonly sizeMax: number;
  /** Set once the driver said DRIVER_OK; see `DeviceQueues`. */
  isLive = false;
  /** Why the queue broke, or null. */
  fault: QueueFault | null = null;
  readonly #onFault: ((fault: QueueFault) => void) | null;
  #ring: SplitRing | null = null;
  #features: QueueFeatures = { indirect: false, eventIndex: false };
  #size = 0;
  #epoch = 0;
  #position = 0;
  #usedPosition = 0;
  #signalled = 0;
  #unsignalled = 0;
  #inFlight = 0;
  /** Indirect tables that lie in more than one piece are read from here. */
  #scratch: MemoryView | null = null;
  /** Completions that wait for an unmapped ring, as pairs of head and length. */
  #waiting: number[] = [];

  /** @param onFault - told once when the queue breaks: the device needs a reset */
  constructor(
    memory: GuestMemory,
    sizeMax: number,
    onFault: ((fault: QueueFault) => void) | null = null,
  ) {
    this.memory = memory;
    this.sizeMax = sizeMax;
    this.#onFault = onFault;
  }

  get isEnabled(): boolean {
    return this.#ring !== null;
  }

  /** Number of descriptors, 0 while disabled. */
  get size(): number {
    return this.#size;
  }

  /** Where the ring lies, null while disabled. */
  get areas(): QueueAreas | null {
    return this.#ring?.areas ?? null;
  }

  /** Chains taken and not yet completed. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Where the device stands in the available ring, 0 … 65535. */
  get position(): number {
    return this.#position;
  }

  /** Where the device stands in the used ring, 0 … 65535. */
  get usedPosition(): number {
    return this.#usedPosition;
  }

  /**
   * Starts to use the ring at the given place.
   *
   * @param startAt - position both rings begin at, for a queue that is taken over
   * @returns null, or why the queue stays disabled
   */
  enable(areas: QueueAreas, features: QueueFeatures, startAt = 0): QueueFaultReason | null {
    const reason = areasFault(this.memory, areas, this.sizeMax);
    if (reason !== null) return reason;
    const ring = new SplitRing(this.memory, areas);
    if (!ring.isUsable()) return "ring-outside-memory";
    this.disable();
    this.#ring = ring;
    this.#features = features;
    this.#size = areas.size;
    this.#position = startAt;
    this.#usedPosition = startAt;
    this.#signalled = startAt;
    return null;
  }

  /** Forgets the ring; chains in flight can no longer be completed. */
  disable(): void {
    this.#ring = null;
    this.#size = 0;
    this.#epoch += 1;
    this.#unsignalled = 0;
    this.#inFlight = 0;
    this.#waiting.length = 0;
    this.fault = null;
  }

  /** Takes the next chain. Its buffers all lie in memory; nothing of them is copied yet. */
  pop(chain: Chain): Pop {
    const ring = this.#ring;
    if (this.fault !== null) return Pop.BROKEN;
    if (ring === null || !this.isLive) return Pop.EMPTY;
    if (!ring.isUsable()) return Pop.PAUSED;
    if (this.#waiting.length > 0) this.#completeWaiting(ring);
    const position = this.#position;
    const pending = (ring.availableIndex() - position) & 0xffff;
    if (pending === 0) return Pop.EMPTY;
    if (pending > this.#size) return this.#break("available-index", pending);
    if (this.#inFlight >= this.#size) return this.#break("too-many-in-flight", this.#inFlight);
    const head = ring.availableEntry(position);
    if (head >= this.#size) return this.#break("head-range", head);
    chain.clear();
    if (!this.#walk(ring, head, chain)) return Pop.BROKEN;
    chain.head = head;
    chain.epoch = this.#epoch;
    this.#position = (position + 1) & 0xffff;
    this.#inFlight += 1;
    return Pop.CHAIN;
  }

  /** Puts the chain popped last back, so that the next pop takes it again. */
  unpop(chain: Chain): void {
    if (chain.epoch !== this.#epoch) return;
    assert(this.#inFlight > 0, "only a popped chain can be put back");
    chain.epoch = -1;
    this.#position = (this.#position - 1) & 0xffff;
    this.#inFlight -= 1;
  }

  /**
   * Copies the readable part into `target`, as far as it fits.
   *
   * @returns bytes copied, or −1 when memory went away, which breaks the queue
   */
  gather(chain: Chain, target: MemoryView): number {
    const capacity = target.u8.length;
    let done = 0;
    for (let index = 0; index < chain.readableCount; index += 1) {
      let count = capacity - done;
      if (chain.lengths[index]! < count) count = chain.lengths[index]! | 0;
      const low = chain.lows[index]!;
      if (!this.memory.copyOutHalves(low, chain.highs[index]!, target, done, count)) {
        this.#break("buffer-outside-memory", chain.head);
        return -1;
      }
      done += count;
      if (done === capacity) break;
    }
    return done;
  }

  /**
   * Copies the first `length` bytes of `source` into the writable part.
   *
   * @param length - at most the chain's `writableBytes`
   * @returns false when memory went away, which breaks the queue
   */
  scatter(chain: Chain, source: MemoryView, length: number): boolean {
    assert(length <= chain.writableBytes, "a reply fits the writable part");
    let done = 0;
    for (let index = chain.readableCount; done < length; index += 1) {
      let count = length - done;
      if (chain.lengths[index]! < count) count = chain.lengths[index]! | 0;
      const low = chain.lows[index]!;
      if (!this.memory.copyInHalves(low, chain.highs[index]!, source, done, count)) {
        this.#break("buffer-outside-memory", chain.head);
        return false;
      }
      done += count;
    }
    return true;
  }

  /**
   * Returns a chain to the driver: the used entry first, then the index that publishes it. While
   * the ring is unmapped the completion is kept, and published when it is back.
   *
   * @param length - bytes written at the start of the writable part
   * @returns false when the chain belongs to an earlier life of the queue or the queue is broken
   */
  complete(chain: Chain, length: number): boolean {
    assert(length <= chain.writableBytes, "the used length is never an overestimate");
    const ring = this.#ring;
    if (ring === null || chain.epoch !== this.#epoch || this.fault !== null) return false;
    chain.epoch = -1;
    this.#inFlight -= 1;
    if (!ring.isUsable()) {
      // Waiting completions hold their place in the bound on chains in flight.
      this.#inFlight += 1;
      this.#waiting.push(chain.head, length);
      return true;
    }
    if (this.#waiting.length > 0) this.#completeWaiting(ring);
    this.#publish(ring, chain.head, length);
    return true;
  }

  /** Copies a reply out and returns the chain. @returns false as the two steps do */
  reply(chain: Chain, source: MemoryView, length: number): boolean {
    return this.scatter(chain, source, length) && this.complete(chain, length);
  }

  /** Whether the driver is to be notified of what was completed since this was last asked. */
  shouldNotify(): boolean {
    const ring = this.#ring;
    if (ring === null || !this.isLive || !ring.isUsable()) return false;
    if (this.#waiting.length > 0) this.#completeWaiting(ring);
    const completed = this.#unsignalled;
    if (completed === 0) return false;
    const old = this.#signalled;
    this.#signalled = this.#usedPosition;
    this.#unsignalled = 0;
    if (!this.#features.eventIndex) return (ring.driverFlags() & NO_INTERRUPT) === 0;
    return completed > 0xffff || passedEvent(ring.usedEvent(), this.#usedPosition, old);
  }

  /** Tells the driver that it need not notify while the device is at work anyway. */
  suppressNotifications(): void {
    const ring = this.#ring;
    if (ring === null || !this.isLive || this.#features.eventIndex || !ring.isUsable()) return;
    ring.storeDeviceFlags(NO_NOTIFY);
  }

  /**
   * Asks the driver to notify of the next request, before the device goes to sleep.
   *
   * @returns true when requests came in meanwhile: handle them, then ask again
   */
  armNotifications(): boolean {
    const ring = this.#ring;
    if (ring === null || !this.isLive || this.fault !== null || !ring.isUsable()) return false;
    if (this.#features.eventIndex) ring.storeAvailableEvent(this.#position);
    else ring.storeDeviceFlags(0);
    return ring.availableIndex() !== this.#position;
  }

  #publish(ring: SplitRing, head: number, length: number): void {
    const at = ring.usedEntryAt(this.#usedPosition);
    ring.used[at] = head;
    ring.used[at + 1] = length;
    this.#usedPosition = (this.#usedPosition + 1) & 0xffff;
    this.#unsignalled += 1;
    ring.storeUsedIndex(this.#usedPosition);
  }

  #completeWaiting(ring: SplitRing): void {
    const waiting = this.#waiting;
    for (let index = 0; index < waiting.length; index += 2) {
      this.#publish(ring, waiting[index]!, waiting[index + 1]!);
      this.#inFlight -= 1;
    }
    waiting.length = 0;
  }

  /** Reads a chain's descriptors, each once, into the list. @returns false when it is malformed */
  #walk(ring: SplitRing, head: number, chain: Chain): boolean {
    const memory = this.memory;
    let words = ring.table;
    let base = ring.tableAt;
    let limit = this.#size;
    let index = head;
    let isIndirect = false;
    // A table's pointer is not counted, its entries are: so a loop ends after `size` steps.
    for (let steps = 0; steps < this.#size; ) {
      const at = base + 4 * index;
      const low = words[at]!;
      const high = words[at + 1]!;
      const length = words[at + 2]!;
      const last = words[at + 3]!;
      const flags = last & 0xffff;
      if ((flags & INDIRECT) !== 0) {
        const reason = this.#indirectFault(length, flags, isIndirect);
        if (reason !== null) return this.#malformed(reason, index);
        const table = this.#tableAt(low, high, length);
        if (table === null) return this.#malformed("indirect-outside-memory", index);
        words = table.u32;
        base = table === this.#scratch ? 0 : memory.at >> 2;
        limit = length / DESCRIPTOR_BYTES;
        index = 0;
        isIndirect = true;
        continue;
      }
      steps += 1;
      const isWritable = (flags & WRITE) !== 0;
      if (!isWritable && chain.count > chain.readableCount)
        return this.#malformed("readable-after-writable", index);
      if (length > 0) {
        if (
          memory.locateHalves(low, high, length, false) === null &&
          !memory.contains(addressOfHalves(low, high), length)
        )
          return this.#malformed("buffer-outside-memory", index);
        chain.addHalves(low, high, length);
        if (isWritable) chain.writableBytes += length;
        else {
          chain.readableBytes += length;
          chain.readableCount += 1;
        }
      }
      if ((flags & NEXT) === 0) {
        if (chain.readableBytes + chain.writableBytes <= CHAIN_BYTES_MAX) return true;
        return this.#malformed("chain-bytes", head);
      }
      index = last >>> 16;
      if (index >= limit) return this.#malformed("next-range", index);
    }
    return this.#malformed("chain-too-long", head);
  }

  #indirectFault(length: number, flags: number, isIndirect: boolean): QueueFaultReason | null {
    if (!this.#features.indirect) return "indirect-not-negotiated";
    if (isIndirect) return "indirect-nested";
    if ((flags & NEXT) !== 0) return "indirect-with-next";
    if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return "indirect-length";
    return length > DESCRIPTOR_BYTES * this.#size ? "indirect-length" : null;
  }

  /** An indirect table in one piece, at `memory.at`, or a copy of it; null outside memory. */
  #tableAt(low: number, high: number, length: number): MemoryView | null {
    const view = this.memory.locateHalves(low, high, length, false);
    if (view !== null && (this.memory.at & 3) === 0) return view;
    if (!this.memory.contains(addressOfHalves(low, high), length)) return null;
    if (this.#scratch === null || this.#scratch.u8.length < length) this.#scratch = newView(length);
    const isCopied = this.memory.copyOutHalves(low, high, this.#scratch, 0, length);
    assert(isCopied, "the table was checked to lie in memory");
    return this.#scratch;
  }

  #malformed(reason: QueueFaultReason, value: number): false {
    this.#break(reason, value);
    return false;
  }

  #break(reason: QueueFaultReason, value: number): typeof Pop.BROKEN {
    if (this.fault === null) {
      this.fault = { reason, position: this.#position, value };
      this.#onFault?.(this.fault);
    }
    return Pop.BROKEN;
  }
}
