/**
 * A loop that waits for descriptors in a blocking call and hands them to their handlers, then lets
 * every task do a bounded piece of its work, and begins again.
 *
 * Blocking costs a third of the latency of an event loop's thread pool and nothing while idle. Once
 * in a while the loop lets Node's own event loop have a turn, for what only runs there: signals,
 * and the return of unmapped memory. An exception of a handler or task is reported, never thrown.
 */
import { assert } from "../../errors.ts";
import { Poll, PollSet } from "../system/poll-set.ts";
import type { System } from "../system/system.ts";

const PLACES_FIRST = 16;
/** How often Node's event loop has a turn while there is traffic, microseconds. */
const YIELD_US = 500_000;

/** A descriptor that is waited for. */
export interface Watch {
  /** What to wait for: bits of {@link Poll}; 0 waits for nothing, an error included. */
  set(events: number): void;
  /** Ends the watch; the descriptor stays its owner's. */
  close(): void;
}

/** What takes part in every turn. */
export interface Task {
  /** A bounded piece of work. @returns whether there is more */
  work(): boolean;
  /** When it wants to be called although nothing is ready: microseconds from now, or −1. */
  readonly dueUs: number;
}

interface Place {
  readonly fd: number;
  readonly handler: (ready: number) => void;
  readonly name: string;
}

/** The loop. */
export class PollLoop {
  /** Turns so far; who watches over the loop sees that it moves. */
  turns = 0;
  /** When the last wait ended, on the system's clock: whoever is served has waited since then. */
  wokeAt = 0;
  /** Takes down how long each turn keeps everybody waiting, and each turn of Node's event loop. */
  turnTimes: { record(microseconds: number): void } | null = null;
  readonly #system: System;
  readonly #failed: (name: string, error: unknown) => void;
  #set: PollSet;
  readonly #places: (Place | null)[] = [];
  readonly #tasks = new Map<Task, string>();
  readonly #wake: number;
  #isStopped = false;
  #hasMore = false;
  #isMoved = false;

  /** @param failed - told what a handler or task threw, and which it was */
  constructor(system: System, failed: (name: string, error: unknown) => void) {
    this.#system = system;
    this.#failed = failed;
    this.#set = new PollSet(system, PLACES_FIRST, "poll loop");
    this.#wake = system.createEvent("poll loop");
    assert(this.#wake >= 0, "there is a descriptor to wake the loop by");
    this.watch(this.#wake, Poll.IN, () => system.drain(this.#wake), "wake");
  }

  /** An event counter: signalling it ends a wait. For other threads. */
  get wakeDescriptor(): number {
    return this.#wake;
  }

  /** Waits for a descriptor from now on. */
  watch(fd: number, events: number, handler: (ready: number) => void, name: string): Watch {
    let index = this.#places.indexOf(null);
    if (index < 0) {
      index = this.#places.length;
      this.#places.push(null);
      if (index >= this.#set.capacity) this.#grow();
    }
    const place: Place = { fd, handler, name };
    this.#places[index] = place;
    const set = (wanted: number) => {
      if (this.#places[index] !== place) return;
      this.#set.set(index, wanted === 0 ? -1 : fd, wanted);
    };
    set(events);
    const close = () => {
      if (this.#places[index] !== place) return;
      this.#places[index] = null;
      this.#set.clear(index);
    };
    return { set, close };
  }

  /** Lets a task take part in every turn. @returns ends that */
  add(task: Task, name: string): () => void {
    this.#tasks.set(task, name);
    return () => this.#tasks.delete(task);
  }

  /** Ends {@link run} after the turn. */
  stop(): void {
    this.#isStopped = true;
  }

  /** Goes round until it is stopped. */
  async run(): Promise<void> {
    let yieldAt = this.#system.now() + YIELD_US;
    while (!this.#isStopped) {
      this.turn(YIELD_US);
      const now = this.#system.now();
      this.turnTimes?.record(now - this.wokeAt);
      if (now < yieldAt) continue;
      await new Promise((resume) => setImmediate(resume));
      const resumed = this.#system.now();
      this.turnTimes?.record(resumed - now);
      yieldAt = resumed + YIELD_US;
    }
  }

  /** One turn: waits at most so long, serves what is ready, lets every task work. */
  turn(waitUsMax: number): void {
    const ready = this.#system.poll(this.#set, this.#timeout(waitUsMax));
    this.wokeAt = this.#system.now();
    this.turns += 1;
    if (ready > 0) this.#serve(ready);
    this.#hasMore = false;
    for (const [task, name] of this.#tasks) {
      try {
        if (task.work()) this.#hasMore = true;
      } catch (error) {
        this.#failed(name, error);
      }
    }
  }

  dispose(): void {
    this.#set.dispose();
    this.#system.close(this.#wake);
  }

  #timeout(waitUsMax: number): number {
    if (this.#hasMore) return 0;
    let timeout = waitUsMax;
    for (const task of this.#tasks.keys()) {
      const { dueUs } = task;
      if (dueUs >= 0 && (timeout < 0 || dueUs < timeout)) timeout = dueUs;
    }
    return timeout;
  }

  #serve(ready: number): void {
    let left = ready;
    const count = this.#places.length;
    this.#isMoved = false;
    for (let index = 0; index < count && left > 0 && !this.#isMoved; index += 1) {
      const came = this.#set.ready(index);
      const place = this.#places[index];
      if (came === 0) continue;
      left -= 1;
      this.#set.setReady(index, 0);
      if (place === null || place === undefined) continue;
      try {
        place.handler(came);
      } catch (error) {
        this.#failed(place.name, error);
      }
    }
  }

  /** More places; what was ready and not served yet shows again in the next turn. */
  #grow(): void {
    const grown = new PollSet(this.#system, this.#set.capacity * 4, "poll loop");
    for (let index = 0; index < this.#set.capacity; index += 1)
      grown.set(index, this.#set.fd(index), this.#set.events(index));
    this.#set.dispose();
    this.#set = grown;
    this.#isMoved = true;
  }
}
