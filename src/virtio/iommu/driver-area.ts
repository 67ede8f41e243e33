/**
 * The stretch of guest memory a driver keeps its rings and request buffers in: handed out piece by
 * piece, never given back one by one. An address means the same to driver and device.
 */
import type { GuestMemory } from "../../memory/guest-memory.ts";

/** Guest memory that belongs to a driver. */
export class DriverArea {
  readonly memory: GuestMemory;
  readonly start: number;
  readonly bytes: number;
  #used = 0;

  /** @param start - first byte; the area must be memory of one region */
  constructor(memory: GuestMemory, start: number, bytes: number) {
    this.memory = memory;
    this.start = start;
    this.bytes = bytes;
  }

  /**
   * Takes a zeroed piece.
   *
   * @param alignment - a power of two
   * @returns its address, or −1 when the area is used up or no memory
   */
  take(bytes: number, alignment: number): number {
    const from = Math.ceil((this.start + this.#used) / alignment) * alignment;
    const end = from + bytes;
    if (end > this.start + this.bytes) return -1;
    const view = this.memory.window(from, bytes);
    if (view === null) return -1;
    view.u8.fill(0, this.memory.at, this.memory.at + bytes);
    this.#used = end - this.start;
    return from;
  }

  /** Takes everything back. */
  clear(): void {
    this.#used = 0;
  }
}
