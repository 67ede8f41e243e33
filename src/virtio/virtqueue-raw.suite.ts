/**
 * A driver that writes whatever a test tells it to into the rings, straight to guest memory: the
 * hostile other side in the tests of the device's queue.
 */
import { expect } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { layOutAreas, type QueueAreas, type QueueFault } from "./virtqueue-layout.ts";
import { Chain } from "./virtqueue-segments.ts";

/** First byte of the memory that holds rings. */
export const RINGS = 0x10_0000;
/** First byte of the memory for buffers and tables. */
export const BUFFERS = 0x20_0000;
/** Bytes of each of the two. */
export const AREA_BYTES = 0x10_0000;

/** Rings in memory with a device on one side and nothing but test code on the other. */
export class RawQueue {
  readonly memory = new GuestMemory();
  readonly areas: QueueAreas;
  readonly device: DeviceQueue;
  readonly chain = new Chain();
  readonly faults: QueueFault[] = [];
  available: number;

  constructor(size: number, options: { indirect?: boolean; event?: boolean; at?: number } = {}) {
    this.memory.addRegion({ start: RINGS, bytes: AREA_BYTES });
    this.memory.addRegion({ start: BUFFERS, bytes: AREA_BYTES });
    this.areas = layOutAreas(RINGS, size);
    this.available = options.at ?? 0;
    this.device = new DeviceQueue(this.memory, 32_768, (fault) => this.faults.push(fault));
    this.device.enable(
      this.areas,
      { indirect: options.indirect ?? false, eventIndex: options.event ?? false },
      this.available,
    );
    this.device.isLive = true;
    this.setAvailable(this.available);
  }

  /** Writes descriptor `index` of the table. */
  descriptor(index: number, address: number, length: number, flags = 0, next = 0): void {
    this.descriptorAt(this.areas.descriptor + 16 * index, address, length, flags, next);
  }

  /** Writes a descriptor anywhere. */
  descriptorAt(at: number, address: number, length: number, flags = 0, next = 0): void {
    this.memory.writeU64(at, address >>> 0, Math.floor(address / 2 ** 32));
    this.memory.writeU32(at + 8, length);
    this.memory.writeU16(at + 12, flags);
    this.memory.writeU16(at + 14, next);
  }

  /** Makes a head available. */
  offer(head: number): void {
    const slot = this.available % this.areas.size;
    this.memory.writeU16(this.areas.driver + 4 + 2 * slot, head);
    this.setAvailable(this.available + 1);
  }

  setAvailable(position: number): void {
    this.available = position & 0xffff;
    this.memory.writeU16(this.areas.driver + 2, this.available);
  }

  setDriverFlags(flags: number): void {
    this.memory.writeU16(this.areas.driver, flags);
  }

  setUsedEvent(position: number): void {
    this.memory.writeU16(this.areas.driver + 4 + 2 * this.areas.size, position);
  }

  get deviceFlags(): number {
    return this.memory.readU16(this.areas.device);
  }

  get usedIndex(): number {
    return this.memory.readU16(this.areas.device + 2);
  }

  get availableEvent(): number {
    return this.memory.readU16(this.areas.device + 4 + 8 * this.areas.size);
  }

  /** The used entry of a position. */
  used(position: number): { id: number; length: number } {
    const at = this.areas.device + 4 + 8 * (position % this.areas.size);
    return { id: this.memory.readU32(at), length: this.memory.readU32(at + 4) };
  }

  fill(address: number, bytes: readonly number[]): void {
    bytes.forEach((byte, index) => {
      this.memory.writeU8(address + index, byte);
    });
  }

  bytes(address: number, count: number): number[] {
    return Array.from({ length: count }, (_, index) => this.memory.readU8(address + index));
  }

  /** Takes a chain and gives the bytes of its readable part; what pop said when there is none. */
  take(): number[] | number {
    const popped = this.device.pop(this.chain);
    if (popped !== 1) return popped;
    const target = newView(4096);
    const count = this.device.gather(this.chain, target);
    return [...target.u8.subarray(0, count)];
  }

  /** Returns the chain taken last with a reply. */
  reply(bytes: readonly number[]): boolean {
    const source = newView(bytes.length);
    source.u8.set(bytes);
    return this.device.reply(this.chain, source, bytes.length);
  }
}

/** A queue of four with one readable and one writable buffer in descriptors 0 and 1. */
export function simpleQueue(
  options: { indirect?: boolean; event?: boolean; at?: number } = {},
): RawQueue {
  const raw = new RawQueue(4, options);
  raw.descriptor(0, BUFFERS, 4, 1, 1);
  raw.descriptor(1, BUFFERS + 0x100, 4, 2);
  raw.fill(BUFFERS, [1, 2, 3, 4]);
  return raw;
}

/** Offers head 0 and gives the reason for which the queue broke. */
export function reasonOf(raw: RawQueue): string | undefined {
  raw.offer(0);
  expect(raw.device.pop(raw.chain)).toBe(Pop.BROKEN);
  expect(raw.device.pop(raw.chain)).toBe(Pop.BROKEN);
  expect(raw.faults).toHaveLength(1);
  expect(raw.usedIndex).toBe(0);
  return raw.device.fault?.reason;
}
