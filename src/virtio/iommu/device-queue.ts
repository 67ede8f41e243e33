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
import { TAIL_BYTES } from "./protocol.ts";

/** The two queues of one device. */
export class IommuQueues {
  readonly device: VirtioIommuDevice;
  readonly requestQueue: DeviceQueue;
  readonly eventQueue: DeviceQueue;
  /** Fault records that found only buffers too short for them (V121). */
  recordsSkipped = 0;
  readonly #chain = new Chain();
  readonly #request = newView(REQUEST_BYTES);
  readonly #reply: MemoryView;
  readonly #record = newView(FAULT_BYTES);
  readonly #recordView = new DataView(this.#record.u8.buffer);

  constructor(device: VirtioIommuDevice, requestQueue: DeviceQueue, eventQueue: DeviceQueue) {
    this.device = device;
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
    while (count < countMax && !device.isStopped && requestQueue.pop(chain) === Pop.CHAIN) {
      if (!this.#copyRequest() && requestQueue.gather(chain, request) < 0) break;
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
