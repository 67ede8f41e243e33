import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SeenFrames } from "./seen-frames.ts";

describe("SeenFrames", () => {
  it("knows what a Set of frames knows", () => {
    const range = fc.tuple(
      fc.oneof(fc.integer({ min: 0, max: 100_000 }), fc.integer({ min: 32_700, max: 32_800 })),
      fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 3000 })),
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.boolean(), range), { maxLength: 40 }), (steps) => {
        const seen = new SeenFrames();
        const plain = new Set<number>();
        for (const [isAdd, [pfn, pages]] of steps) {
          const frames = Array.from({ length: pages }, (_, index) => pfn + index);
          if (isAdd) {
            seen.add(pfn, pages);
            for (const frame of frames) plain.add(frame);
          } else {
            expect(seen.hasAny(pfn, pages)).toBe(frames.some((frame) => plain.has(frame)));
          }
        }
      }),
      { seed: 6, numRuns: 100 },
    );
  });

  it("takes a range of the whole space without work in its size", () => {
    const seen = new SeenFrames();
    seen.add(0x1000, 1);
    expect(seen.hasAny(0, 2 ** 52)).toBe(true);
    expect(seen.hasAny(2 ** 40, 2 ** 51)).toBe(false);
    seen.add(0, 2 ** 52);
    expect(seen.hasAny(0x5000, 1)).toBe(true);
  });
});
