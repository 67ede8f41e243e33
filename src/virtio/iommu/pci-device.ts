/**
 * The virtio-iommu device at a transport: its queues worked in bounded turns, faults delivered, its
 * state saved.
 *
 * Source: virtio specification 1.3, "IOMMU device". A driver waits for its requests with interrupts
 * off and looks at the used ring only (V153, V193), so a turn is short.
 */
import { CommonFeature } from "../features.ts";
import type { VirtioDevice, VirtioHost, WorkOutcome } from "../pci/virtio-device.ts";
import type { VirtioIommuDevice } from "./device.ts";
import { IommuQueues, type RequestLog } from "./device-queue.ts";
import { Config, IommuQueue, VIRTIO_ID_IOMMU } from "./protocol.ts";

/** PCI class: other base system peripheral, as QEMU has it. */
const IOMMU_CLASS = 0x08_8000;
/** Size of both queues, as QEMU has it. */
const QUEUE_SIZE = 256;
/** Requests of a turn: about a tenth of a millisecond. */
const TURN_REQUESTS = 256;

/** The device as {@link VirtioPci} drives it. */
export class VirtioIommu implements VirtioDevice {
  readonly type = VIRTIO_ID_IOMMU;
  readonly classCode = IOMMU_CLASS;
  readonly featuresLow: number;
  readonly featuresHigh = 0;
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly configBytes = Config.bytes;
  readonly device: VirtioIommuDevice;
  readonly #log: RequestLog | null;
  #queues: IommuQueues | null = null;
  #revision = 0;

  /** @param log - keeps requests for whoever takes over after a crash */
  constructor(device: VirtioIommuDevice, log: RequestLog | null = null) {
    this.device = device;
    this.#log = log;
    this.featuresLow = device.features | CommonFeature.INDIRECT_DESC | CommonFeature.EVENT_IDX;
  }

  /** Changes with attachments and the bypass field; of mappings, listeners of the device hear. */
  get revision(): number {
    return this.#revision;
  }

  attach(host: VirtioHost): void {
    const [requests, events] = host.queues.queues;
    this.#queues = new IommuQueues(this.device, requests!, events!, this.#log);
    this.device.addListener({
      endpointChanged: () => {
        this.#revision += 1;
      },
      faulted: () => host.wake(IommuQueue.EVENT),
    });
  }

  acceptFeatures(low: number): boolean {
    this.device.negotiate(low & this.device.features);
    this.#revision += 1;
    return true;
  }

  readConfig(offset: number): number {
    return this.device.configBytes()[offset]!;
  }

  writeConfig(offset: number, bytes: Uint8Array): void {
    this.device.writeConfig(offset, bytes);
    this.#revision += 1;
  }

  work(queueIndex: number): WorkOutcome {
    const queues = this.#queues!;
    if (queueIndex === IommuQueue.EVENT) {
      queues.deliverFaults();
      // Buffers lie there until a fault needs one; only when none is left the driver is asked.
      return this.device.faults.count > 0 ? "done" : "waiting";
    }
    const count = queues.handleRequests(TURN_REQUESTS);
    if (this.device.isStopped) return "waiting";
    if (queues.isLogFull) {
      // Whoever keeps the log saves the state anew for this, which empties the log.
      this.#revision += 1;
      return "more";
    }
    return count === TURN_REQUESTS ? "more" : "done";
  }

  resetQueue(): void {
    this.#revision += 1;
  }

  reset(): void {
    this.device.reset();
    this.#revision += 1;
  }

  systemReset(): void {
    this.device.systemReset();
    this.#revision += 1;
  }

  save(): unknown {
    return this.device.save();
  }

  restore(state: unknown): void {
    this.device.restore(state);
    this.#revision += 1;
  }

  /** Requests that were answered after the state was saved have their effect again. */
  resumed(): void {
    this.#queues!.replayLog();
  }
}
