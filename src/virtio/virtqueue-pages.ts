/**
 * One part of a ring behind an IOMMU: bytes that follow each other for the device, page by page
 * where they lie in memory.
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { PAGE_BYTES } from "../units.ts";

/** The pages of a part. Bytes count from the part's start. */
export class RingPages {
  /** The page that {@link seek} found. */
  view: MemoryView = newView(0);
  /** Offset in it of the byte that was sought. */
  at = 0;
  readonly #views: MemoryView[] = [];
  /** Where the page of each view starts in it; below 0 where the part starts inside of a page. */
  readonly #starts: number[] = [];
  /** Offset of the part in its first page. */
  #offset = 0;
  #isShared = false;

  /** Finds the pages. @returns false when one of them is refused */
  lookUp(memory: DeviceMemory, address: number, bytes: number, forWrite: boolean): boolean {
    this.#views.length = 0;
    this.#starts.length = 0;
    this.#offset = address % PAGE_BYTES;
    this.#isShared = false;
    for (let done = 0; done < bytes; ) {
      const offset = (address + done) % PAGE_BYTES;
      const count = Math.min(bytes - done, PAGE_BYTES - offset);
      const view = memory.window(address + done, count, forWrite);
      if (view === null) return false;
      this.#views.push(view);
      this.#starts.push(memory.at - offset);
      this.#isShared ||= memory.isShared(address + done);
      done += count;
    }
    return true;
  }

  /** Puts {@link view} and {@link at} to a byte. */
  seek(byte: number): void {
    const from = this.#offset + byte;
    const page = from >>> 12;
    this.view = this.#views[page]!;
    this.at = this.#starts[page]! + (from & (PAGE_BYTES - 1));
  }

  /** Loads 16 bits, atomically where memory is shared. */
  load(byte: number): number {
    this.seek(byte);
    const words = this.view.u16;
    return this.#isShared ? Atomics.load(words, this.at >> 1) : words[this.at >> 1]!;
  }

  /** Stores 16 bits, atomically where memory is shared. */
  store(byte: number, value: number): void {
    this.seek(byte);
    const words = this.view.u16;
    if (this.#isShared) Atomics.store(words, this.at >> 1, value);
    else words[this.at >> 1] = value;
  }

  /** Loads 32 bits of an entry. */
  word(byte: number): number {
    this.seek(byte);
    return this.view.u32[this.at >> 2]!;
  }

  /** Stores 32 bits of an entry. */
  storeWord(byte: number, value: number): void {
    this.seek(byte);
    this.view.u32[this.at >> 2] = value;
  }
}
