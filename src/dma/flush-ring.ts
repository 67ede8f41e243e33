/**
 * One ring of a flush queue: unmapped ranges in the order they were queued, each with the number of
 * flushes that had been started by then.
 *
 * Source: drivers/iommu/dma-iommu.c: struct iova_fq, struct iova_fq_entry, fq_full, fq_ring_add.
 * One place stays free, so that a full ring differs from an empty one.
 */
import { assert } from "../errors.ts";
import type { TableList } from "../iommu/gather.ts";
import { isPowerOfTwo } from "../units.ts";

const STRIDE = 4;

/** Ranges waiting for a flush. */
export class FlushRing {
  readonly #mask: number;
  /** Per entry: first page, pages, flushes started, time of queueing in ms. */
  readonly #entries: Float64Array;
  readonly #tables: (TableList | null)[];
  /** Entries that hold tables; mostly none does. */
  #withTables = 0;
  #head = 0;
  #tail = 0;

  /** @param entries - places, a power of two; one of them stays free */
  constructor(entries: number) {
    assert(isPowerOfTwo(entries) && entries >= 2, "a ring has a power of two of places");
    this.#mask = entries - 1;
    this.#entries = new Float64Array(entries * STRIDE);
    this.#tables = [];
  }

  get isEmpty(): boolean {
    return this.#head === this.#tail;
  }

  get isFull(): boolean {
    return ((this.#tail + 1) & this.#mask) === this.#head;
  }

  /** Entries in the ring. */
  get length(): number {
    return (this.#tail - this.#head) & this.#mask;
  }

  /** First page of the oldest entry. */
  get pfn(): number {
    return this.#entries[this.#head * STRIDE]!;
  }

  /** Pages of the oldest entry. */
  get pages(): number {
    return this.#entries[this.#head * STRIDE + 1]!;
  }

  /** Flushes that had been started when the oldest entry was queued. */
  get flushesStarted(): number {
    return this.#entries[this.#head * STRIDE + 2]!;
  }

  /** When the oldest entry was queued. */
  get queuedMs(): number {
    return this.#entries[this.#head * STRIDE + 3]!;
  }

  /** Page-table tables that the oldest entry holds. */
  get tables(): TableList | null {
    return this.#withTables === 0 ? null : (this.#tables[this.#head] ?? null);
  }

  /** Appends an entry. The ring must not be full. */
  push(
    pfn: number,
    pages: number,
    tables: TableList | null,
    flushesStarted: number,
    nowMs: number,
  ): void {
    assert(!this.isFull, "a ring has a free place after a flush");
    const at = this.#tail * STRIDE;
    this.#entries[at] = pfn;
    this.#entries[at + 1] = pages;
    this.#entries[at + 2] = flushesStarted;
    this.#entries[at + 3] = nowMs;
    if (tables !== null) {
      this.#tables[this.#tail] = tables;
      this.#withTables += 1;
    }
    this.#tail = (this.#tail + 1) & this.#mask;
  }

  /** Removes the oldest entry. The ring must not be empty. */
  shift(): void {
    assert(!this.isEmpty, "a ring that gives an entry has one");
    if (this.tables !== null) {
      this.#tables[this.#head] = null;
      this.#withTables -= 1;
    }
    this.#head = (this.#head + 1) & this.#mask;
  }

  /** An independent copy; lists of tables are shared. */
  clone(): FlushRing {
    const copy = new FlushRing(this.#mask + 1);
    copy.#entries.set(this.#entries);
    for (const [index, tables] of this.#tables.entries()) copy.#tables[index] = tables ?? null;
    copy.#withTables = this.#withTables;
    copy.#head = this.#head;
    copy.#tail = this.#tail;
    return copy;
  }
}
