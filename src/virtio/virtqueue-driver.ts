/**
 * The driver's side of a split virtqueue: adds buffers, directly or through an indirect table,
 * decides whether to notify, and takes back what the device used. The device may be hostile: an
 * entry that names no outstanding buffer breaks the queue.
 *
 * Source: virtio specification 1.3, "Split Virtqueues"; drivers/virtio/virtio_ring.c for the choice
 * of indirect tables and the order of steps.
 */
import { assert } from "../errors.ts";
import type { DeviceMemory } from "../memory/device-memory.ts";
import { WINDOW_BYTES_MAX } from "../memory/guest-memory.ts";
import {
  areasFault,
  DESCRIPTOR_BYTES,
  DescriptorFlag,
  NO_INTERRUPT,
  NO_NOTIFY,
  passedEvent,
  QUEUE_SIZE_MAX,
  type QueueAreas,
  type QueueFault,
  type QueueFaultReason,
} from "./virtqueue-layout.ts";
import { SplitRing } from "./virtqueue-ring.ts";
import type { SegmentList } from "./virtqueue-segments.ts";

const { NEXT, WRITE, INDIRECT } = DescriptorFlag;

/** What {@link DriverQueue.add} gives instead of a head. */
export const ADD_FULL = -1;
export const ADD_BROKEN = -2;
/** What {@link DriverQueue.getUsed} gives instead of a head. */
export const USED_NONE = -1;
export const USED_BROKEN = -2;

/** How a driver's queue is set up. */
export interface DriverQueueOptions {
  readonly areas: QueueAreas;
  readonly eventIndex: boolean;
  /** Memory for one table of `entries` per descriptor, when INDIRECT_DESC is agreed on. */
  readonly indirect: { readonly start: number; readonly entries: number } | null;
  /** Where the device finds a table, for a device behind an IOMMU; at its own address if absent. */
  readonly mapTable?: (address: number, bytes: number) => number;
  /** Whether the driver wants interrupts; a queue without polls. */
  readonly callbacks: boolean;
}

/** One queue of a driver. Heads name outstanding buffers, 0 … size − 1. */
export class DriverQueue {
  readonly size: number;
  /** Why the queue broke, or null. */
  fault: QueueFault | null = null;
  /** After {@link getUsed}: bytes the device claims to have written, 0 … 2^32 − 1. */
  usedLength = 0;
  readonly #memory: DeviceMemory;
  readonly #options: DriverQueueOptions;
  readonly #ring: SplitRing;
  /** The free list and, for outstanding heads, the chain. */
  readonly #next: Uint16Array;
  /** Descriptors an outstanding head occupies; 0 marks a head that is not outstanding. */
  readonly #count: Uint16Array;
  #freeHead = 0;
  #freeCount: number;
  #position = 0;
  #usedPosition = 0;
  #unkicked = 0;

  /** Clears the rings. The areas must pass {@link driverQueueFault}. */
  constructor(memory: DeviceMemory, options: DriverQueueOptions) {
    assert(driverQueueFault(memory, options) === null, "a driver's queue lies in memory");
    this.#memory = memory;
    this.#options = options;
    this.size = options.areas.size;
    this.#ring = new SplitRing(memory, options.areas);
    this.#next = new Uint16Array(this.size);
    this.#count = new Uint16Array(this.size);
    for (let index = 0; index < this.size; index += 1) this.#next[index] = index + 1;
    this.#freeCount = this.size;
    this.#clear();
  }

  /** Descriptors that are free. */
  get freeCount(): number {
    return this.#freeCount;
  }

  /** The head that the next successful {@link add} returns. Meaningful while any is free. */
  get nextHead(): number {
    return this.#freeHead;
  }

  /** Buffers the device holds. */
  get outstandingDescriptors(): number {
    return this.size - this.#freeCount;
  }

  /** The driver's position in the available ring, 0 … 65535. */
  get position(): number {
    return this.#position;
  }

  /** Whether a list of `count` buffers goes through an indirect table; none exceeds the queue. */
  usesIndirect(count: number): boolean {
    const indirect = this.#options.indirect;
    return indirect !== null && count > 1 && count <= indirect.entries && count <= this.size;
  }

  /**
   * Makes a list of buffers available to the device. No notification.
   *
   * @param list - at least one buffer
   * @returns the head, `ADD_FULL`, or `ADD_BROKEN`
   */
  add(list: SegmentList): number {
    const count = list.count;
    assert(count > 0, "a request has a buffer");
    const ring = this.#ring;
    if (this.fault !== null || !ring.isUsable()) return ADD_BROKEN;
    const isIndirect = this.usesIndirect(count);
    const needed = isIndirect ? 1 : count;
    if (needed > this.#freeCount) return ADD_FULL;
    const head = this.#freeHead;
    if (isIndirect) {
      const table = this.#writeTable(head, list);
      if (table < 0) return ADD_BROKEN;
      const bytes = count * DESCRIPTOR_BYTES;
      const address = this.#options.mapTable?.(table, bytes) ?? table;
      this.#writeDescriptor(head, address >>> 0, Math.floor(address / 2 ** 32), bytes, INDIRECT);
      this.#freeHead = this.#next[head]!;
    } else {
      let index = head;
      for (let at = 0; at < count; at += 1) {
        const next = this.#next[index]!;
        const isLast = at + 1 === count;
        const flags = (at >= list.readableCount ? WRITE : 0) | (isLast ? 0 : NEXT | (next << 16));
        const low = list.lows[at]!;
        this.#writeDescriptor(index, low, list.highs[at]!, list.lengths[at]!, flags);
        index = next;
      }
      this.#freeHead = index;
    }
    this.#freeCount -= needed;
    this.#count[head] = needed;
    ring.storeAvailableEntry(this.#position, head);
    this.#position = (this.#position + 1) & 0xffff;
    ring.storeAvailableIndex(this.#position);
    this.#unkicked += 1;
    return head;
  }

  /**
   * Decides whether the device must be notified of what was added since this was last asked.
   * Without EVENT_IDX the device's flag alone decides, even when nothing was added.
   */
  needsKick(): boolean {
    const ring = this.#ring;
    if (this.fault !== null || !ring.isUsable()) return false;
    const added = this.#unkicked;
    this.#unkicked = 0;
    if (!this.#options.eventIndex) return (ring.deviceFlags() & NO_NOTIFY) === 0;
    const old = (this.#position - added) & 0xffff;
    return added > 0xffff || passedEvent(ring.availableEvent(), this.#position, old);
  }

  /**
   * Takes a buffer back from the device; `usedLength` then holds what it claims to have written.
   *
   * @returns the head, `USED_NONE`, or `USED_BROKEN`
   */
  getUsed(): number {
    const ring = this.#ring;
    if (this.fault !== null) return USED_BROKEN;
    if (!ring.isUsable()) return USED_NONE;
    const position = this.#usedPosition;
    const pending = (ring.usedIndex() - position) & 0xffff;
    if (pending === 0) return USED_NONE;
    if (pending > this.size) return this.#break("used-index", pending);
    const head = ring.usedId(position);
    const length = ring.usedLength(position);
    if (head >= this.size || this.#count[head] === 0) return this.#break("used-id", head);
    this.#release(head);
    this.#usedPosition = (position + 1) & 0xffff;
    this.usedLength = length;
    if (this.#options.callbacks && this.#options.eventIndex)
      ring.storeUsedEvent(this.#usedPosition);
    return head;
  }

  /** Whether the device used a buffer that was not taken back yet. */
  hasUsed(): boolean {
    const ring = this.#ring;
    return this.fault === null && ring.isUsable() && ring.usedIndex() !== this.#usedPosition;
  }

  #release(head: number): void {
    const count = this.#count[head]!;
    this.#count[head] = 0;
    let last = head;
    for (let step = 1; step < count; step += 1) last = this.#next[last]!;
    this.#next[last] = this.#freeHead;
    this.#freeHead = head;
    this.#freeCount += count;
  }

  /** @param lastWord - flags in the low half, the next descriptor in the high half */
  #writeDescriptor(
    index: number,
    low: number,
    high: number,
    length: number,
    lastWord: number,
  ): void {
    const ring = this.#ring;
    const at = ring.descriptorAt(index);
    writeDescriptor(ring.table, at, low, high, length, lastWord);
  }

  /** @returns the table's address, or −1 when its memory is gone */
  #writeTable(head: number, list: SegmentList): number {
    const { start, entries } = this.#options.indirect!;
    const address = start + head * entries * DESCRIPTOR_BYTES;
    const view = this.#memory.locate(address, list.count * DESCRIPTOR_BYTES, true);
    if (view === null) return -1;
    const word = this.#memory.at >> 2;
    for (let at = 0; at < list.count; at += 1) {
      const isLast = at + 1 === list.count;
      const flags = (at >= list.readableCount ? WRITE : 0) | (isLast ? 0 : NEXT | ((at + 1) << 16));
      const low = list.lows[at]!;
      writeDescriptor(view.u32, word + 4 * at, low, list.highs[at]!, list.lengths[at]!, flags);
    }
    return address;
  }

  #clear(): void {
    const ring = this.#ring;
    assert(ring.isUsable(), "a new queue's ring is accessible");
    ring.storeDriverFlags(!this.#options.callbacks && !this.#options.eventIndex ? NO_INTERRUPT : 0);
    ring.storeAvailableIndex(0);
    ring.storeUsedEvent(0);
    ring.storeDeviceFlags(0);
    ring.storeUsedIndex(0);
    ring.storeAvailableEvent(0);
  }

  #break(reason: QueueFaultReason, value: number): typeof USED_BROKEN {
    this.fault = { reason, position: this.#usedPosition, value };
    return USED_BROKEN;
  }
}

/** Says what is wrong with a queue's placement; null when it can be used. */
export function driverQueueFault(
  memory: DeviceMemory,
  options: DriverQueueOptions,
): QueueFaultReason | null {
  const { areas, indirect } = options;
  const reason = areasFault(memory, areas, QUEUE_SIZE_MAX);
  if (reason !== null || indirect === null) return reason;
  if (indirect.start % DESCRIPTOR_BYTES !== 0) return "misaligned";
  const bytes = areas.size * indirect.entries * DESCRIPTOR_BYTES;
  const isInside = bytes <= WINDOW_BYTES_MAX && memory.window(indirect.start, bytes, true) !== null;
  return isInside ? null : "indirect-outside-memory";
}

function writeDescriptor(
  words: Uint32Array,
  at: number,
  low: number,
  high: number,
  length: number,
  lastWord: number,
): void {
  words[at] = low;
  words[at + 1] = high;
  words[at + 2] = length;
  words[at + 3] = lastWord;
}
