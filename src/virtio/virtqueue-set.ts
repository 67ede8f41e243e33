/**
 * The queues of one device and the state that is common to them: whether the driver is ready, and
 * whether the device needs a reset because a queue broke.
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import { DeviceQueue } from "./virtqueue-device.ts";
import type { QueueFault } from "./virtqueue-layout.ts";

/** A broken queue of a device. */
export interface DeviceFault {
  readonly queueIndex: number;
  readonly fault: QueueFault;
}

/** A device's queues. */
export class DeviceQueues {
  readonly queues: readonly DeviceQueue[];
  /** The first fault since the last reset: status bit DEVICE_NEEDS_RESET. */
  fault: DeviceFault | null = null;
  #isLive = false;

  /**
   * @param sizesMax - largest size of each queue
   * @param onFault - told of the first fault: with DRIVER_OK a configuration change is signalled
   */
  constructor(
    memory: DeviceMemory,
    sizesMax: readonly number[],
    onFault: ((fault: DeviceFault) => void) | null = null,
  ) {
    this.queues = sizesMax.map(
      (sizeMax, queueIndex) =>
        new DeviceQueue(memory, sizeMax, (fault) => {
          if (this.fault !== null) return;
          this.fault = { queueIndex, fault };
          for (const queue of this.queues) queue.isLive = false;
          onFault?.(this.fault);
        }),
    );
  }

  /** Whether the driver said DRIVER_OK and no queue is broken. */
  get isLive(): boolean {
    return this.#isLive && this.fault === null;
  }

  /** The driver said DRIVER_OK. */
  start(): void {
    this.#isLive = true;
    for (const queue of this.queues) queue.isLive = this.fault === null;
  }

  /** A device reset: every queue is disabled and nothing is live. */
  reset(): void {
    this.#isLive = false;
    this.fault = null;
    for (const queue of this.queues) {
      queue.disable();
      queue.isLive = false;
    }
  }

  /**
   * The queue that a notification names.
   *
   * @param queueIndex - any value a driver wrote
   * @returns null when the notification is to be ignored
   */
  notified(queueIndex: number): DeviceQueue | null {
    if (!this.isLive) return null;
    const queue = this.queues[queueIndex];
    return queue?.isEnabled ? queue : null;
  }
}
