/**
 * A number of equal servers with one queue in front: walkers of an IOMMU, CPUs, and with a single
 * server a lock. Who comes first is served first.
 */
import { assert } from "../errors.ts";
import type { Engine } from "./engine.ts";
import { WaitRing } from "./wait-ring.ts";

/** What a pool was used for so far; times in picoseconds. */
export interface PoolUse {
  /** Requests granted. */
  readonly granted: number;
  /** Requests that had to wait. */
  readonly waited: number;
  /** Sum of the times that requests waited. */
  readonly waitTime: number;
  /** Sum over the servers of the times in which they were held. */
  readonly busyTime: number;
  /** The most requests that waited at once. */
  readonly waitingMax: number;
}

/** A pool of servers. */
export class ServerPool {
  readonly servers: number;
  readonly #engine: Engine;
  readonly #waiting: WaitRing;
  #busy = 0;
  #granted = 0;
  #waited = 0;
  #waitTime = 0;
  #busyTime = 0;
  #waitingMax = 0;
  #changed = 0;

  /** @param servers - at least 1 */
  constructor(engine: Engine, servers: number) {
    assert(Number.isInteger(servers) && servers >= 1, "a pool has at least one server");
    this.#engine = engine;
    this.servers = servers;
    this.#waiting = new WaitRing();
  }

  /** Servers held. */
  get busy(): number {
    return this.#busy;
  }

  /** Requests waiting. */
  get waiting(): number {
    return this.#waiting.count;
  }

  /** Asks for a server; the event comes when one is granted, at once if one is free. */
  acquire(handler: number, a = 0, b = 0): void {
    if (this.#busy < this.servers) {
      this.#account();
      this.#busy += 1;
      this.#granted += 1;
      this.#engine.after(0, handler, a, b);
      return;
    }
    this.#waiting.put(this.#engine.now, handler, a, b);
    if (this.#waiting.count > this.#waitingMax) this.#waitingMax = this.#waiting.count;
  }

  /** Takes a server if one is free, without waiting. @returns whether it was */
  tryAcquire(): boolean {
    if (this.#busy >= this.servers) return false;
    this.#account();
    this.#busy += 1;
    this.#granted += 1;
    return true;
  }

  /** Gives a server back; who waits longest gets it. */
  release(): void {
    assert(this.#busy > 0, "a server released was held");
    const waiting = this.#waiting;
    if (!waiting.take()) {
      this.#account();
      this.#busy -= 1;
      return;
    }
    this.#granted += 1;
    this.#waited += 1;
    this.#waitTime += this.#engine.now - waiting.time;
    this.#engine.after(0, waiting.handler, waiting.a, waiting.b);
  }

  /** What it was used for until now. */
  use(): PoolUse {
    this.#account();
    return {
      granted: this.#granted,
      waited: this.#waited,
      waitTime: this.#waitTime,
      busyTime: this.#busyTime,
      waitingMax: this.#waitingMax,
    };
  }

  #account(): void {
    const { now } = this.#engine;
    this.#busyTime += (now - this.#changed) * this.#busy;
    this.#changed = now;
  }
}
