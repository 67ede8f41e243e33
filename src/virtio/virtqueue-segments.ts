/**
 * A list of buffers in guest memory, readable ones first: what a driver adds to a queue and what a
 * device takes from it. Reused from request to request; its arrays grow once.
 */
import { addressOfHalves } from "../memory/guest-memory.ts";

/** Buffers of one request: addresses and lengths in bytes, the readable ones before the writable. */
export class SegmentList {
  /** Bits 0 … 31 of the addresses. */
  lows = new Uint32Array(8);
  /** Bits 32 … 63 of the addresses. */
  highs = new Uint32Array(8);
  lengths = new Uint32Array(8);
  count = 0;
  readableCount = 0;
  readableBytes = 0;
  writableBytes = 0;

  /** Byte address of a buffer. */
  address(index: number): number {
    return addressOfHalves(this.lows[index]!, this.highs[index]!);
  }

  /** Empties the list. */
  clear(): void {
    this.count = 0;
    this.readableCount = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /** Appends a buffer the device reads. Must come before every writable one. */
  addReadable(address: number, length: number): void {
    this.addHalves(address >>> 0, Math.floor(address / 2 ** 32), length);
    this.readableCount += 1;
    this.readableBytes += length;
  }

  /** Appends a buffer the device writes. */
  addWritable(address: number, length: number): void {
    this.addHalves(address >>> 0, Math.floor(address / 2 ** 32), length);
    this.writableBytes += length;
  }

  /** Appends a buffer; the counts are left to the caller. */
  addHalves(low: number, high: number, length: number): void {
    const count = this.count;
    if (count === this.lengths.length) this.#grow();
    this.lows[count] = low;
    this.highs[count] = high;
    this.lengths[count] = length;
    this.count = count + 1;
  }

  #grow(): void {
    this.lows = doubled(this.lows);
    this.highs = doubled(this.highs);
    this.lengths = doubled(this.lengths);
  }
}

/** A request that a device took from a queue. */
export class Chain extends SegmentList {
  /** Index of its first descriptor, which names it in the used ring. */
  head = -1;
  /** Which life of the queue it belongs to. */
  epoch = -1;
}

function doubled(words: Uint32Array<ArrayBuffer>): Uint32Array<ArrayBuffer> {
  const larger = new Uint32Array(2 * words.length);
  larger.set(words);
  return larger;
}
