import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { SavedRegion } from "../vfio-user/dma-table.ts";
import { newStreamStorage, StreamMemory } from "../vfio-user/stream-memory.ts";
import { REGION_JOURNAL_BYTES, RegionJournal } from "./region-journal.ts";

const storage = newStreamStorage();
const buffer = new ArrayBuffer(REGION_JOURNAL_BYTES);

/** A journal of nothing, and the stream whose messages change it. */
function make() {
  const journal = new RegionJournal(buffer, 0, storage.words);
  journal.forget();
  return { journal, stream: new StreamMemory(storage) };
}

/** What somebody finds who takes over now. */
function found(isSettled = true): Map<number, SavedRegion> {
  const journal = new RegionJournal(buffer, 0, storage.words);
  if (isSettled) journal.settle();
  const regions = new Map<number, SavedRegion>();
  journal.load((slot, region) => regions.set(slot, region));
  return regions;
}

const region = (pfn: number, flags = 3): SavedRegion => ({
  pfn,
  pages: 2,
  filePage: 2 ** 41 + pfn,
  flags,
  fd: pfn === 0 ? -1 : 512,
});

type Step =
  | { readonly kind: "put" | "remove"; readonly slot: number; readonly pfn: number }
  | { readonly kind: "clear" };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom("put" as const, "remove" as const),
      slot: fc.nat(7),
      pfn: fc.nat(2 ** 30),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("clear" as const) }) },
);

/** One message's change, in the journal and in its twin, where it makes sense. */
function apply(each: Step, journal: RegionJournal, twin: Map<number, SavedRegion>): void {
  if (each.kind === "clear") {
    journal.clear();
    twin.clear();
  } else if (each.kind === "remove" && twin.has(each.slot)) {
    journal.remove(each.slot);
    twin.delete(each.slot);
  } else if (each.kind === "put" && !twin.has(each.slot)) {
    journal.put(each.slot, region(each.pfn, each.pfn & 3));
    twin.set(each.slot, region(each.pfn, each.pfn & 3));
  }
}

describe("regions in the journal", () => {
  it("are what messages made of them, less the one that does not count yet", () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(step, fc.boolean()), { maxLength: 40 }), (steps) => {
        const { journal, stream } = make();
        const twin = new Map<number, SavedRegion>();
        for (const [each, isKilled] of steps) {
          const before = new Map(twin);
          apply(each, journal, twin);
          if (isKilled) {
            // The successor handles the message again.
            expect(found()).toEqual(before);
            twin.clear();
            for (const [slot, kept] of before) twin.set(slot, kept);
            apply(each, journal, twin);
          }
          stream.commit();
          expect(found()).toEqual(twin);
        }
      }),
      { numRuns: 300 },
    );
  });

  it("of a message that is handled but does not count are there until somebody takes over", () => {
    const { journal, stream } = make();
    journal.put(0, region(5));
    stream.commit();
    journal.remove(0);
    expect(found(false).size).toBe(0);
    expect(found().get(0)).toEqual(region(5));
  });

  it("are forgotten with their client, and do not come back with a later one's", () => {
    const { journal, stream } = make();
    for (let slot = 0; slot < 5; slot += 1) journal.put(slot, region(slot));
    journal.forget();
    expect(found().size).toBe(0);
    journal.put(1, region(9));
    stream.commit();
    expect([...found()]).toEqual([[1, region(9)]]);
  });
});
