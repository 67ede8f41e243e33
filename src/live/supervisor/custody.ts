/**
 * What the supervisor keeps of each device: the socket others connect to, the client's connection,
 * and copies of all descriptors that the client has given to a worker.
 */
import type { System } from "../system/system.ts";
import type { Kept } from "../worker/journal-transport.ts";

/** One device. */
export class DeviceCustody {
  readonly name: string;
  readonly listener: number;
  /** The client's socket; −1 without one. */
  connection = -1;
  readonly #system: System;
  /** By number in the worker. */
  readonly #kept = new Map<number, { readonly fd: number; readonly end: number }>();

  constructor(system: System, name: string, listener: number) {
    this.#system = system;
    this.name = name;
    this.listener = listener;
  }

  get keptCount(): number {
    return this.#kept.size;
  }

  /**
   * Takes descriptors over.
   *
   * @param taken - bytes of the stream that its reader had taken: descriptors kept for bytes behind
   *   these were kept by one that ended before it took them, and have come again; null for none
   * @returns false where this process has had no room for some of them
   */
  keep(kept: readonly Kept[], fds: readonly number[], taken: number | null): boolean {
    if (taken !== null) {
      const again = [...this.#kept].filter(([, { end }]) => end > taken);
      this.drop(again.map(([number]) => number));
    }
    for (const [index, { number, end }] of kept.entries()) {
      this.drop([number]);
      const fd = fds[index]!;
      if (fd < 0) continue;
      this.#system.ledger.hand(fd, `custody of ${this.name}`);
      this.#kept.set(number, { fd, end });
    }
    return fds.every((fd) => fd >= 0);
  }

  drop(numbers: readonly number[]): void {
    for (const number of numbers) {
      const kept = this.#kept.get(number);
      if (kept === undefined) continue;
      this.#kept.delete(number);
      this.#system.close(kept.fd);
    }
  }

  /** Everything in custody, in parts that fit into frames. */
  *parts(most: number): Iterable<{ readonly kept: Kept[]; readonly fds: number[] }> {
    const all = [...this.#kept].map(([number, { fd, end }]) => ({ number, fd, end }));
    for (let from = 0; from < all.length; from += most) {
      const part = all.slice(from, from + most);
      const kept = part.map(({ number, end }) => ({ number, end }));
      yield { kept, fds: part.map(({ fd }) => fd) };
    }
  }

  /** The client has gone. @param isEnded - tells the client so, too */
  disconnect(isEnded: boolean): void {
    this.drop([...this.#kept.keys()]);
    if (this.connection < 0) return;
    if (isEnded) this.#system.shutdown(this.connection);
    this.#system.close(this.connection);
    this.connection = -1;
  }

  dispose(): void {
    this.disconnect(true);
    this.#system.close(this.listener);
  }
}
