/**
 * What a virtio device is to its transport: a type with features, config space and queues. The
 * transport keeps registers, status, queues and interrupts; the device does the work.
 */
import type { DeviceQueues } from "../virtqueue-set.ts";

/** The transport as a device sees it. */
export interface VirtioHost {
  readonly queues: DeviceQueues;
  /** Notes that a queue has work, as if it had been notified; done by the next turn of work. */
  wake(queueIndex: number): void;
  /** Interrupts for what was completed on a queue since the last time, if the driver wants that. */
  completed(queueIndex: number): void;
  /** Tells the driver that config space changed. */
  configChanged(): void;
}

/**
 * What came of a turn of work on a queue: `more` could be done at once; `done` with what is there,
 * so the driver is asked to notify of the next request; `waiting` for something else than the
 * driver, and the device wakes the queue then.
 */
export type WorkOutcome = "more" | "done" | "waiting";

/** A device without its transport. */
export interface VirtioDevice {
  /** Virtio device type. */
  readonly type: number;
  /** PCI class, subclass and programming interface. */
  readonly classCode: number;
  /** Features offered, 0 … 31 and 32 … 63; the transport adds its own. */
  readonly featuresLow: number;
  readonly featuresHigh: number;
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** Size of config space. */
  readonly configBytes: number;
  /** Changes with what {@link save} gives. */
  readonly revision: number;

  /** Called once, before anything else. */
  attach(host: VirtioHost): void;
  /** The driver's choice out of what is offered. @returns false to refuse it */
  acceptFeatures(low: number, high: number): boolean;
  /** A byte of config space, 0 … configBytes − 1. */
  readConfig(offset: number): number;
  /** A driver's write; offset and length lie inside. */
  writeConfig(offset: number, bytes: Uint8Array): void;
  /** Does some of what is on a queue that is live, a few milliseconds' worth at most. */
  work(queueIndex: number): WorkOutcome;
  /** A queue alone is reset: nothing of it may be completed any more. */
  resetQueue(queueIndex: number): void;
  /** The driver reset the device. */
  reset(): void;
  /** The machine was reset. */
  systemReset(): void;
  /** State beside registers and queues, as plain data. */
  save(): unknown;
  /** @throws StackError `pci/state` when it does not fit */
  restore(state: unknown): void;
  /** After {@link restore}, when the queues are where they were and nothing has moved yet. */
  resumed?(): void;
}
