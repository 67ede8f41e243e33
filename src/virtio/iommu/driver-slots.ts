/**
 * The guest memory that a driver's requests stand in while the device has them: slots of one size,
 * and one buffer for PROBE. The tail follows the readable part directly, as in Linux' bounce buffer.
 *
 * Source: drivers/iommu/virtio-iommu.c, struct viommu_request; layouts from protocol.ts.
 */
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { highHalfOf, lowHalfOf } from "../../units.ts";
import type { SegmentList } from "../virtqueue-segments.ts";
import type { DriverArea } from "./driver-area.ts";
import {
  AttachRequest,
  DetachRequest,
  MapRequest,
  ProbeRequest,
  RequestType,
  Status,
  TAIL_BYTES,
  UnmapRequest,
} from "./protocol.ts";

/** Bytes of a slot: the largest request without PROBE, rounded up. */
const SLOT_BYTES = 64;
const SLOT_WORDS = SLOT_BYTES / 4;

/** Positions in a request, in 32-bit words; MAP and UNMAP agree on the range's. */
const Word = {
  domain: MapRequest.at.domain / 4,
  virtStart: MapRequest.at.virtStart / 4,
  virtEnd: MapRequest.at.virtEnd / 4,
  physStart: MapRequest.at.physStart / 4,
  mapFlags: MapRequest.at.flags / 4,
  attachEndpoint: AttachRequest.at.endpoint / 4,
  attachFlags: AttachRequest.at.flags / 4,
  detachEndpoint: DetachRequest.at.endpoint / 4,
} as const;

/** Slots 0 … `count` − 1 and the PROBE buffer, which is slot `count`. */
export class RequestSlots {
  readonly count: number;
  readonly #memory: GuestMemory;
  readonly #start: number;
  readonly #probeStart: number;
  readonly #probeBytes: number;
  readonly #free: Uint16Array;
  #freeCount: number;
  /** Type of the request in each slot. */
  readonly #types: Uint8Array;
  readonly #readableBytes: Uint8Array;
  readonly #replyBytes: Uint32Array;
  #words: Uint32Array = new Uint32Array(0);
  #wordsAt = 0;
  #generation = -1;

  /**
   * Takes the memory.
   *
   * @param probeBytes - size of the properties area, 0 for a device without PROBE
   * @returns null when the area is too small
   */
  static create(area: DriverArea, count: number, probeBytes: number): RequestSlots | null {
    const start = area.take(count * SLOT_BYTES, SLOT_BYTES);
    if (start < 0) return null;
    const probeAll = ProbeRequest.bytes + probeBytes + TAIL_BYTES;
    const probeStart = probeBytes === 0 ? -1 : area.take(probeAll, SLOT_BYTES);
    if (probeBytes > 0 && probeStart < 0) return null;
    return new RequestSlots(area.memory, count, start, probeStart, probeBytes);
  }

  private constructor(
    memory: GuestMemory,
    count: number,
    start: number,
    probeStart: number,
    probeBytes: number,
  ) {
    this.count = count;
    this.#memory = memory;
    this.#start = start;
    this.#probeStart = probeStart;
    this.#probeBytes = probeBytes;
    this.#free = Uint16Array.from({ length: count }, (_, index) => count - 1 - index);
    this.#freeCount = count;
    this.#types = new Uint8Array(count + 1);
    this.#readableBytes = new Uint8Array(count + 1);
    this.#replyBytes = new Uint32Array(count + 1);
  }

  /** Takes a free slot. @returns −1 when there is none, or the memory is gone */
  take(): number {
    if (this.#freeCount === 0 || !this.#lookUp()) return -1;
    this.#freeCount -= 1;
    return this.#free[this.#freeCount]!;
  }

  /** Gives a slot back. */
  give(slot: number): void {
    if (slot === this.count) return;
    this.#free[this.#freeCount] = slot;
    this.#freeCount += 1;
  }

  writeAttach(slot: number, domain: number, endpoint: number, flags: number): void {
    const at = this.#begin(slot, RequestType.ATTACH, AttachRequest.bytes);
    const words = this.#words;
    words[at + Word.domain] = domain;
    words[at + Word.attachEndpoint] = endpoint;
    words[at + Word.attachFlags] = flags;
    words[at + Word.attachFlags + 1] = 0;
  }

  writeDetach(slot: number, domain: number, endpoint: number): void {
    const at = this.#begin(slot, RequestType.DETACH, DetachRequest.bytes);
    const words = this.#words;
    words[at + Word.domain] = domain;
    words[at + Word.detachEndpoint] = endpoint;
    words[at + Word.detachEndpoint + 1] = 0;
    words[at + Word.detachEndpoint + 2] = 0;
  }

  writeMap(
    slot: number,
    domain: number,
    startPfn: number,
    lastPfn: number,
    physPfn: number,
    flags: number,
  ): void {
    const at = this.#begin(slot, RequestType.MAP, MapRequest.bytes);
    const words = this.#words;
    this.#writeRange(at, domain, startPfn, lastPfn);
    words[at + Word.physStart] = lowHalfOf(physPfn);
    words[at + Word.physStart + 1] = highHalfOf(physPfn);
    words[at + Word.mapFlags] = flags;
  }

  writeUnmap(slot: number, domain: number, startPfn: number, lastPfn: number): void {
    const at = this.#begin(slot, RequestType.UNMAP, UnmapRequest.bytes);
    this.#writeRange(at, domain, startPfn, lastPfn);
    this.#words[at + Word.virtEnd + 2] = 0;
  }

  /** Writes a PROBE into its buffer. @returns the slot, or −1 when the memory is gone */
  writeProbe(endpoint: number): number {
    const slot = this.count;
    const all = ProbeRequest.bytes + this.#probeBytes + TAIL_BYTES;
    const view = this.#memory.window(this.#probeStart, all);
    if (view === null) return -1;
    const at = this.#memory.at;
    view.u8.fill(0, at, at + all);
    view.u8[at + ProbeRequest.at.type] = RequestType.PROBE;
    view.u32[(at + ProbeRequest.at.endpoint) / 4] = endpoint;
    this.#types[slot] = RequestType.PROBE;
    this.#readableBytes[slot] = ProbeRequest.bytes;
    this.#replyBytes[slot] = this.#probeBytes + TAIL_BYTES;
    return slot;
  }

  /** The properties that the device wrote; null when the memory is gone. */
  properties(): Uint8Array | null {
    const from = this.#probeStart + ProbeRequest.bytes;
    const view = this.#memory.window(from, this.#probeBytes);
    return view?.u8.slice(this.#memory.at, this.#memory.at + this.#probeBytes) ?? null;
  }

  /** The buffers of a slot's request. */
  describe(slot: number, list: SegmentList): void {
    const start = this.#startOf(slot);
    const readable = this.#readableBytes[slot]!;
    list.clear();
    list.addReadable(start, readable);
    list.addWritable(start + readable, this.#replyBytes[slot]!);
  }

  /** Type of the request in a slot. */
  typeOf(slot: number): number {
    return this.#types[slot]!;
  }

  /** Bytes the device is to write for a slot's request. */
  replyBytes(slot: number): number {
    return this.#replyBytes[slot]!;
  }

  /** Status byte of a slot's tail. */
  statusOf(slot: number): number {
    const end = this.#startOf(slot) + this.#readableBytes[slot]! + this.#replyBytes[slot]!;
    const status = this.#memory.readU8(end - TAIL_BYTES);
    return status < 0 ? Status.IOERR : status;
  }

  #startOf(slot: number): number {
    return slot === this.count ? this.#probeStart : this.#start + slot * SLOT_BYTES;
  }

  /** Writes head and tail. @returns the index of the request's first word */
  #begin(slot: number, type: number, readableBytes: number): number {
    const at = this.#wordsAt + slot * SLOT_WORDS;
    this.#words[at] = type;
    this.#words[at + readableBytes / 4] = 0;
    this.#types[slot] = type;
    this.#readableBytes[slot] = readableBytes;
    this.#replyBytes[slot] = TAIL_BYTES;
    return at;
  }

  #writeRange(at: number, domain: number, startPfn: number, lastPfn: number): void {
    const words = this.#words;
    words[at + Word.domain] = domain;
    words[at + Word.virtStart] = lowHalfOf(startPfn);
    words[at + Word.virtStart + 1] = highHalfOf(startPfn);
    words[at + Word.virtEnd] = (lowHalfOf(lastPfn) | 0xfff) >>> 0;
    words[at + Word.virtEnd + 1] = highHalfOf(lastPfn);
  }

  /** Finds the slots again when memory changed. */
  #lookUp(): boolean {
    if (this.#memory.generation === this.#generation) return true;
    const view = this.#memory.window(this.#start, this.count * SLOT_BYTES);
    if (view === null) return false;
    this.#words = view.u32;
    this.#wordsAt = this.#memory.at / 4;
    this.#generation = this.#memory.generation;
    return true;
  }
}
