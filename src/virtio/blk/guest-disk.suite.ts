/** A guest's virtio-blk driver, as Linux's maps its requests for DMA: for tests. */

import { DmaDirection } from "../../dma/direction.ts";
import type { DmaDevice } from "../../dma/dma-device.ts";
import { assert } from "../../errors.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import type { PciFunction } from "../../pci/function.ts";
import { PAGE_BYTES } from "../../units.ts";
import { CommonFeature } from "../features.ts";
import { type CountingSink, GuestTransport } from "../pci/guest.suite.ts";
import { DriverQueue } from "../virtqueue-driver.ts";
import { descriptorBytes, deviceBytes, driverBytes } from "../virtqueue-layout.ts";
import { SegmentList } from "../virtqueue-segments.ts";

const TABLE_ENTRIES = 64;
const LOW = 0xffff_ffff;

/** A buffer in guest memory. */
export interface Buffer {
  readonly address: number;
  readonly bytes: number;
}

interface Mapped {
  readonly iova: number;
  readonly bytes: number;
}

interface Request {
  readonly slot: number;
  readonly maps: Mapped[];
  readonly settle: (status: number, used: number) => void;
}

/** A driver on one queue of a disk. */
export class GuestDisk {
  readonly transport: GuestTransport;
  readonly memory: GuestMemory;
  queue: DriverQueue;
  readonly #dma: DmaDevice | null;
  readonly #requests = new Map<number, Request>();
  readonly #slots: number[] = [];
  readonly #list = new SegmentList();
  /** Maps of the request that is being built. */
  #maps: Mapped[] = [];
  readonly #start: number;
  #next: number;

  /**
   * @param start - guest memory from here on is the driver's
   * @param dma - null when addresses are not translated
   */
  constructor(parts: {
    readonly pci: PciFunction;
    readonly sink: CountingSink;
    readonly memory: GuestMemory;
    readonly start: number;
    readonly dma: DmaDevice | null;
    readonly featuresLow?: number;
    readonly size?: number;
    readonly queueIndex?: number;
  }) {
    const { pci, sink, memory, start, dma, featuresLow = LOW, size = 64, queueIndex = 0 } = parts;
    this.transport = new GuestTransport(pci, sink);
    this.memory = memory;
    this.#dma = dma;
    this.#start = start;
    this.#next = start;
    const high = CommonFeature.VERSION_1 | CommonFeature.ACCESS_PLATFORM | CommonFeature.RING_RESET;
    const low = this.transport.negotiate(featuresLow, high);
    assert(low >= 0, "the device accepts the features");
    const own = {
      size,
      descriptor: this.take(descriptorBytes(size)),
      driver: this.take(driverBytes(size)),
      device: this.take(deviceBytes(size)),
    };
    const tables = this.take(size * TABLE_ENTRIES * 16);
    this.queue = new DriverQueue(memory, {
      areas: own,
      eventIndex: (low & CommonFeature.EVENT_IDX) !== 0,
      indirect:
        (low & CommonFeature.INDIRECT_DESC) === 0
          ? null
          : { start: tables, entries: TABLE_ENTRIES },
      callbacks: true,
      mapTable: (address, bytes) => this.#map(address, bytes, DmaDirection.TO_DEVICE),
    });
    const seen = {
      size,
      descriptor: this.#map(own.descriptor, descriptorBytes(size), DmaDirection.BIDIRECTIONAL),
      driver: this.#map(own.driver, driverBytes(size), DmaDirection.BIDIRECTIONAL),
      device: this.#map(own.device, deviceBytes(size), DmaDirection.BIDIRECTIONAL),
    };
    this.#maps = [];
    assert(this.transport.enableQueue(queueIndex, seen), "the device takes the queue");
    for (let slot = 0; slot < size; slot += 1) this.#slots.push(this.take(PAGE_BYTES));
    this.transport.start();
    this.transport.onInterrupt = () => this.reap();
  }

  /** Memory of the driver's own, page by page. */
  take(bytes: number): number {
    const at = this.#next;
    this.#next += Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES;
    return at;
  }

  /** Bytes of guest memory taken so far. */
  get taken(): number {
    return this.#next - this.#start;
  }

  /** Puts a request on the queue, without notification. */
  add(
    type: number,
    sector: number,
    data: readonly Buffer[],
    isWrite: boolean,
    settle: (status: number, used: number) => void,
  ): void {
    const slot = this.#slots.pop();
    assert(slot !== undefined, "there is a free slot");
    const { memory } = this;
    memory.writeU32(slot, type);
    memory.writeU32(slot + 4, 0);
    memory.writeU64(slot + 8, sector >>> 0, Math.floor(sector / 2 ** 32));
    memory.writeU8(slot + 0x800, 0xff);
    this.#maps = [];
    const list = this.#list;
    const { TO_DEVICE, FROM_DEVICE } = DmaDirection;
    list.clear();
    list.addReadable(this.#map(slot, 16, TO_DEVICE), 16);
    for (const { address, bytes } of data) {
      if (isWrite) list.addReadable(this.#map(address, bytes, TO_DEVICE), bytes);
      else list.addWritable(this.#map(address, bytes, FROM_DEVICE), bytes);
    }
    list.addWritable(this.#map(slot + 0x800, 1, FROM_DEVICE), 1);
    const head = this.queue.add(list);
    assert(head >= 0, "the queue has room");
    this.#requests.set(head, { slot, maps: this.#maps, settle });
  }

  /** Notifies if the device wants that. */
  kick(queueIndex = 0): void {
    if (this.queue.needsKick()) this.transport.notify(queueIndex);
  }

  /** Takes back what the device completed. */
  reap(): void {
    for (let head = this.queue.getUsed(); head >= 0; head = this.queue.getUsed()) {
      const request = this.#requests.get(head)!;
      this.#requests.delete(head);
      for (const { iova, bytes } of request.maps) this.#unmap(iova, bytes);
      this.#slots.push(request.slot);
      request.settle(this.memory.readU8(request.slot + 0x800), this.queue.usedLength);
    }
  }

  /** Does one request to its end. @returns its status, or −1 when it did not complete */
  run(type: number, sector: number, data: readonly Buffer[], isWrite: boolean): number {
    let status = -1;
    this.add(type, sector, data, isWrite, (result) => {
      status = result;
    });
    this.kick();
    this.reap();
    return status;
  }

  #map(address: number, bytes: number, direction: DmaDirection): number {
    if (this.#dma === null) return address;
    const pfn = Math.floor(address / PAGE_BYTES);
    const offset = address % PAGE_BYTES;
    const iovaPfn = this.#dma.mapPage(pfn, offset, bytes, direction, 0, 0);
    assert(iovaPfn >= 0, "there is an address for the buffer");
    const iova = iovaPfn * PAGE_BYTES + offset;
    this.#maps.push({ iova, bytes });
    return iova;
  }

  #unmap(iova: number, bytes: number): void {
    const pfn = Math.floor(iova / PAGE_BYTES);
    this.#dma?.unmapPage(pfn, iova % PAGE_BYTES, bytes, 0, 0);
  }
}
