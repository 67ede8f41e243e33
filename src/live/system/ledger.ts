/**
 * The book of what is open: each descriptor and each mapping with who must close it, so that a
 * test, and a worker that ends, can say that nothing was left behind.
 */
import { assert } from "../../errors.ts";

/** One line of {@link Ledger.open}. */
export interface Held {
  readonly kind: "descriptor" | "mapping";
  /** Descriptor number, or address. */
  readonly id: number;
  readonly owner: string;
}

/** Descriptors and mappings with owners. */
export class Ledger {
  /** Told of each descriptor that is about to be closed. */
  struck: (fd: number) => void = () => {};
  readonly #descriptors = new Map<number, string>();
  readonly #mappings = new Map<number, string>();

  get descriptorCount(): number {
    return this.#descriptors.size;
  }

  get mappingCount(): number {
    return this.#mappings.size;
  }

  /** Everything that is open, in order of opening. */
  get open(): readonly Held[] {
    const line =
      (kind: Held["kind"]) =>
      ([id, owner]: [number, string]) => ({ kind, id, owner });
    return [
      ...[...this.#descriptors].map(line("descriptor")),
      ...[...this.#mappings].map(line("mapping")),
    ];
  }

  holds(fd: number): boolean {
    return this.#descriptors.has(fd);
  }

  /** Whom the descriptor belongs to, or undefined. */
  ownerOf(fd: number): string | undefined {
    return this.#descriptors.get(fd);
  }

  /** Enters a descriptor that was just opened, or that another process left to this one. */
  enter(fd: number, owner: string): number {
    assert(fd >= 0, "only an open descriptor has an owner");
    assert(!this.#descriptors.has(fd), `descriptor ${fd} has an owner already`);
    this.#descriptors.set(fd, owner);
    return fd;
  }

  /** As {@link enter}, for a call's result: an error passes through. */
  enterResult(result: number, owner: string): number {
    return result < 0 ? result : this.enter(result, owner);
  }

  /** Gives a descriptor to another owner. */
  hand(fd: number, owner: string): void {
    assert(this.#descriptors.has(fd), `descriptor ${fd} is not open`);
    this.#descriptors.set(fd, owner);
  }

  /** Strikes a descriptor that is about to be closed. */
  strike(fd: number): void {
    assert(this.#descriptors.delete(fd), `descriptor ${fd} is closed by one who does not hold it`);
    this.struck(fd);
  }

  enterMapping(address: number, owner: string): void {
    assert(!this.#mappings.has(address), "a mapping has one owner");
    this.#mappings.set(address, owner);
  }

  strikeMapping(address: number): void {
    assert(this.#mappings.delete(address), "a mapping is taken away once");
  }
}
