/**
 * The driver's event queue: kept full of buffers, which the device fills with fault records.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2: viommu_fill_evtq, viommu_event_handler,
 * viommu_fault_handler; rules V121, V125 and V126 of the reference "virtio-iommu".
 */
import { newView } from "../../memory/memory-view.ts";
import type { DriverQueue } from "../virtqueue-driver.ts";
import { SegmentList } from "../virtqueue-segments.ts";
import type { DriverArea } from "./driver-area.ts";
import type { DriverSettings } from "./driver-settings.ts";
import type { DriverTransport } from "./driver-transport.ts";
import { FaultFlag, FaultReason, FaultRecord, IommuQueue } from "./protocol.ts";

/** A fault that the device reported. */
export interface ReportedFault {
  readonly reason: "unknown" | "domain" | "mapping";
  /** Never an index: the device may say anything. */
  readonly endpoint: number;
  readonly isRead: boolean;
  readonly isWrite: boolean;
  /** The IOVA, when the device gave one. */
  readonly address: bigint | null;
}

/** What became of the records so far. */
export interface EventCounts {
  reported: number;
  /** Longer than a record, shorter with the correction, or with reserved bytes set. */
  ignored: number;
}

/** The event queue of one device. */
export class EventQueue {
  readonly counts: EventCounts = { reported: 0, ignored: 0 };
  readonly #queue: DriverQueue;
  readonly #area: DriverArea;
  readonly #transport: DriverTransport;
  readonly #settings: DriverSettings;
  readonly #start: number;
  readonly #bufferByHead: Uint16Array;
  readonly #list = new SegmentList();
  readonly #record = newView(FaultRecord.bytes);
  readonly #recordData = new DataView(this.#record.u8.buffer);

  /** @returns null when the area is too small */
  static create(
    queue: DriverQueue,
    area: DriverArea,
    transport: DriverTransport,
    settings: DriverSettings,
  ): EventQueue | null {
    const start = area.take(queue.size * FaultRecord.bytes, 8);
    return start < 0 ? null : new EventQueue(queue, area, transport, settings, start);
  }

  private constructor(
    queue: DriverQueue,
    area: DriverArea,
    transport: DriverTransport,
    settings: DriverSettings,
    start: number,
  ) {
    this.#queue = queue;
    this.#area = area;
    this.#transport = transport;
    this.#settings = settings;
    this.#start = start;
    this.#bufferByHead = new Uint16Array(queue.size);
  }

  /** Gives the device as many buffers as the ring holds. */
  fill(): void {
    const count = this.#queue.freeCount;
    for (let buffer = 0; buffer < count; buffer += 1) this.#add(buffer);
    this.#kick();
  }

  /** Takes every record there is, and gives its buffer back in all cases. */
  handle(report: (fault: ReportedFault) => void): void {
    // The device cannot have used more buffers than it was given; what it uses meanwhile waits.
    for (let step = 0; step < this.#queue.size; step += 1) {
      const head = this.#queue.getUsed();
      if (head < 0) break;
      const buffer = this.#bufferByHead[head]!;
      const fault = this.#read(buffer, this.#queue.usedLength);
      this.#add(buffer);
      if (fault === null) this.counts.ignored += 1;
      else {
        this.counts.reported += 1;
        report(fault);
      }
    }
    this.#kick();
  }

  #read(buffer: number, length: number): ReportedFault | null {
    const address = this.#start + buffer * FaultRecord.bytes;
    const { bytes, get } = FaultRecord;
    if (length > bytes) return null;
    if (length < bytes && this.#settings.corrections.eventLength) return null;
    if (!this.#area.memory.copyOut(address, this.#record, 0, bytes)) return null;
    const view = this.#recordData;
    // Reason and reserved bytes share the first word.
    if (view.getUint32(0, true) >>> 8 !== 0) return null;
    const reason = get.reason(view, 0);
    const flags = get.flags(view, 0);
    return {
      reason:
        reason === FaultReason.DOMAIN
          ? "domain"
          : reason === FaultReason.MAPPING
            ? "mapping"
            : "unknown",
      endpoint: get.endpoint(view, 0),
      isRead: (flags & FaultFlag.READ) !== 0,
      isWrite: (flags & FaultFlag.WRITE) !== 0,
      address: (flags & FaultFlag.ADDRESS) === 0 ? null : get.address(view, 0),
    };
  }

  #add(buffer: number): void {
    this.#list.clear();
    this.#list.addWritable(this.#start + buffer * FaultRecord.bytes, FaultRecord.bytes);
    const head = this.#queue.add(this.#list);
    if (head >= 0) this.#bufferByHead[head] = buffer;
  }

  #kick(): void {
    if (this.#queue.needsKick()) this.#transport.notify(IommuQueue.EVENT);
  }
}
