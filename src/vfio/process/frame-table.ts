/**
 * What is known of each physical frame: who holds it, how often it is pinned, whether it is dirty.
 *
 * A frame goes back to its source when its owner has let go and the last pin is gone. Source:
 * include/linux/mm_types.h, struct folio; mm/gup.c: try_grab_folio, gup_put_folio,
 * unpin_user_page_range_dirty_lock.
 */
import { assert } from "../../errors.ts";
import type { FrameSource } from "./frame-source.ts";
import { BYTE_STATES, offsetIn, StateTable } from "./state-table.ts";

// A state is a count of pins, of 4 each, and two flags.
/** A process's or file's page table refers to the frame. */
const HELD = 1;
/** A device may have written to it. */
const DIRTY = 2;
const PIN = 4;

/**
 * Pins that a frame takes: each counts 1024 in a reference count of 31 bits
 * (include/linux/mm.h, GUP_PIN_COUNTING_BIAS), and GUP gives ENOMEM beyond.
 */
export const PINS_MAX = 2 ** 21 - 1;

const tables = new WeakMap<FrameSource, FrameTable>();

/**
 * The table of a source's frames, one for all who take frames from there: a machine has one
 * `struct page` for each frame, whichever process pins it and whichever lets go.
 */
export function frameTableOf(source: FrameSource): FrameTable {
  let table = tables.get(source);
  if (table === undefined) {
    table = new FrameTable(source);
    tables.set(source, table);
  }
  return table;
}

/** The frames of a machine. */
export class FrameTable {
  readonly #states = new StateTable();
  readonly #source: FrameSource;

  constructor(source: FrameSource) {
    this.#source = source;
  }

  /** Marks frames fresh from the source as held. */
  hold(pfn: number, pages: number): void {
    if (pages > 1) {
      this.#states.update(pfn, pages, () => HELD);
      return;
    }
    const bytes = this.#states.bytesAround(pfn);
    const offset = offsetIn(pfn);
    if (bytes !== undefined && bytes[offset]! < BYTE_STATES) bytes[offset] = HELD;
    else this.#states.set(pfn, HELD);
  }

  /** Lets go of frames: those without a pin go back, the others with their last pin. */
  release(pfn: number, pages: number): void {
    this.#states.update(pfn, pages, (state, first, count) => {
      assert((state & HELD) !== 0, "a frame is let go of once");
      if (state >= PIN) return state & ~HELD;
      this.#source.give(first, count);
      return 0;
    });
  }

  /** Pins frames, as many as take a pin more. @returns how many, from the first on */
  pin(pfn: number, pages: number): number {
    if (pages === 1) {
      const bytes = this.#states.bytesAround(pfn);
      if (bytes === undefined) return this.#pinSlowly(pfn);
      const offset = offsetIn(pfn);
      const state = bytes[offset]!;
      if (state >= BYTE_STATES - PIN) return this.#pinSlowly(pfn);
      bytes[offset] = state + PIN;
      return 1;
    }
    let full = pages;
    this.#states.update(pfn, pages, (state, first) => {
      if (state >= PINS_MAX * PIN) full = Math.min(full, first - pfn);
      return first - pfn < full ? state + PIN : state;
    });
    return full;
  }

  /** Takes one pin off each frame; a frame that nobody holds goes back with its last pin. */
  unpin(pfn: number, pages: number, isDirty: boolean): void {
    const mark = isDirty ? DIRTY : 0;
    if (pages === 1) {
      const bytes = this.#states.bytesAround(pfn);
      const offset = offsetIn(pfn);
      const state = bytes === undefined ? BYTE_STATES : bytes[offset]!;
      if (bytes !== undefined && state < BYTE_STATES)
        bytes[offset] = this.#withoutPin(state, mark, pfn, 1);
      else this.#states.set(pfn, this.#withoutPin(this.#states.get(pfn), mark, pfn, 1));
      return;
    }
    this.#states.update(pfn, pages, (state, first, count) =>
      this.#withoutPin(state, mark, first, count),
    );
  }

  /** Reads states of frames ahead; see {@link StateTable.warm}. */
  warm(entries: Float64Array, from: number, end: number): number {
    return this.#states.warm(entries, from, end);
  }

  /** How often a frame is pinned. */
  pinsOf(pfn: number): number {
    return Math.floor(this.#states.get(pfn) / PIN);
  }

  /** Whether a device may have written to a frame. */
  isDirty(pfn: number): boolean {
    return (this.#states.get(pfn) & DIRTY) !== 0;
  }

  /** Calls a function for each piece of a range that is pinned alike. */
  visitPins(
    pfn: number,
    pages: number,
    visitor: (pins: number, pfn: number, pages: number) => void,
  ): void {
    this.#states.visit(pfn, pages, (state, first, count) =>
      visitor(Math.floor(state / PIN), first, count),
    );
  }

  #pinSlowly(pfn: number): number {
    const state = this.#states.get(pfn);
    if (state >= PINS_MAX * PIN) return 0;
    this.#states.set(pfn, state + PIN);
    return 1;
  }

  #withoutPin(state: number, mark: number, pfn: number, pages: number): number {
    assert(state >= PIN, "a frame is unpinned no more often than it was pinned");
    const left = (state - PIN) | mark;
    if (left >= PIN || (left & HELD) !== 0) return left;
    this.#source.give(pfn, pages);
    return 0;
  }
}
