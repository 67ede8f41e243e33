/** The array of cache entries against a plain list of them. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { PFN_LAST } from "../units.ts";
import type { ReplacementPolicy } from "./replacement.ts";
import { ANY_PASID, NO_PASID, TagArray } from "./tag-array.ts";

interface PlainEntry {
  domain: number;
  pasid: number;
  shift: number;
  first: number;
  last: number;
  value: number;
}

/** Searches by comparing everything. */
class PlainEntries {
  list: PlainEntry[] = [];

  find(domain: number, pasid: number, shift: number, first: number): PlainEntry | undefined {
    return this.list.find(
      (entry) =>
        entry.domain === domain &&
        entry.pasid === pasid &&
        entry.shift === shift &&
        entry.first === first,
    );
  }

  remove(domain: number, pasid: number, first: number, last: number): number {
    const before = this.list.length;
    this.list = this.list.filter(
      (entry) =>
        entry.domain !== domain ||
        (pasid !== ANY_PASID && entry.pasid !== pasid) ||
        entry.first > last ||
        entry.last < first,
    );
    return before - this.list.length;
  }
}

const shifts = [12, 13, 21, 30, 57];
const framesOf = (shift: number) => 2 ** (shift - 12);

function snapshot(entries: TagArray): PlainEntry[] {
  const list: PlainEntry[] = [];
  for (let slot = 0; slot < entries.slotCount; slot += 1) {
    if (!entries.isLive(slot)) continue;
    const shift = entries.blockShiftAt(slot);
    const first = entries.firstPfnAt(slot);
    list.push({
      domain: entries.domainAt(slot),
      pasid: entries.pasidAt(slot),
      shift,
      first,
      last: first + framesOf(shift) - 1,
      value: entries.valueAt(slot),
    });
  }
  return list;
}

const byKey = (a: PlainEntry, b: PlainEntry) =>
  a.domain - b.domain || a.pasid - b.pasid || a.shift - b.shift || a.first - b.first;

const pfn = fc.oneof(
  fc.integer({ min: 0, max: 2000 }),
  fc.integer({ min: 0, max: 2000 }).map((low) => PFN_LAST - low),
  fc.integer({ min: 0, max: 2000 }).map((low) => 2 ** 32 + low),
);
const domain = fc.constantFrom(0, 1, 7, 0xffff_ffff);
const pasid = fc.constantFrom(NO_PASID, 0, 5, 2 ** 20 - 1);
const command = fc.oneof(
  fc.record({
    op: fc.constant("insert" as const),
    domain,
    pasid,
    shift: fc.constantFrom(...shifts),
    pfn,
  }),
  fc.record({
    op: fc.constant("range" as const),
    domain,
    pasid: fc.oneof(pasid, fc.constant(ANY_PASID)),
    pfn,
    pages: fc.oneof(fc.integer({ min: 1, max: 600 }), fc.constant(2 ** 40)),
  }),
  fc.record({ op: fc.constant("domain" as const), domain, pasid }),
  fc.record({ op: fc.constant("hold" as const), pfn }),
  fc.record({ op: fc.constant("release" as const), which: fc.nat(1000) }),
);

describe("TagArray", () => {
  it.each<ReplacementPolicy>(["lru", "plru", "fifo", "random"])(
    "with %s replacement holds what a plain list holds, minus what it displaced",
    (replacement) => {
      const property = fc.property(
        // Sets of 32 ways are not searched but indexed.
        fc.constantFrom([1, 4], [4, 2], [16, 8], [1, 32], [2, 32]),
        fc.array(command, { maxLength: 120, size: "max" }),
        ([sets, ways], commands) => {
          const entries = new TagArray({ sets: sets!, ways: ways!, replacement, seed: 3 });
          const plain = new PlainEntries();
          const held: number[] = [];
          const heldIn = (set: number) => held.filter((slot) => Math.floor(slot / ways!) === set);
          const dropDisplaced = (set: number) => {
            // Exactly one entry of the same set is gone; which one, the policy says.
            const live = new Set(snapshot(entries).map((entry) => entry.value));
            const gone = plain.list.filter((entry) => !live.has(entry.value));
            expect(gone).toHaveLength(1);
            const setOf = (entry: PlainEntry) => (entry.first / framesOf(entry.shift)) % sets!;
            expect(setOf(gone[0]!)).toBe(set);
            plain.list = plain.list.filter((entry) => entry !== gone[0]);
          };
          let value = 0;
          for (const step of commands) {
            if (step.op === "hold") {
              const set = step.pfn % sets!;
              const isFull = heldIn(set).length === ways;
              expect(entries.canHold(step.pfn)).toBe(!isFull);
              const slot = entries.hold(step.pfn);
              expect(slot >= 0).toBe(!isFull);
              if (entries.evicted) dropDisplaced(set);
              if (!isFull) held.push(slot);
            } else if (step.op === "release") {
              const [slot] = held.splice(step.which % Math.max(1, held.length), 1);
              if (slot !== undefined) entries.release(slot);
            } else if (step.op === "insert") {
              value += 1;
              const frames = framesOf(step.shift);
              const block = Math.floor(step.pfn / frames);
              const slot = entries.insert(
                step.domain,
                step.pasid,
                step.shift,
                block,
                value,
                value & 255,
              );
              const isNew = plain.find(step.domain, step.pasid, step.shift, block * frames);
              if (isNew === undefined && heldIn(block % sets!).length === ways) {
                expect(slot).toBe(-1);
                continue;
              }
              expect(held).not.toContain(slot);
              expect(entries.peek(step.domain, step.pasid, step.shift, block)).toBe(slot);
              expect(entries.rightsAt(slot)).toBe(value & 255);
              const known = plain.find(step.domain, step.pasid, step.shift, block * frames);
              if (known !== undefined) {
                known.value = value;
              } else {
                plain.list.push({
                  domain: step.domain,
                  pasid: step.pasid,
                  shift: step.shift,
                  first: block * frames,
                  last: block * frames + frames - 1,
                  value,
                });
              }
              if (entries.evicted) {
                dropDisplaced(block % sets!);
              }
            } else if (step.op === "range") {
              const last = Math.min(step.pfn + step.pages - 1, PFN_LAST);
              expect(entries.removeRange(step.domain, step.pasid, step.pfn, last)).toBe(
                plain.remove(step.domain, step.pasid, step.pfn, last),
              );
            } else {
              expect(entries.removeDomain(step.domain, step.pasid)).toBe(
                plain.remove(step.domain, step.pasid, 0, Number.POSITIVE_INFINITY),
              );
            }
          }
          expect(snapshot(entries).sort(byKey)).toEqual([...plain.list].sort(byKey));
          expect(entries.live).toBe(plain.list.length);
        },
      );
      fc.assert(property, { seed: 20261121, numRuns: 250 });
    },
  );

  it.each([0, ANY_PASID])("a range ends with its last frame (PASID tag %i)", (tag) => {
    const entries = new TagArray({ sets: 2, ways: 8, replacement: "lru" });
    for (const block of [9, 10, 20, 21]) entries.insert(1, 0, 12, block, 0, 0);
    // Wide enough to be a search through all entries.
    expect(entries.removeRange(1, tag, 10, 20)).toBe(2);
    expect([9, 10, 20, 21].map((block) => entries.peek(1, 0, 12, block) >= 0)).toEqual([
      true,
      false,
      false,
      true,
    ]);
  });

  it("evicts only when a set is full", () => {
    const entries = new TagArray({ sets: 2, ways: 2, replacement: "lru" });
    entries.insert(1, NO_PASID, 12, 0, 10, 3);
    entries.insert(1, NO_PASID, 12, 2, 12, 3);
    entries.insert(1, NO_PASID, 12, 1, 11, 3);
    expect(entries.evicted).toBe(false);
    entries.insert(1, NO_PASID, 12, 4, 14, 3);
    expect(entries.evicted).toBe(true);
    expect(entries.find(1, NO_PASID, 12, 0)).toBe(-1);
    expect(entries.find(1, NO_PASID, 12, 2)).toBeGreaterThanOrEqual(0);
    expect(entries.live).toBe(3);
  });

  it("clear empties it and tells how much was in it", () => {
    const entries = new TagArray({ sets: 4, ways: 1, replacement: "fifo" });
    for (let block = 0; block < 3; block += 1) entries.insert(1, NO_PASID, 12, block, 0, 0);
    expect(entries.clear()).toBe(3);
    expect([entries.live, entries.liveOf(12), entries.clear()]).toEqual([0, 0, 0]);
  });

  it("refuses sets that are no power of two, no ways, and more than 2^20 entries", () => {
    const make = (sets: number, ways: number) => () =>
      new TagArray({ sets, ways, replacement: "lru" });
    expect(make(3, 1)).toThrow(AssertionError);
    expect(make(4, 0)).toThrow(AssertionError);
    expect(make(2 ** 20, 2)).toThrow(AssertionError);
  });
});
