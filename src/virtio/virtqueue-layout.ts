/**
 * The split virtqueue's layout in memory: where its three parts lie, how large they are, and the
 * typed reasons for which a queue is refused or breaks.
 *
 * Source: virtio specification 1.3, "Split Virtqueues" (split-ring.tex).
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import { isPowerOfTwo } from "../units.ts";

/** Flags of a descriptor. */
export const DescriptorFlag = { NEXT: 1, WRITE: 2, INDIRECT: 4 } as const;

/** Bit 0 of the driver area's flags: the device should not interrupt. */
export const NO_INTERRUPT = 1;
/** Bit 0 of the device area's flags: the driver should not notify. */
export const NO_NOTIFY = 1;
/** Size of a descriptor. */
export const DESCRIPTOR_BYTES = 16;
/** Largest number of descriptors a queue may have. */
export const QUEUE_SIZE_MAX = 32_768;
/** A chain may describe at most this many bytes. */
export const CHAIN_BYTES_MAX = 2 ** 32;

/** Where a queue's parts lie: byte addresses, −1 for one that cannot be memory. */
export interface QueueAreas {
  /** Number of descriptors. */
  readonly size: number;
  /** Descriptor table. */
  readonly descriptor: number;
  /** Driver area, with the available ring. */
  readonly driver: number;
  /** Device area, with the used ring. */
  readonly device: number;
}

/** What both sides agreed on. */
export interface QueueFeatures {
  /** VIRTIO_F_INDIRECT_DESC. */
  readonly indirect: boolean;
  /** VIRTIO_F_EVENT_IDX. */
  readonly eventIndex: boolean;
}

/** Why a queue is refused or broken. */
export type QueueFaultReason =
  | "size"
  | "misaligned"
  | "ring-outside-memory"
  | "available-index"
  | "too-many-in-flight"
  | "head-range"
  | "next-range"
  | "chain-too-long"
  | "chain-bytes"
  | "readable-after-writable"
  | "buffer-outside-memory"
  | "indirect-not-negotiated"
  | "indirect-with-next"
  | "indirect-nested"
  | "indirect-length"
  | "indirect-outside-memory"
  | "used-index"
  | "used-id";

/** A broken queue's reason and place. */
export interface QueueFault {
  readonly reason: QueueFaultReason;
  /** The queue's own position in the other side's ring when it broke, 0 … 65535. */
  readonly position: number;
  /** The offending value: a descriptor's index, an id, a length. */
  readonly value: number;
}

/** Bytes of a descriptor table. */
export function descriptorBytes(size: number): number {
  return DESCRIPTOR_BYTES * size;
}

/** Bytes of a driver area, `used_event` included. */
export function driverBytes(size: number): number {
  return 6 + 2 * size;
}

/** Bytes of a device area, `avail_event` included. */
export function deviceBytes(size: number): number {
  return 6 + 8 * size;
}

/** Says what is wrong with a queue's size or the alignment of its parts, or null. */
export function shapeFault(areas: QueueAreas, sizeMax: number): QueueFaultReason | null {
  const { size, descriptor, driver, device } = areas;
  if (!Number.isInteger(size) || !isPowerOfTwo(size) || size > sizeMax || size > QUEUE_SIZE_MAX)
    return "size";
  if (!(descriptor >= 0 && driver >= 0 && device >= 0)) return "ring-outside-memory";
  const isAligned = descriptor % 16 === 0 && driver % 2 === 0 && device % 4 === 0;
  return isAligned ? null : "misaligned";
}

/**
 * Says what is wrong with a queue's placement.
 *
 * @param sizeMax - largest size that was offered
 * @returns null when the queue can be used
 */
export function areasFault(
  memory: DeviceMemory,
  areas: QueueAreas,
  sizeMax: number,
): QueueFaultReason | null {
  const reason = shapeFault(areas, sizeMax);
  if (reason !== null) return reason;
  const { size, descriptor, driver, device } = areas;
  // Behind an IOMMU the ring may be mapped later, and until then the queue waits.
  const isInside =
    memory.isTranslated ||
    (memory.contains(descriptor, descriptorBytes(size)) &&
      memory.contains(driver, driverBytes(size)) &&
      memory.contains(device, deviceBytes(size)));
  return isInside ? null : "ring-outside-memory";
}

/** Areas placed one after the other from `start` on, as a driver lays them out. */
export function layOutAreas(start: number, size: number): QueueAreas & { readonly end: number } {
  const descriptor = Math.ceil(start / 16) * 16;
  const driver = descriptor + descriptorBytes(size);
  const device = Math.ceil((driver + driverBytes(size)) / 4) * 4;
  return { size, descriptor, driver, device, end: device + deviceBytes(size) };
}

/** Whether passing from `old` to `now` stepped over the index `event`. All are 0 … 65535. */
export function passedEvent(event: number, now: number, old: number): boolean {
  return ((now - event - 1) & 0xffff) < ((now - old) & 0xffff);
}
