import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { BYTE_STATES, offsetIn, StateTable } from "./state-table.ts";

const GROUP = 2 ** 18;

/** Pages around borders of blocks and groups, near and far. */
const page = fc.oneof(
  fc.integer({ min: 0, max: 1100 }),
  fc.integer({ min: GROUP - 600, max: GROUP + 600 }),
  fc.integer({ min: GROUP * 2 ** 14 - 600, max: GROUP * 2 ** 14 + 600 }),
);
const count = fc.oneof(fc.integer({ min: 1, max: 1100 }), fc.constant(GROUP));
const operation = fc.oneof(
  fc.record({ kind: fc.constant("add" as const), page, count, by: fc.constantFrom(1, 100, 400) }),
  fc.record({ kind: fc.constant("set" as const), page, count, by: fc.constantFrom(0, 7, 999) }),
);

/** The plain twin: changes in the order made, each looked at for every page asked for. */
function twinState(done: readonly { page: number; count: number; by: number; kind: string }[]) {
  return (at: number) => {
    let state = 0;
    for (const change of done) {
      if (at < change.page || at >= change.page + change.count) continue;
      state = change.kind === "add" ? state + change.by : change.by;
    }
    return state;
  };
}

describe("states of pages", () => {
  it("are what a plain list of the changes says, whatever is changed", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 12 }), fc.array(page), (changes, probes) => {
        const table = new StateTable();
        for (const change of changes) {
          const { by } = change;
          const isSet = change.kind === "set";
          if (change.count === 1 && isSet) table.set(change.page, by);
          else table.update(change.page, change.count, (state) => (isSet ? by : state + by));
        }
        const twin = twinState(changes);
        const borders = changes.flatMap((change) => [
          change.page - 1,
          change.page,
          change.page + change.count - 1,
          change.page + change.count,
        ]);
        for (const at of [...probes, ...borders]) {
          if (at < 0) continue;
          expect(table.get(at)).toBe(twin(at));
          const byte = table.bytesAround(at)?.[offsetIn(at)] ?? BYTE_STATES;
          if (byte < BYTE_STATES) expect(byte).toBe(twin(at));
          // Storing a single state takes it out of its block and changes no other.
          table.set(at, twin(at));
        }
        for (const at of borders) if (at >= 0) expect(table.get(at)).toBe(twin(at));
      }),
    );
  });

  it("are visited in pieces that agree and cover the range once", () => {
    const table = new StateTable();
    table.update(100, 3 * GROUP, () => 5);
    table.set(GROUP + 700, 6);
    let at = 90;
    const seen = new Map<number, number>();
    table.visit(90, 3 * GROUP + 20, (state, first, pages) => {
      expect(first).toBe(at);
      at += pages;
      seen.set(state, (seen.get(state) ?? 0) + pages);
    });
    expect(at).toBe(90 + 3 * GROUP + 20);
    expect([...seen].sort()).toEqual([
      [0, 20],
      [5, 3 * GROUP - 1],
      [6, 1],
    ]);
  });

  it("of whole groups change in one piece a group", () => {
    const table = new StateTable();
    let pieces = 0;
    table.update(0, 64 * GROUP, (state) => {
      pieces += 1;
      return state + 1;
    });
    expect(pieces).toBe(64);
  });
});
