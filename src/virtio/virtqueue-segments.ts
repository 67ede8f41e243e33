/**
 * A list of buffers in guest memory, readable ones first: what a driver adds to a queue and what a
 * device takes from it. Reused from request to request; its arrays grow once.
 */

/** Buffers of one request: addresses and lengths in bytes, the readable ones before the writable. */
export class SegmentList {
  addresses = new Float64Array(8);
  lengths = new Uint32Array(8);
  count = 0;
  readableCount = 0;
  readableBytes = 0;
  writableBytes = 0;

  /** Empties the list. */
  clear(): void {
    this.count = 0;
    this.readableCount = 0;
    this.readableBytes = 0;
    this.writableBytes = 0;
  }

  /** Appends a buffer the device reads. Must come before every writable one. */
  addReadable(address: number, length: number): void {
    this.#add(address, length);
    this.readableCount += 1;
    this.readableBytes += length;
  }

  /** Appends a buffer the device writes. */
  addWritable(address: number, length: number): void {
    this.#add(address, length);
    this.writableBytes += length;
  }

  #add(address: number, length: number): void {
    if (this.count === this.lengths.length) this.#grow();
    this.addresses[this.count] = address;
    this.lengths[this.count] = length;
    this.count += 1;
  }

  #grow(): void {
    const addresses = new Float64Array(2 * this.count);
    const lengths = new Uint32Array(2 * this.count);
    addresses.set(this.addresses);
    lengths.set(this.lengths);
    this.addresses = addresses;
    this.lengths = lengths;
  }
}

/** A request that a device took from a queue. */
export class Chain extends SegmentList {
  /** Index of its first descriptor, which names it in the used ring. */
  head = -1;
  /** Which life of the queue it belongs to. */
  epoch = -1;
}
