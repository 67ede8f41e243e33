/**
 * One request queue of a virtio-blk device: takes requests in the order they were made available
 * and completes them in that order.
 *
 * Data goes straight between guest memory and the store, a slice at a time, so that neither a long
 * request nor a full queue keeps others waiting. While the store works on a flush, a discard or
 * zeroes the queue waits; so one request at most is between the two rings, and whoever takes the
 * queue over finds its place in the used ring (DeviceQueue.resume).
 *
 * Source: virtio specification 1.3, "Block Device", "Device Operation". Framing is free: the header
 * is the first 16 readable bytes, the status the last writable one, whatever descriptors hold them.
 */
import type { BlockStore } from "../../block/block-store.ts";
import { SegmentCollector } from "../../memory/device-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import type { WorkOutcome } from "../pci/virtio-device.ts";
import { type DeviceQueue, Pop } from "../virtqueue-device.ts";
import { Chain } from "../virtqueue-segments.ts";
import {
  BlockRange,
  BlockRequest,
  BlockStatus,
  BlockType,
  ID_BYTES,
  RANGE_UNMAP,
  SECTOR_BYTES,
} from "./protocol.ts";

/** Bytes moved between two looks at the budget of a turn. */
const SLICE_BYTES = 2 ** 20;
/** A turn ends after so many bytes, or so many requests. */
const TURN_BYTES = 2 ** 21;
const TURN_REQUESTS = 64;
/** Most ranges of a discard or of zeroes. */
export const RANGES_MAX = 16;
/** Longest range of a discard or of zeroes, in sectors: 32 MiB. */
export const RANGE_SECTORS_MAX = 65_536;

const HEADER_BYTES = BlockRequest.bytes;
const RANGE_BYTES = BlockRange.bytes;
const TWO_32 = 2 ** 32;

/** What a queue asks of its device. */
export interface BlockDeviceView {
  readonly store: BlockStore;
  /** Whether a write is durable only when it was flushed; else each one is flushed at once. */
  readonly isWriteBack: boolean;
  readonly hasDiscard: boolean;
  readonly hasWriteZeroes: boolean;
  /** A request that had to wait is complete. */
  finished(queueIndex: number): void;
}

/** A queue. */
export class RequestQueue {
  readonly #index: number;
  readonly #queue: DeviceQueue;
  readonly #device: BlockDeviceView;
  readonly #chain = new Chain();
  readonly #header = newView(HEADER_BYTES + RANGES_MAX * RANGE_BYTES);
  readonly #reply = newView(ID_BYTES + 4);
  readonly #segments = new SegmentCollector();
  /** Which life of the queue it is: a store's answer to an earlier one is not heard. */
  #life = 0;
  /** Data of the request at hand: direction, offset in the store, length, and what was moved. */
  #isTransfer = false;
  #isWrite = false;
  #at = 0;
  #bytes = 0;
  #moved = 0;
  /** Whether the store has a request of this queue. */
  #isWaiting = false;
  #rangeCount = 0;
  #rangeIndex = 0;

  constructor(index: number, queue: DeviceQueue, device: BlockDeviceView) {
    this.#index = index;
    this.#queue = queue;
    this.#device = device;
  }

  /** Takes and completes requests until the budget of a turn is used up. */
  work(): WorkOutcome {
    let bytesLeft = TURN_BYTES;
    for (let count = 0; count < TURN_REQUESTS && bytesLeft > 0; count += 1) {
      if (this.#isWaiting) return "waiting";
      if (!this.#isTransfer) {
        if (this.#queue.pop(this.#chain) !== Pop.CHAIN) return "done";
        this.#begin();
      }
      while (this.#isTransfer && bytesLeft > 0) bytesLeft -= this.#moveSlice();
    }
    return this.#isWaiting ? "waiting" : "more";
  }

  /** Forgets the request at hand: the queue or the device was reset. */
  reset(): void {
    this.#life += 1;
    this.#isTransfer = false;
    this.#isWaiting = false;
  }

  /** Starts the request that was just taken; most are complete afterwards. */
  #begin(): void {
    const chain = this.#chain;
    if (chain.writableBytes === 0) {
      // [P] Without a place for the status the request comes back untouched.
      this.#queue.complete(chain, 0);
      return;
    }
    const got = this.#queue.gather(chain, this.#header);
    if (got < HEADER_BYTES) {
      if (this.#queue.fault === null) this.#finish(BlockStatus.IOERR, 0);
      return;
    }
    switch (this.#header.u32[0]) {
      case BlockType.IN:
        this.#beginTransfer(false, chain.writableBytes - 1);
        return;
      case BlockType.OUT:
        this.#beginTransfer(true, chain.readableBytes - HEADER_BYTES);
        return;
      case BlockType.FLUSH:
        this.#ask((done) => this.#device.store.flush(done));
        return;
      case BlockType.GET_ID:
        this.#answerId();
        return;
      case BlockType.DISCARD:
        this.#beginRanges(this.#device.hasDiscard, 0);
        return;
      case BlockType.WRITE_ZEROES:
        this.#beginRanges(this.#device.hasWriteZeroes, RANGE_UNMAP);
        return;
      default:
        this.#finish(BlockStatus.UNSUPP, 0);
    }
  }

  #beginTransfer(isWrite: boolean, bytes: number): void {
    const { store } = this.#device;
    const at = this.#place(2, bytes);
    if (at < 0 || (isWrite && store.isReadOnly)) {
      this.#finish(BlockStatus.IOERR, 0);
      return;
    }
    this.#isWrite = isWrite;
    this.#at = at;
    this.#bytes = bytes;
    this.#moved = 0;
    this.#isTransfer = true;
  }

  /** Moves a slice of data. @returns bytes it counts for in the turn's budget */
  #moveSlice(): number {
    const { store } = this.#device;
    const segments = this.#segments;
    const isWrite = this.#isWrite;
    const count = Math.min(SLICE_BYTES, this.#bytes - this.#moved);
    segments.clear();
    const from = this.#moved + (isWrite ? HEADER_BYTES : 0);
    if (!this.#queue.collect(this.#chain, from, count, !isWrite, segments)) {
      this.#isTransfer = false;
      if (this.#queue.fault === null) this.#finish(BlockStatus.IOERR, 0);
      return count;
    }
    let errno = 0;
    const done = (result: number): void => {
      errno = result;
    };
    const at = this.#at + this.#moved;
    if (isWrite) store.write(at, segments.segments, done);
    else store.read(at, segments.segments, done);
    this.#moved += count;
    if (errno !== 0) {
      this.#isTransfer = false;
      this.#finish(BlockStatus.IOERR, 0);
    } else if (this.#moved === this.#bytes) this.#endTransfer();
    return count;
  }

  #endTransfer(): void {
    this.#isTransfer = false;
    if (!this.#isWrite) this.#finish(BlockStatus.OK, this.#bytes);
    else if (this.#device.isWriteBack) this.#finish(BlockStatus.OK, 0);
    else this.#ask((done) => this.#device.store.flush(done));
  }

  /** [P] A buffer of another length than 20 takes as much of the ID as it holds. */
  #answerId(): void {
    const { id } = this.#device.store;
    const count = Math.min(ID_BYTES, this.#chain.writableBytes - 1);
    const reply = this.#reply;
    for (let index = 0; index < count; index += 1)
      reply.u8[index] = index < id.length ? id.charCodeAt(index) & 0x7f : 0;
    if (!this.#queue.scatter(this.#chain, reply, count)) {
      if (this.#queue.fault === null) this.#finish(BlockStatus.IOERR, 0);
      return;
    }
    this.#finish(BlockStatus.OK, count);
  }

  #beginRanges(isOffered: boolean, flagsAllowed: number): void {
    const count = (this.#chain.readableBytes - HEADER_BYTES) / RANGE_BYTES;
    const status = isOffered ? this.#checkRanges(count, flagsAllowed) : BlockStatus.UNSUPP;
    if (status !== BlockStatus.OK) {
      this.#finish(status, 0);
      return;
    }
    this.#rangeCount = count;
    this.#rangeIndex = 0;
    this.#nextRange();
  }

  /** Checks all ranges of a discard or of zeroes before the first of them is worked on. */
  #checkRanges(count: number, flagsAllowed: number): BlockStatus {
    const { u32 } = this.#header;
    if (!Number.isInteger(count) || count < 1 || count > RANGES_MAX) return BlockStatus.IOERR;
    if (this.#device.store.isReadOnly) return BlockStatus.IOERR;
    for (let word = 4; word <= 4 * count; word += 4) {
      const sectors = u32[word + 2]!;
      // A flag that this type of request does not have makes it another, unknown one.
      if ((u32[word + 3]! & ~flagsAllowed) !== 0) return BlockStatus.UNSUPP;
      if (sectors > RANGE_SECTORS_MAX) return BlockStatus.IOERR;
      if (this.#place(word, sectors * SECTOR_BYTES) < 0) return BlockStatus.IOERR;
    }
    return BlockStatus.OK;
  }

  #nextRange(): void {
    const { store } = this.#device;
    const word = 4 * (this.#rangeIndex + 1);
    const bytes = this.#header.u32[word + 2]! * SECTOR_BYTES;
    const at = this.#place(word, bytes);
    const mayUnmap = (this.#header.u32[word + 3]! & RANGE_UNMAP) !== 0;
    const isDiscard = this.#header.u32[0] === BlockType.DISCARD;
    this.#rangeIndex += 1;
    this.#ask((done) => {
      if (isDiscard) store.discard(at, bytes, done);
      else store.writeZeroes(at, bytes, mayUnmap, done);
    });
  }

  /** Has the store do something that it may finish later. */
  #ask(start: (done: (errno: number) => void) => void): void {
    const life = this.#life;
    let isLater = false;
    this.#isWaiting = true;
    start((errno) => {
      if (life !== this.#life || !this.#isWaiting) return;
      this.#isWaiting = false;
      const hasRange = this.#rangeIndex < this.#rangeCount;
      if (errno !== 0) this.#finish(BlockStatus.IOERR, 0);
      else if (hasRange) this.#nextRange();
      else this.#finish(BlockStatus.OK, 0);
      if (isLater && !this.#isWaiting) this.#device.finished(this.#index);
    });
    isLater = true;
  }

  /**
   * Writes the status and returns the request.
   *
   * @param bytes - bytes of data that were written before the status
   */
  #finish(status: BlockStatus, bytes: number): void {
    const chain = this.#chain;
    this.#rangeCount = 0;
    this.#rangeIndex = 0;
    const last = chain.writableBytes - 1;
    this.#reply.u8[0] = status;
    if (!this.#queue.scatterAt(chain, last, this.#reply, 1)) {
      this.#queue.complete(chain, 0);
      return;
    }
    // The used length counts from the start of the writable part and is no overestimate (V146).
    this.#queue.complete(chain, bytes === last ? last + 1 : bytes);
  }

  /** Offset in the store of a range whose sector stands at a word, or −1 when it lies outside. */
  #place(word: number, bytes: number): number {
    const { store } = this.#device;
    const sector = this.#header.u32[word + 1]! * TWO_32 + this.#header.u32[word]!;
    if (sector > store.bytes / SECTOR_BYTES) return -1;
    const at = sector * SECTOR_BYTES;
    if (at + bytes > store.bytes) return -1;
    return at % store.blockBytes === 0 && bytes % store.blockBytes === 0 ? at : -1;
  }
}
