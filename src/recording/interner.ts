/**
 * Gives small numbers to byte strings that come back again and again (task, event and device
 * names), without making a JavaScript string for each line. Bounded: when full, further strings
 * share one last number.
 */
import { assert } from "../errors.ts";

const decoder = new TextDecoder("utf-8");

/** Numbers byte strings 0, 1, 2 … in order of first appearance and counts them. */
export class Interner {
  readonly #limit: number;
  readonly #names: string[] = [];
  readonly #keys: Uint8Array[] = [];
  /** How often each was counted. */
  readonly #counts: number[] = [];
  /** Open addressing: number + 1 of the string at each place, 0 where none is. */
  #table = new Int32Array(64);

  /** @param limit - how many different strings are kept apart */
  constructor(limit = 4096) {
    assert(limit > 0, "an interner holds at least one string");
    this.#limit = limit;
  }

  /** How many different numbers were given. */
  get size(): number {
    return this.#names.length;
  }

  /** The number of a byte string. */
  intern(bytes: Uint8Array, start: number, end: number): number {
    const mask = this.#table.length - 1;
    let hash = 0x811c_9dc5;
    for (let at = start; at < end; at += 1) hash = Math.imul(hash ^ bytes[at]!, 0x0100_0193);
    let place = (hash ^ (hash >>> 15)) & mask;
    for (;;) {
      const found = this.#table[place]!;
      if (found === 0) return this.#add(bytes, start, end, place);
      if (this.#equals(found - 1, bytes, start, end)) return found - 1;
      place = (place + 1) & mask;
    }
  }

  /** Counts one more appearance of a number. */
  count(index: number): void {
    this.#counts[index]! += 1;
  }

  /** The string of a number. */
  name(index: number): string {
    return this.#names[index] ?? "";
  }

  /** The counted strings, most frequent first, then by name. */
  counts(): { readonly name: string; readonly count: number }[] {
    return this.#names
      .map((name, index) => ({ name, count: this.#counts[index]! }))
      .filter((entry) => entry.count > 0)
      .sort((a, b) => b.count - a.count || (a.name < b.name ? -1 : 1));
  }

  #equals(index: number, bytes: Uint8Array, start: number, end: number): boolean {
    const key = this.#keys[index]!;
    if (key.length !== end - start) return false;
    for (let at = 0; at < key.length; at += 1) {
      if (key[at] !== bytes[start + at]) return false;
    }
    return true;
  }

  #add(bytes: Uint8Array, start: number, end: number, place: number): number {
    const index = this.#names.length;
    if (index > this.#limit) return this.#limit;
    if (index === this.#limit) {
      this.#names.push("(others)");
      this.#keys.push(new Uint8Array(0));
      this.#counts.push(0);
      return index;
    }
    this.#names.push(decoder.decode(bytes.subarray(start, end)));
    this.#keys.push(bytes.slice(start, end));
    this.#counts.push(0);
    this.#table[place] = index + 1;
    if (this.#keys.length * 2 > this.#table.length) this.#grow();
    return index;
  }

  #grow(): void {
    this.#table = new Int32Array(this.#table.length * 2);
    const mask = this.#table.length - 1;
    for (const [index, key] of this.#keys.entries()) {
      let hash = 0x811c_9dc5;
      for (const byte of key) hash = Math.imul(hash ^ byte, 0x0100_0193);
      let place = (hash ^ (hash >>> 15)) & mask;
      while (this.#table[place] !== 0) place = (place + 1) & mask;
      this.#table[place] = index + 1;
    }
  }
}
