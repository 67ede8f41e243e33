/**
 * The virtio-iommu device at its virtqueues: requests from the request queue through the device and
 * back, fault records into the buffers of the event queue.
 *
 * Source: virtio specification 1.3, "IOMMU device", "Device operations" and "Fault reporting"; V28,
 * V120–V122. A request is copied once and judged on the copy (V145); it comes back only after its
 * effect is complete (V28). Signals to the driver are the caller's business: both queues answer
 * `shouldNotify` afterwards.
 */
import { type MemoryView, newView } from "../../memory/memory-view.ts";
import { type DeviceQueue, Pop } from "../virtqueue-device.ts";
import { Chain } from "../virtqueue-segments.ts";
import { REQUEST_BYTES, STOPPED, type VirtioIommuDevice } from "./device.ts";
import { FAULT_BYTES } from "./device-faults.ts";
import { RequestType, TAIL_BYTES } from "./protocol.ts";

/**
 * Requests in the order they were handled, kept where a crash does not reach: each MAP and UNMAP is
 * a few bytes here, when saving the device anew would cost more than the request.
 */
export interface RequestLog {
  /** Appends a record. @returns false when it is full: the request waits until it was emptied */
  append(view: MemoryView, at: number, bytes: number): boolean;
  /** Gives all records, in order. */
  replay(take: (view: MemoryView, at: number, bytes: number) => void): void;
}

/** A record: the request's place in the available ring, its readable length, and its bytes. */
const Record = { POSITION: 0, LENGTH: 1, REQUEST: 2, BYTES: 8 + REQUEST_BYTES } as const;

/** The two queues of one device. */
export class IommuQueues {
  readonly device: VirtioIommuDevice;
  readonly requestQueue: DeviceQueue;
  readonly eventQueue: DeviceQueue;
  /** Fault records that found only buffers too short for them (V121). */
  recordsSkipped = 0;
  /** Whether the last turn ended because the log is full. */
  isLogFull = false;
  readonly #log: RequestLog | null;
  readonly #logged = newView(Record.BYTES);
  readonly #chain = new Chain();
  readonly #request = newView(REQUEST_BYTES);
  readonly #reply: MemoryView;
  readonly #record = newView(FAULT_BYTES);
  readonly #recordView = new DataView(this.#record.u8.buffer);

  constructor(
    device: VirtioIommuDevice,
    requestQueue: DeviceQueue,
    eventQueue: DeviceQueue,
    log: RequestLog | null = null,
  ) {
    this.device = device;
    this.#log = log;
    this.requestQueue = requestQueue;
    this.eventQueue = eventQueue;
    this.#reply = newView(device.replyBytesMax);
  }

  /**
   * Handles requests in the order they were made available.
   *
   * @param countMax - handle no more than this many, so that other devices get their turn
   * @returns requests handled; fewer than `countMax` when the queue is empty, paused or broken, or
   *   when a quirk stopped the device (`device.isStopped`: it needs a reset)
   */
  handleRequests(countMax = Number.POSITIVE_INFINITY): number {
    const { device, requestQueue } = this;
    const chain = this.#chain;
    const request = this.#request;
    const reply = this.#reply;
    let count = 0;
    this.isLogFull = false;
    while (count < countMax && !device.isStopped && requestQueue.pop(chain) === Pop.CHAIN) {
      if (!this.#copyRequest() && requestQueue.gather(chain, request) < 0) break;
      if (this.#log !== null && !this.#keep(this.#log)) {
        requestQueue.unpop(chain);
        this.isLogFull = true;
        break;
      }
      const used = device.handle(request, chain.readableBytes, reply, chain.writableBytes);
      if (used === STOPPED) break;
      const isReturned = this.#copyReply(used)
        ? requestQueue.complete(chain, used)
        : requestQueue.reply(chain, reply, used);
      if (!isReturned) break;
      count += 1;
    }
    return count;
  }

  /** Logs the request at hand before it has an effect. PROBE has none. */
  #keep(log: RequestLog): boolean {
    const request = this.#request;
    if (request.u8[0] === RequestType.PROBE) return true;
    const record = this.#logged;
    record.u32[Record.POSITION] = (this.requestQueue.position - 1) & 0xffff;
    record.u32[Record.LENGTH] = this.#chain.readableBytes;
    record.u32.set(request.u32, Record.REQUEST);
    return log.append(record, 0, Record.BYTES);
  }

  /**
   * Handles again what the log holds, without an answer. A request that was not answered yet stands
   * in the available ring still, where the queue resumes, and is left to that.
   */
  replayLog(): void {
    const { device, requestQueue } = this;
    const open = requestQueue.isEnabled ? requestQueue.position : -1;
    this.#log?.replay((view, at, bytes) => {
      if (bytes !== Record.BYTES || at % 4 !== 0) return;
      const words = view.u32.subarray(at >> 2, (at + bytes) >> 2);
      if (words[Record.POSITION] === open) return;
      this.#request.u32.set(words.subarray(Record.REQUEST));
      device.handle(this.#request, words[Record.LENGTH]!, this.#reply, TAIL_BYTES);
    });
  }

  /**
   * Copies a request that lies in one piece on a word boundary, as every request of Linux does.
   *
   * @returns false, and nothing is copied, when it does not
   */
  #copyRequest(): boolean {
    const chain = this.#chain;
    const memory = this.requestQueue.memory;
    const bytes = chain.lengths[0]!;
    if (chain.readableCount !== 1 || bytes > REQUEST_BYTES || (bytes & 3) !== 0) return false;
    const view = memory.locateHalves(chain.lows[0]!, chain.highs[0]!, bytes, false);
    if (view === null || (memory.at & 3) !== 0) return false;
    const source = view.u32;
    const target = this.#request.u32;
    const base = memory.at >> 2;
    const words = bytes >> 2;
    for (let index = 0; index < words; index += 1) target[index] = source[base + index]!;
    return true;
  }

  /** Copies a tail into a writable part that starts on a word boundary. @returns false as above */
  #copyReply(used: number): boolean {
    if (used !== TAIL_BYTES) return false;
    const chain = this.#chain;
    const memory = this.requestQueue.memory;
    const first = chain.readableCount;
    if (chain.lengths[first]! < TAIL_BYTES) return false;
    const view = memory.locateHalves(chain.lows[first]!, chain.highs[first]!, TAIL_BYTES, true);
    if (view === null || (memory.at & 3) !== 0) return false;
    view.u32[memory.at >> 2] = this.#reply.u32[0]!;
    return true;
  }

  /**
   * Puts fault records that wait into buffers of the event queue, one each. Without a buffer they go
   * on waiting; the device drops the newest when too many do.
   *
   * @returns records delivered
   */
  deliverFaults(): number {
    const { eventQueue } = this;
    const { faults } = this.device;
    const chain = this.#chain;
    let count = 0;
    while (faults.count > 0 && eventQueue.pop(chain) === Pop.CHAIN) {
      if (chain.writableBytes < FAULT_BYTES) {
        // [P] V121: never two buffers for one record, and Linux would take stale bytes for a fault
        // if the buffer came back: the record is skipped, the buffer kept.
        eventQueue.unpop(chain);
        faults.removeFirst();
        this.recordsSkipped += 1;
        continue;
      }
      faults.encodeFirst(this.#recordView);
      if (!eventQueue.reply(chain, this.#record, FAULT_BYTES)) break;
      faults.removeFirst();
      count += 1;
    }
    return count;
  }
}
