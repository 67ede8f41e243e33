/**
 * A driver and a virtio-iommu device in one process: the device behind the transport, and a guest's
 * memory between them. What replay and simulation run on.
 */
import { GuestMemory } from "../../memory/guest-memory.ts";
import { type Meter, NULL_METER } from "../../meter.ts";
import { CommonFeature } from "../features.ts";
import type { DeviceFault, DeviceQueues } from "../virtqueue-set.ts";
import { DeviceQueues as Queues } from "../virtqueue-set.ts";
import { VirtioIommuDevice } from "./device.ts";
import type { IommuConfig } from "./device-config.ts";
import { IommuQueues } from "./device-queue.ts";
import { type Result, ViommuDriver } from "./driver.ts";
import { DriverArea } from "./driver-area.ts";
import { type DriverSettings, LINUX_7_2 } from "./driver-settings.ts";
import { type LocalDevice, LocalTransport } from "./driver-transport.ts";
import { FEATURES_ALL, IommuQueue } from "./protocol.ts";

/** Ring features as QEMU offers them. */
export const RING_FEATURES = CommonFeature.INDIRECT_DESC | CommonFeature.EVENT_IDX;
/** Queue size as QEMU offers it, for both queues. */
export const QUEUE_SIZE = 256;

/** Where the pair's guest memory lies, and how large it is. */
const AREA_START = 0x10_0000;
const AREA_BYTES = 0x10_0000;

/** A virtio-iommu device as {@link LocalTransport} drives it. */
export class LocalIommu implements LocalDevice {
  readonly device: VirtioIommuDevice;
  readonly queues: DeviceQueues;
  readonly featuresLow: number;
  readonly featuresHigh = CommonFeature.VERSION_1;
  onInterrupt: ((queueIndex: number) => void) | null = null;
  readonly #served: IommuQueues;

  constructor(
    device: VirtioIommuDevice,
    memory: GuestMemory,
    options: {
      readonly ringFeatures?: number;
      readonly queueSizes?: readonly [number, number];
      readonly onFault?: (fault: DeviceFault) => void;
    } = {},
  ) {
    this.device = device;
    const { queueSizes = [QUEUE_SIZE, QUEUE_SIZE], onFault = null } = options;
    this.queues = new Queues(memory, queueSizes, onFault);
    this.featuresLow = device.features | (options.ringFeatures ?? RING_FEATURES);
    const [requests, events] = this.queues.queues;
    this.#served = new IommuQueues(device, requests!, events!);
  }

  acceptFeatures(low: number, high: number): boolean {
    if ((high & CommonFeature.VERSION_1) === 0) return false;
    if ((low & ~this.featuresLow) !== 0) return false;
    this.device.negotiate(low & (FEATURES_ALL | this.device.features));
    return true;
  }

  readConfig(offset: number): number {
    return this.device.configBytes()[offset] ?? 0;
  }

  reset(): void {
    this.device.reset();
  }

  serve(queueIndex: number): void {
    if (queueIndex === IommuQueue.REQUEST) {
      const queue = this.#served.requestQueue;
      do this.#served.handleRequests();
      while (!this.device.isStopped && queue.armNotifications());
      if (queue.shouldNotify()) this.onInterrupt?.(IommuQueue.REQUEST);
    }
    this.deliverFaults();
  }

  /** Passes on the fault records that wait; called by whoever let the device translate. */
  deliverFaults(): void {
    const queue = this.#served.eventQueue;
    this.#served.deliverFaults();
    queue.armNotifications();
    if (queue.shouldNotify()) this.onInterrupt?.(IommuQueue.EVENT);
  }
}

/** A driver on a device of its own. */
export interface LocalPair {
  readonly driver: ViommuDriver;
  readonly device: VirtioIommuDevice;
  readonly local: LocalIommu;
  readonly memory: GuestMemory;
}

/**
 * Makes a device and brings a driver up on it.
 *
 * @param options.device - settings of the device: `endpoints` at least
 * @param options.settings - which driver; that of Linux 7.2 when left out
 * @param options.meter - hears of the driver's steps; the device reports to `deviceMeter`
 * @returns an errno when the driver refuses the device
 */
export function startLocalPair(options: {
  readonly device: Partial<IommuConfig>;
  readonly settings?: DriverSettings;
  readonly meter?: Meter;
  readonly deviceMeter?: Meter;
  readonly ringFeatures?: number;
  readonly queueSizes?: readonly [number, number];
}): Result<LocalPair> {
  const memory = new GuestMemory();
  memory.addRegion({ start: AREA_START, bytes: AREA_BYTES });
  const device = new VirtioIommuDevice(options.device, options.deviceMeter ?? NULL_METER);
  const local = new LocalIommu(device, memory, options);
  const started = ViommuDriver.start({
    area: new DriverArea(memory, AREA_START, AREA_BYTES),
    transport: new LocalTransport(local),
    settings: options.settings ?? LINUX_7_2,
    meter: options.meter ?? NULL_METER,
    allocationFails: () => false,
  });
  if (started.errno !== 0) return started;
  return { errno: 0, value: { driver: started.value, device, local, memory } };
}
