/**
 * Asynchronous events (1.4, 5.2): what the controller tells unasked, by completing a request that
 * the driver left with it. After one, its type is silent until its log page was read.
 */
import { EventType, LogPage } from "./protocol.ts";
import type { Slot, Slots } from "./slots.ts";

/** Log page that belongs to a type of event. */
const pages: Readonly<Record<number, number>> = {
  [EventType.ERROR]: LogPage.ERROR,
  [EventType.SMART]: LogPage.SMART,
};

/** What {@link Events.save} gives. */
export interface EventState {
  /** Pairs of type and information. */
  readonly pending: readonly (readonly [number, number])[];
  readonly masked: readonly number[];
}

/** The events of a controller: at most one of each type waits. */
export class Events {
  readonly #pending = new Map<number, number>();
  readonly #masked = new Set<number>();

  /** Something happened. @returns whether that was news */
  raise(type: number, information: number): boolean {
    if (this.#pending.has(type)) return false;
    this.#pending.set(type, information);
    return true;
  }

  /** A log page was read: its events may come again. @returns whether they were silent */
  unmask(page: number): boolean {
    let wasMasked = false;
    for (const type of [...this.#masked]) {
      if (pages[type] === page) wasMasked = this.#masked.delete(type) || wasMasked;
    }
    return wasMasked;
  }

  /** Gives events to requests. @returns whether any was given */
  deliver(slots: Slots, requests: readonly Slot[]): boolean {
    let given = 0;
    for (const [type, information] of [...this.#pending]) {
      if (this.#masked.has(type)) continue;
      const request = requests[given];
      if (request === undefined) break;
      given += 1;
      this.#pending.delete(type);
      this.#masked.add(type);
      slots.finish(request, 0, (type | (information << 8) | (pages[type]! << 16)) >>> 0);
    }
    return given > 0;
  }

  /** Whether one waits that could be given. */
  get isWaiting(): boolean {
    for (const type of this.#pending.keys()) if (!this.#masked.has(type)) return true;
    return false;
  }

  clear(): void {
    this.#pending.clear();
    this.#masked.clear();
  }

  save(): EventState {
    return { pending: [...this.#pending], masked: [...this.#masked] };
  }

  restore(state: EventState): void {
    this.clear();
    for (const [type, information] of state.pending) {
      if (type in pages) this.#pending.set(type, information & 0xff);
    }
    for (const type of state.masked) if (type in pages) this.#masked.add(type);
  }
}
