/**
 * A disk as its host sees it: so many requests at once, each with its time on the medium, then the
 * data over a link of its own bandwidth.
 */
import { assert } from "../../errors.ts";
import type { Engine } from "../engine.ts";
import { Link } from "../link.ts";
import { ServerPool } from "../server-pool.ts";

/** What a disk can do. */
export interface DiskSpeed {
  /** Requests that it works on at once. */
  readonly channels: number;
  /** Time of a read on the medium before its data moves, nanoseconds. */
  readonly readNs: number;
  /** The same for a write, into the cache of the disk where it has one. */
  readonly writeNs: number;
  /** Bytes a second, reads and writes together. */
  readonly bytesPerSecond: number;
  /** Bytes a second of writes alone, where the medium takes them slower than the link brings them. */
  readonly writeBytesPerSecond?: number | undefined;
}

const PS_PER_NS = 1000;

/** A disk. */
export class Disk {
  readonly channels: ServerPool;
  readonly link: Link;
  /** What writes move over: the same, or the way onto the medium. */
  readonly writeLink: Link;
  readonly #engine: Engine;
  readonly #readPs: number;
  readonly #writePs: number;
  readonly #started: number;
  readonly #medium: number;
  readonly #moved: number;
  readonly #requests: { bytes: number; isWrite: boolean; handler: number; a: number }[] = [];
  readonly #free: number[] = [];

  constructor(engine: Engine, speed: DiskSpeed) {
    assert(speed.channels >= 1, "a disk works on at least one request");
    this.#engine = engine;
    this.channels = new ServerPool(engine, speed.channels);
    this.link = new Link(engine, { latency: 0, bytesPerSecond: speed.bytesPerSecond });
    const { writeBytesPerSecond } = speed;
    this.writeLink =
      writeBytesPerSecond === undefined
        ? this.link
        : new Link(engine, { latency: 0, bytesPerSecond: writeBytesPerSecond });
    this.#readPs = Math.round(speed.readNs * PS_PER_NS);
    this.#writePs = Math.round(speed.writeNs * PS_PER_NS);
    this.#started = engine.define((slot) => {
      const { isWrite } = this.#requests[slot]!;
      this.#engine.after(isWrite ? this.#writePs : this.#readPs, this.#medium, slot);
    });
    this.#medium = engine.define((slot) => {
      const { bytes, isWrite } = this.#requests[slot]!;
      (isWrite ? this.writeLink : this.link).send(bytes, this.#moved, slot);
    });
    this.#moved = engine.define((slot) => {
      const { handler, a } = this.#requests[slot]!;
      this.channels.release();
      this.#free.push(slot);
      this.#engine.after(0, handler, a);
    });
  }

  /** Hands a request over; the event comes when its data has moved. */
  submit(bytes: number, isWrite: boolean, handler: number, a = 0): void {
    const slot = this.#free.pop() ?? this.#requests.length;
    this.#requests[slot] = { bytes, isWrite, handler, a };
    this.channels.acquire(this.#started, slot);
  }
}
