import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { Replacement } from "./replacement.ts";

describe("Replacement", () => {
  it("LRU gives up the slot used longest ago", () => {
    const state = new Replacement("lru", 2, 4, 0);
    for (const slot of [4, 5, 6, 7]) state.filled(slot);
    state.touch(4);
    expect(state.victim(1)).toBe(5);
    state.touch(5);
    expect(state.victim(1)).toBe(6);
  });

  it("FIFO gives up the slot filled first, however often it was used", () => {
    const state = new Replacement("fifo", 1, 3, 0);
    for (const slot of [2, 0, 1]) state.filled(slot);
    for (let use = 0; use < 5; use += 1) state.touch(2);
    expect(state.victim(0)).toBe(2);
    state.filled(2);
    expect(state.victim(0)).toBe(0);
  });

  it.each(["lru", "fifo"] as const)(
    "%s of 40 ways gives up what a plain list has first",
    (name) => {
      const act = fc.record({
        kind: fc.constantFrom("use", "fill", "hold", "release"),
        slot: fc.nat(79),
      });
      const check = fc.property(fc.array(act, { maxLength: 200 }), (acts) => {
        const state = new Replacement(name, 2, 40, 0);
        const order = [0, 1].map((set) => Array.from({ length: 40 }, (_, way) => set * 40 + way));
        const held = new Set<number>();
        for (const { kind, slot } of acts) {
          const list = order[Math.floor(slot / 40)]!;
          const takeOut = () => list.splice(list.indexOf(slot), 1);
          if (kind === "release") {
            if (!held.delete(slot)) continue;
            state.release(slot);
            list.push(slot);
          } else if (!held.has(slot)) {
            if (kind === "use") state.touch(slot);
            if (kind === "fill") state.filled(slot);
            if (kind === "hold") state.hold(slot);
            if (kind === "hold") held.add(slot);
            if (kind === "use" && name === "fifo") continue;
            takeOut();
            if (kind !== "hold") list.push(slot);
          }
          for (const set of [0, 1]) {
            const [oldest] = order[set]!;
            if (oldest !== undefined) expect(state.victim(set)).toBe(oldest);
          }
        }
      });
      fc.assert(check, { seed: 7, numRuns: 100 });
    },
  );

  it("PLRU follows the tree away from the slots used last", () => {
    const state = new Replacement("plru", 1, 4, 0);
    for (const slot of [0, 1, 2, 3]) state.filled(slot);
    // The root points left, the left node points at way 0.
    expect(state.victim(0)).toBe(0);
    state.touch(0);
    // Root right, right node at way 2.
    expect(state.victim(0)).toBe(2);
    state.touch(2);
    // Root left again; way 0 was used, so the left node points at way 1.
    expect(state.victim(0)).toBe(1);
  });

  it("PLRU of 32 ways never gives up the slot used last", () => {
    const state = new Replacement("plru", 3, 32, 0);
    for (let way = 0; way < 32; way += 1) state.filled(64 + way);
    for (let step = 0; step < 200; step += 1) {
      const slot = 64 + ((step * 7) % 32);
      state.touch(slot);
      expect(state.victim(2)).not.toBe(slot);
    }
  });

  it("random gives up every way, the same ones for the same seed", () => {
    const draw = (seed: number) => {
      const state = new Replacement("random", 4, 8, seed);
      return Array.from({ length: 100 }, () => state.victim(3));
    };
    expect(new Set(draw(1)).size).toBe(8);
    expect(Math.min(...draw(1))).toBe(24);
    expect(draw(1)).toEqual(draw(1));
    expect(draw(1)).not.toEqual(draw(2));
  });

  it("refuses a pseudo-LRU tree of 3 or of 64 ways", () => {
    expect(() => new Replacement("plru", 1, 3, 0)).toThrow(AssertionError);
    expect(() => new Replacement("plru", 1, 64, 0)).toThrow(AssertionError);
  });
});
