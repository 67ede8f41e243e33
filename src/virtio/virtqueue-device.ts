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
import { type DeviceMemory, SegmentCollector } from "../memory/device-memory.ts";
import { copyBetween, type MemoryView } from "../memory/memory-view.ts";
import { ChainReader } from "./virtqueue-chain.ts";
import {
  areasFault,
  NO_INTERRUPT,
  NO_NOTIFY,
  passedEvent,
  type QueueAreas,
  type QueueFault,
  type QueueFaultReason,
  type QueueFeatures,
  shapeFault,
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

const TWO_32 = 2 ** 32;

/** One queue of a device. */
export class DeviceQueue {
  readonly memory: DeviceMemory;
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
  readonly #reader = new ChainReader();
  /** Where a reply goes that does not start with the writable part. */
  readonly #place = new SegmentCollector();
  /** Completions that wait for an unmapped ring, as pairs of head and length. */
  #waiting: number[] = [];

  /** @param onFault - told once when the queue breaks: the device needs a reset */
  constructor(
    memory: DeviceMemory,
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

  /** Whether a part of the ring cannot be found in memory at the moment. */
  get isPaused(): boolean {
    return this.#ring !== null && !this.#ring.isUsable();
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
    if (!ring.isPaged && !ring.isUsable()) return "ring-outside-memory";
    this.#start(ring, features, startAt);
    return null;
  }

  /**
   * Takes over a ring that was in use, at the position that the used ring itself shows: as right
   * after a crash as after a hand-over, for a device that completes in order.
   *
   * @param positionSaved - counts while the ring is not to be found in memory
   * @returns null, or why the queue stays disabled
   */
  resume(
    areas: QueueAreas,
    features: QueueFeatures,
    positionSaved: number,
  ): QueueFaultReason | null {
    const reason = shapeFault(areas, this.sizeMax);
    if (reason !== null) return reason;
    const ring = new SplitRing(this.memory, areas);
    this.#start(ring, features, ring.isUsable() ? ring.usedIndex() : positionSaved);
    return null;
  }

  #start(ring: SplitRing, features: QueueFeatures, startAt: number): void {
    this.disable();
    this.#ring = ring;
    this.#features = features;
    this.#size = ring.size;
    this.#position = startAt;
    this.#usedPosition = startAt;
    this.#signalled = startAt;
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
    const reader = this.#reader;
    if (!reader.read(ring, head, this.#features.indirect, chain))
      return this.#break(reader.reason, reader.value);
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
   * @returns bytes copied, or −1 when memory went away, which breaks the queue, or when an IOMMU
   *   refused, which does not: then the request is to fail
   */
  gather(chain: Chain, target: MemoryView): number {
    const capacity = target.u8.length;
    let done = 0;
    for (let index = 0; index < chain.readableCount; index += 1) {
      let count = capacity - done;
      if (chain.lengths[index]! < count) count = chain.lengths[index]! | 0;
      const low = chain.lows[index]!;
      if (!this.memory.copyOutHalves(low, chain.highs[index]!, target, done, count)) {
        this.#refused(chain);
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
   * @returns false when memory went away or an IOMMU refused, as {@link gather}
   */
  scatter(chain: Chain, source: MemoryView, length: number): boolean {
    assert(length <= chain.writableBytes, "a reply fits the writable part");
    let done = 0;
    for (let index = chain.readableCount; done < length; index += 1) {
      let count = length - done;
      if (chain.lengths[index]! < count) count = chain.lengths[index]! | 0;
      const low = chain.lows[index]!;
      if (!this.memory.copyInHalves(low, chain.highs[index]!, source, done, count)) {
        this.#refused(chain);
        return false;
      }
      done += count;
    }
    return true;
  }

  /**
   * Copies `length` bytes of `source` into the writable part from its byte `from` on.
   *
   * @param from - with `length` at most the chain's `writableBytes`
   * @returns false when memory went away or an IOMMU refused, as {@link gather}
   */
  scatterAt(chain: Chain, from: number, source: MemoryView, length: number): boolean {
    this.#place.clear();
    if (!this.collect(chain, from, length, true, this.#place)) return false;
    let done = 0;
    for (const { view, at, bytes } of this.#place.segments) {
      copyBetween(source, done, view, at, bytes);
      done += bytes;
    }
    return true;
  }

  /**
   * Appends the pieces of a stretch of the readable or writable part to a list.
   *
   * @param from - with `length` at most the bytes of that part
   * @returns false when memory went away or an IOMMU refused, as {@link gather}
   */
  collect(
    chain: Chain,
    from: number,
    length: number,
    isWritable: boolean,
    into: SegmentCollector,
  ): boolean {
    assert(
      from + length <= (isWritable ? chain.writableBytes : chain.readableBytes),
      "a stretch lies in its part of the chain",
    );
    let index = isWritable ? chain.readableCount : 0;
    let skip = from;
    while (length > 0 && skip >= chain.lengths[index]!) {
      skip -= chain.lengths[index]!;
      index += 1;
    }
    for (let left = length; left > 0; index += 1) {
      const count = Math.min(left, chain.lengths[index]! - skip);
      const low = chain.lows[index]! + skip;
      const high = low >= TWO_32 ? chain.highs[index]! + 1 : chain.highs[index]!;
      // A buffer behind an IOMMU may claim to go on past the end of the 64-bit space.
      const isInSpace = high <= 0xffff_ffff;
      if (!isInSpace || !this.memory.collect(low >>> 0, high, count, isWritable, into)) {
        this.#refused(chain);
        return false;
      }
      left -= count;
      skip = 0;
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
    ring.storeUsedEntry(this.#usedPosition, head, length);
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

  /** A buffer could not be reached: outside guest memory that is the driver's mistake. */
  #refused(chain: Chain): void {
    if (!this.memory.isTranslated) this.#break("buffer-outside-memory", chain.head);
  }

  #break(reason: QueueFaultReason, value: number): typeof Pop.BROKEN {
    if (this.fault === null) {
      this.fault = { reason, position: this.#position, value };
      this.#onFault?.(this.fault);
    }
    return Pop.BROKEN;
  }
}
