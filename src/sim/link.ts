/**
 * A link: what is sent over it takes its turn, then the time that its bytes need, then the way.
 * One direction; PCIe and an inter-node link have two of these.
 */
import { assert } from "../errors.ts";
import type { Engine } from "./engine.ts";

/** How fast a link is. */
export interface LinkSpeed {
  /** Time from the last byte's departure to its arrival, picoseconds. */
  readonly latency: number;
  /** Bytes a second, more than 0. */
  readonly bytesPerSecond: number;
}

/** What went over a link so far; times in picoseconds. */
export interface LinkUse {
  /** Of each transfer. */
  readonly latency: number;
  readonly transfers: number;
  readonly bytes: number;
  /** Time in which bytes were on their way into the link. */
  readonly busyTime: number;
  /** Sum of the times that transfers waited for their turn. */
  readonly waitTime: number;
}

const PS_PER_SECOND = 1e12;

/** One direction of a link. */
export class Link {
  readonly latency: number;
  readonly #engine: Engine;
  readonly #psPerByte: number;
  #freeAt = 0;
  #transfers = 0;
  #bytes = 0;
  #busyTime = 0;
  #waitTime = 0;

  constructor(engine: Engine, speed: LinkSpeed) {
    assert(Number.isInteger(speed.latency), "a latency is in whole picoseconds");
    assert(speed.latency >= 0, "a latency is not negative");
    assert(speed.bytesPerSecond > 0, "a link carries something");
    this.#engine = engine;
    this.latency = speed.latency;
    this.#psPerByte = PS_PER_SECOND / speed.bytesPerSecond;
  }

  /** Sends bytes; the event comes when the last one arrives. @returns that time */
  send(bytes: number, handler: number, a = 0, b = 0): number {
    const arrival = this.reserve(bytes);
    this.#engine.at(arrival, handler, a, b);
    return arrival;
  }

  /**
   * Takes the link for bytes as {@link send} does, without an event.
   *
   * @param from - when they come to the link; no call may name an earlier time than one before it
   * @returns when they arrive
   */
  reserve(bytes: number, from: number = this.#engine.now): number {
    const start = Math.max(this.#freeAt, from);
    const duration = Math.ceil(bytes * this.#psPerByte);
    this.#freeAt = start + duration;
    this.#transfers += 1;
    this.#bytes += bytes;
    this.#busyTime += duration;
    this.#waitTime += start - from;
    return start + duration + this.latency;
  }

  /** What went over it; a transfer counts from when it was sent. */
  use(): LinkUse {
    return {
      latency: this.latency,
      transfers: this.#transfers,
      bytes: this.#bytes,
      busyTime: this.#busyTime,
      waitTime: this.#waitTime,
    };
  }
}
