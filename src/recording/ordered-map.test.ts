import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { OrderedMap } from "./ordered-map.ts";

/** The plain twin: a Map and a sorted list of its keys. */
class PlainMap {
  readonly #values = new Map<number, number>();
  get size(): number {
    return this.#values.size;
  }
  get(key: number): number {
    return this.#values.get(key) ?? -1;
  }
  set(key: number, value: number): void {
    this.#values.set(key, value);
  }
  delete(key: number): boolean {
    return this.#values.delete(key);
  }
  keyBelow(key: number): number {
    return Math.max(-1, ...[...this.#values.keys()].filter((other) => other < key));
  }
  keyFrom(key: number): number {
    const from = [...this.#values.keys()].filter((other) => other >= key);
    return from.length === 0 ? -1 : Math.min(...from);
  }
}

describe("OrderedMap", () => {
  it("does what a Map with sorted keys does, over random operations", () => {
    const key = fc.oneof(fc.integer({ min: 0, max: 300 }), fc.constant(2 ** 52 - 1));
    const operation = fc.tuple(fc.constantFrom("set", "delete", "below", "from", "get"), key);
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 600, minLength: 200 }), (operations) => {
        const map = new OrderedMap();
        const plain = new PlainMap();
        for (const [index, [name, at]] of operations.entries()) {
          if (name === "set") {
            map.set(at, index);
            plain.set(at, index);
          } else if (name === "delete") {
            expect(map.delete(at)).toBe(plain.delete(at));
          } else if (name === "below") {
            expect(map.keyBelow(at)).toBe(plain.keyBelow(at));
          } else if (name === "from") {
            expect(map.keyFrom(at)).toBe(plain.keyFrom(at));
          } else {
            expect(map.get(at)).toBe(plain.get(at));
          }
          expect(map.size).toBe(plain.size);
        }
      }),
      { seed: 3, numRuns: 60 },
    );
  });

  it("reads and removes runs of neighbours across its blocks", () => {
    const run = fc.tuple(fc.integer({ min: 0, max: 499 }), fc.integer({ min: 1, max: 200 }));
    fc.assert(
      fc.property(fc.array(run, { minLength: 1, maxLength: 12 }), (runs) => {
        const map = new OrderedMap();
        let keys = Array.from({ length: 500 }, (_, index) => index * 3);
        for (const key of keys) map.set(key, key + 1);
        for (const [start, length] of runs) {
          const out: number[] = [];
          const first = keys[start % Math.max(1, keys.length)];
          if (first === undefined) break;
          const count = map.readRun(first, out, (value) => value < first + 3 * length);
          const expected = keys.filter((key) => key >= first).slice(0, count);
          expect(out.slice(0, count)).toEqual(expected.map((key) => key + 1));
          map.deleteRun(first, count);
          keys = keys.filter((key) => !expected.includes(key));
          expect(map.size).toBe(keys.length);
          expect(map.get(first)).toBe(-1);
          for (const key of keys) expect(map.get(key)).toBe(key + 1);
          expect(map.keyFrom(first)).toBe(keys.find((key) => key >= first) ?? -1);
          map.set(first, first + 1);
          keys = [...keys, first].sort((a, b) => a - b);
        }
        expect(map.readRun(1, [], () => true)).toBe(0);
      }),
      { seed: 7, numRuns: 60 },
    );
  });

  it("keeps 10 000 keys set in any order and gives them back", () => {
    for (const step of [1, 7919, 9999]) {
      const map = new OrderedMap();
      for (let index = 0; index < 10_000; index += 1) map.set((index * step) % 10_000, index);
      let key = map.keyFrom(0);
      for (let expected = 0; expected < 10_000; expected += 1) {
        expect(key).toBe(expected);
        key = map.keyFrom(key + 1);
      }
      for (let index = 0; index < 10_000; index += 1) {
        expect(map.delete((index * step) % 10_000)).toBe(true);
      }
      expect(map.size).toBe(0);
      expect(map.keyFrom(0)).toBe(-1);
    }
  });
});
