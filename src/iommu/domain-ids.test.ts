import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { DomainIds, LowestFree } from "./domain-ids.ts";

describe("LowestFree", () => {
  it("always gives the lowest number that a plain search finds free, then −1", () => {
    const property = fc.property(fc.array(fc.nat(9), { maxLength: 60, size: "max" }), (steps) => {
      const numbers = new LowestFree(8);
      const used = new Set<number>();
      for (const step of steps) {
        if (used.has(step)) {
          numbers.give(step);
          used.delete(step);
          continue;
        }
        const free = [0, 1, 2, 3, 4, 5, 6, 7].find((number) => !used.has(number)) ?? -1;
        expect(numbers.take()).toBe(free);
        if (free >= 0) used.add(free);
        expect(numbers.count).toBe(used.size);
      }
    });
    fc.assert(property, { seed: 20261121, numRuns: 300 });
  });

  it("does not take back what it did not give", () => {
    expect(() => new LowestFree(4).give(2)).toThrow(AssertionError);
  });
});

describe("DomainIds", () => {
  it("keep one number for an owner until its last use ends, and never give out 0", () => {
    const ids = new DomainIds(3);
    const [a, b, c] = [{}, {}, {}];
    expect([ids.acquire(a), ids.acquire(b), ids.acquire(a), ids.acquire(c)]).toEqual([1, 2, 1, -1]);
    expect([ids.release(a), ids.release(a), ids.acquire(c)]).toEqual([false, true, 1]);
    expect(() => ids.release(a)).toThrow(AssertionError);
  });
});
