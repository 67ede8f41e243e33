/**
 * The BAR of an MSI-X table and its pending bits, as memory. Under vfio-user the client keeps the
 * table itself and masks for the device (a vector is an eventfd there), so what is written here is
 * kept and shown, and decides nothing.
 *
 * Source: PCI Local Bus specification 3.0, 6.8.2.6 to 6.8.2.9.
 */
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { MSIX_ENTRY_BYTES, msixBarBytes } from "./capabilities.ts";

const MASK_WORD = 3;

/** The BAR. */
export class MsixTable {
  readonly bytes: number;
  readonly #vectors: number;
  readonly #table: MemoryView;

  constructor(vectors: number) {
    this.bytes = msixBarBytes(vectors);
    this.#vectors = vectors;
    this.#table = newView(vectors * MSIX_ENTRY_BYTES);
    this.reset();
  }

  /** Reads; the pending bits and what lies between are zero. */
  read(offset: number, target: MemoryView, at: number, count: number): void {
    for (let index = 0; index < count; index += 1)
      target.u8[at + index] = this.#table.u8[offset + index] ?? 0;
  }

  /** Writes to the table; other bytes stay as they are. */
  write(offset: number, source: MemoryView, at: number, count: number): void {
    const end = Math.min(count, this.#table.u8.length - offset);
    for (let index = 0; index < end; index += 1)
      this.#table.u8[offset + index] = source.u8[at + index]!;
  }

  /** Every vector masked, as after power-on. */
  reset(): void {
    this.#table.u8.fill(0);
    for (let vector = 0; vector < this.#vectors; vector += 1)
      this.#table.u32[vector * 4 + MASK_WORD] = 1;
  }
}
