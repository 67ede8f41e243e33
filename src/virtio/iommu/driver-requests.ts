/**
 * The driver's request queue: requests are added without a kick, and completed together by a sync
 * that polls until nothing is in flight.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2: __viommu_add_req, __viommu_sync_req,
 * viommu_send_req_sync, viommu_get_req_errno; drivers/virtio/virtio_ring.c for the notification of
 * a full queue. Where Linux would spin for ever, on a device that died, this gives up with an errno.
 */
import { Errno } from "../../errno.ts";
import { type Meter, Step } from "../../meter.ts";
import { ADD_FULL, type DriverQueue, USED_BROKEN } from "../virtqueue-driver.ts";
import { SegmentList } from "../virtqueue-segments.ts";
import type { DriverSettings } from "./driver-settings.ts";
import type { RequestSlots } from "./driver-slots.ts";
import type { DriverTransport } from "./driver-transport.ts";
import { IommuQueue, RequestType, Status } from "./protocol.ts";

const NONE = -1;

const errnoOfStatus: readonly Errno[] = [
  Errno.OK,
  Errno.EIO,
  Errno.ENOSYS,
  Errno.EIO,
  Errno.EINVAL,
  Errno.ERANGE,
  Errno.ENOENT,
  Errno.EFAULT,
  Errno.ENOMEM,
];

/** The errno a driver makes of a request's status, 0 … 255. */
export function errnoOf(status: number): Errno {
  return errnoOfStatus[status] ?? Errno.EIO;
}

/** What a request queue is made of. */
export interface RequestQueueParts {
  readonly queue: DriverQueue;
  /** One more than the queue has descriptors: a request is written before the queue is seen full. */
  readonly slots: RequestSlots;
  readonly transport: DriverTransport;
  readonly settings: DriverSettings;
  readonly meter: Meter;
  /** Asked before each allocation the real driver makes; true makes it fail. */
  readonly allocationFails: () => boolean;
}

/** The request queue of one device. Every method gives an errno, 0 on success. */
export class RequestQueue {
  /** Why nothing can be sent any more; 0 while all is well. */
  dead: Errno = Errno.OK;
  readonly #parts: RequestQueueParts;
  readonly #queue: DriverQueue;
  readonly #slots: RequestSlots;
  readonly #meter: Meter;
  readonly #list = new SegmentList();
  readonly #slotByHead: Uint16Array;
  /** Domain of a queued MAP whose status is to be noted, −1 for every other request; by slot. */
  readonly #mapDomain: Float64Array;
  /** First errno of each domain's queued MAPs, with the correction `mapStatus`. */
  readonly #mapErrnos = new Map<number, Errno>();
  #inFlight = 0;
  #awaited = NONE;
  #awaitedStatus: number = Status.OK;
  #isWrittenBack = false;

  constructor(parts: RequestQueueParts) {
    this.#parts = parts;
    this.#queue = parts.queue;
    this.#slots = parts.slots;
    this.#meter = parts.meter;
    this.#slotByHead = new Uint16Array(parts.queue.size);
    this.#mapDomain = new Float64Array(parts.slots.count + 1).fill(NONE);
  }

  /** Requests the device has not answered. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Queues a MAP of whole frames. What the device makes of it is not waited for. */
  addMap(domain: number, startPfn: number, lastPfn: number, physPfn: number, flags: number): Errno {
    const slot = this.#takeSlot();
    if (slot === NONE) return this.#noSlot();
    this.#slots.writeMap(slot, domain, startPfn, lastPfn, physPfn, flags);
    if (this.#parts.settings.corrections.mapStatus) this.#mapDomain[slot] = domain;
    return this.#add(slot);
  }

  /** Sends a MAP of whole frames and waits for its status. */
  sendMap(
    domain: number,
    startPfn: number,
    lastPfn: number,
    physPfn: number,
    flags: number,
  ): Errno {
    const slot = this.#takeSlot();
    if (slot === NONE) return this.#noSlot();
    this.#slots.writeMap(slot, domain, startPfn, lastPfn, physPfn, flags);
    return this.#send(slot);
  }

  /** Queues an UNMAP of whole frames. What the device makes of it is not waited for. */
  addUnmap(domain: number, startPfn: number, lastPfn: number): Errno {
    const slot = this.#takeSlot();
    if (slot === NONE) return this.#noSlot();
    this.#slots.writeUnmap(slot, domain, startPfn, lastPfn);
    return this.#add(slot);
  }

  /** Attaches an endpoint and waits for the status. */
  sendAttach(domain: number, endpoint: number, flags: number): Errno {
    const slot = this.#takeSlot();
    if (slot === NONE) return this.#noSlot();
    this.#slots.writeAttach(slot, domain, endpoint, flags);
    return this.#send(slot);
  }

  /** Detaches an endpoint and waits for the status. */
  sendDetach(domain: number, endpoint: number): Errno {
    const slot = this.#takeSlot();
    if (slot === NONE) return this.#noSlot();
    this.#slots.writeDetach(slot, domain, endpoint);
    return this.#send(slot);
  }

  /**
   * Asks for an endpoint's properties.
   *
   * @param properties - receives the area; left as it is when the answer is not as long as the
   *   writable part, which Linux takes for success without properties
   */
  sendProbe(endpoint: number, properties: Uint8Array): Errno {
    if (this.#parts.allocationFails()) return Errno.ENOMEM;
    if (this.dead !== Errno.OK) return this.dead;
    const slot = this.#slots.writeProbe(endpoint);
    if (slot === NONE) return Errno.EIO;
    const errno = this.#send(slot);
    if (!this.#isWrittenBack) return errno;
    const answer = this.#slots.properties();
    if (answer === null) return Errno.EIO;
    properties.set(answer);
    return errno;
  }

  /**
   * Kicks and polls until the device has answered everything that is in flight, whoever added it.
   * Requests that failed do not show here; EIO and ETIMEDOUT mean that queue or device are dead.
   */
  sync(): Errno {
    if (this.dead !== Errno.OK) return this.dead;
    if (this.#queue.needsKick()) this.#notify();
    let completed = 0;
    let polls = 0;
    while (this.#inFlight > 0) {
      const head = this.#queue.getUsed();
      if (head >= 0) {
        this.#complete(head);
        completed += 1;
        continue;
      }
      if (head === USED_BROKEN) return this.#die(Errno.EIO);
      polls += 1;
      const goesOn = this.#parts.transport.wait(IommuQueue.REQUEST);
      if (this.#queue.hasUsed()) continue;
      if (!goesOn || polls >= this.#parts.settings.pollsMax) return this.#die(Errno.ETIMEDOUT);
    }
    if (completed > 0) this.#meter.step(Step.virtqueueSync, completed, 0);
    return Errno.OK;
  }

  /** First errno of a domain's queued MAPs since this was last asked: see `mapStatus`. */
  takeMapErrno(domain: number): Errno {
    const errno = this.#mapErrnos.get(domain) ?? Errno.OK;
    this.#mapErrnos.delete(domain);
    return errno;
  }

  /** The buffer of a request is allocated first of all. */
  #takeSlot(): number {
    if (this.#parts.allocationFails() || this.dead !== Errno.OK) return NONE;
    const slot = this.#slots.take();
    if (slot === NONE) this.dead = Errno.EIO;
    return slot;
  }

  #noSlot(): Errno {
    return this.dead === Errno.OK ? Errno.ENOMEM : this.dead;
  }

  /** Adds the request in a slot; a full queue is synced first, and then tried once more. */
  #add(slot: number): Errno {
    let head = this.#tryAdd(slot);
    if (head === ADD_FULL) {
      // The ring code notifies on its own account before it gives up.
      this.#notify();
      const errno = this.sync();
      if (errno === Errno.OK) head = this.#tryAdd(slot);
      if (errno !== Errno.OK || head === ADD_FULL) {
        this.#release(slot);
        return errno === Errno.OK ? Errno.ENOSPC : errno;
      }
    }
    if (head < 0) {
      this.#release(slot);
      return Errno.EIO;
    }
    this.#slotByHead[head] = slot;
    this.#inFlight += 1;
    this.#meter.step(Step.virtqueueAdd, 1, 0);
    this.#meter.step(stepOf(this.#slots.typeOf(slot)), 1, 0);
    return Errno.OK;
  }

  #tryAdd(slot: number): number {
    this.#slots.describe(slot, this.#list);
    return this.#queue.add(this.#list);
  }

  /** Adds a request and waits for everything; then says what its status is, or why it was lost. */
  #send(slot: number): Errno {
    // The caller's copy of the status starts as OK and stays so unless the answer is written back.
    this.#awaitedStatus = Status.OK;
    this.#isWrittenBack = false;
    const added = this.#add(slot);
    if (added !== Errno.OK) return added;
    this.#awaited = slot;
    const synced = this.sync();
    this.#awaited = NONE;
    return synced === Errno.OK ? errnoOf(this.#awaitedStatus) : synced;
  }

  #complete(head: number): void {
    const slot = this.#slotByHead[head]!;
    const isAwaited = slot === this.#awaited;
    if (isAwaited || this.#mapDomain[slot]! >= 0) this.#note(slot, isAwaited);
    this.#inFlight -= 1;
    this.#release(slot);
  }

  /** Keeps the status of a request that somebody asks about. */
  #note(slot: number, isAwaited: boolean): void {
    const isWhole = this.#queue.usedLength === this.#slots.replyBytes(slot);
    let status: number = Status.OK;
    if (isWhole) status = this.#slots.statusOf(slot);
    else if (this.#parts.settings.corrections.usedLength) status = Status.IOERR;
    if (isAwaited) {
      this.#awaitedStatus = status;
      this.#isWrittenBack = isWhole;
      return;
    }
    const domain = this.#mapDomain[slot]!;
    if (status !== Status.OK && !this.#mapErrnos.has(domain))
      this.#mapErrnos.set(domain, errnoOf(status));
  }

  #release(slot: number): void {
    this.#mapDomain[slot] = NONE;
    this.#slots.give(slot);
  }

  #notify(): void {
    this.#meter.step(Step.virtqueueKick, 1, 0);
    this.#parts.transport.notify(IommuQueue.REQUEST);
  }

  #die(errno: Errno): Errno {
    this.dead = errno;
    return errno;
  }
}

function stepOf(type: number): number {
  if (type === RequestType.MAP) return Step.requestMap;
  return type === RequestType.UNMAP ? Step.requestUnmap : Step.requestOther;
}
