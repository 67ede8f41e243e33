/**
 * What carries a virtio-iommu driver to its device: the registers of a virtio transport in the form
 * a driver uses them, and the one for a device in the same process.
 *
 * Source: virtio specification 1.3, "General Initialization And Device Operation" and "Virtio Over
 * PCI Bus"; rules V185 and V187 of the reference "virtio-iommu".
 */

import { CommonFeature, DeviceStatus } from "../features.ts";
import type { QueueAreas } from "../virtqueue-layout.ts";
import type { DeviceQueues } from "../virtqueue-set.ts";

/** A device as its driver reaches it. */
export interface DriverTransport {
  readStatus(): number;
  /** Writes the status; 0 resets, and returns when the reset is done. */
  writeStatus(status: number): void;
  /** Offered features 32 × word … 32 × word + 31. */
  deviceFeatures(word: 0 | 1): number;
  writeFeatures(word: 0 | 1, features: number): void;
  /** Reads 4 bytes of config space, 0 … 2^32 − 1. */
  readConfig32(offset: number): number;
  /** Largest size of a queue, 0 when it does not exist. */
  queueSizeMax(queueIndex: number): number;
  /** Sets a queue up and enables it. @returns false when the device refuses */
  enableQueue(queueIndex: number, areas: QueueAreas): boolean;
  notify(queueIndex: number): void;
  /**
   * Lets a device that works on its own get on; asked again and again while the driver polls.
   *
   * @returns false when nothing more will come
   */
  wait(queueIndex: number): boolean;
  /** Set by the driver: called when the device interrupts for a queue. */
  onInterrupt: ((queueIndex: number) => void) | null;
}

/** What {@link LocalTransport} needs of a device in the same process. */
export interface LocalDevice {
  readonly queues: DeviceQueues;
  /** Offered features 0 … 31, ring features included. */
  readonly featuresLow: number;
  /** Offered features 32 … 63. */
  readonly featuresHigh: number;
  /** Takes the driver's choice. @returns false to leave FEATURES_OK clear */
  acceptFeatures(low: number, high: number): boolean;
  /** A byte of config space; 0 beyond its end. */
  readConfig(offset: number): number;
  /** Answers what is on a queue. */
  serve(queueIndex: number): void;
  /** Called on a device reset, after the queues were reset. */
  reset(): void;
  /** Set by the transport: to be called for a queue whose `shouldNotify` says so. */
  onInterrupt: ((queueIndex: number) => void) | null;
}

/** A device in the same process, which answers while it is notified. */
export class LocalTransport implements DriverTransport {
  onInterrupt: ((queueIndex: number) => void) | null = null;
  readonly #device: LocalDevice;
  #status = 0;
  #low = 0;
  #high = 0;

  constructor(device: LocalDevice) {
    this.#device = device;
    device.onInterrupt = (queueIndex) => this.onInterrupt?.(queueIndex);
  }

  readStatus(): number {
    const needsReset = this.#device.queues.fault === null ? 0 : DeviceStatus.NEEDS_RESET;
    return this.#status | needsReset;
  }

  writeStatus(status: number): void {
    const device = this.#device;
    if (status === 0) {
      this.#status = 0;
      this.#low = 0;
      this.#high = 0;
      device.queues.reset();
      device.reset();
      return;
    }
    let taken = status | this.#status;
    const isChoice = (status & ~this.#status & DeviceStatus.FEATURES_OK) !== 0;
    if (isChoice && !device.acceptFeatures(this.#low, this.#high))
      taken &= ~DeviceStatus.FEATURES_OK;
    if ((taken & DeviceStatus.FEATURES_OK) === 0) taken &= ~DeviceStatus.DRIVER_OK;
    this.#status = taken;
    if ((taken & DeviceStatus.DRIVER_OK) !== 0) device.queues.start();
  }

  deviceFeatures(word: 0 | 1): number {
    return word === 0 ? this.#device.featuresLow >>> 0 : this.#device.featuresHigh >>> 0;
  }

  writeFeatures(word: 0 | 1, features: number): void {
    if ((this.#status & DeviceStatus.FEATURES_OK) !== 0) return;
    if (word === 0) this.#low = features >>> 0;
    else this.#high = features >>> 0;
  }

  readConfig32(offset: number): number {
    let value = 0;
    for (let index = 3; index >= 0; index -= 1)
      value = value * 256 + this.#device.readConfig(offset + index);
    return value;
  }

  queueSizeMax(queueIndex: number): number {
    return this.#device.queues.queues[queueIndex]?.sizeMax ?? 0;
  }

  enableQueue(queueIndex: number, areas: QueueAreas): boolean {
    const queue = this.#device.queues.queues[queueIndex];
    if (queue === undefined) return false;
    const reason = queue.enable(areas, {
      indirect: (this.#low & CommonFeature.INDIRECT_DESC) !== 0,
      eventIndex: (this.#low & CommonFeature.EVENT_IDX) !== 0,
    });
    return reason === null;
  }

  notify(queueIndex: number): void {
    if (this.#device.queues.notified(queueIndex) !== null) this.#device.serve(queueIndex);
  }

  /** Serves once more, for a device that asked not to be notified; then it has had its chance. */
  wait(queueIndex: number): boolean {
    const queue = this.#device.queues.notified(queueIndex);
    if (queue === null) return false;
    const before = queue.usedPosition;
    this.#device.serve(queueIndex);
    return queue.usedPosition !== before;
  }
}
