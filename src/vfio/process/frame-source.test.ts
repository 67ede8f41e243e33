import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  contiguousFrames,
  type FrameSource,
  listedFrames,
  numaFrames,
  scatteredFrames,
} from "./frame-source.ts";

const operation = fc.oneof(
  fc.record({ kind: fc.constant("take" as const), pages: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ kind: fc.constant("block" as const), order: fc.integer({ min: 0, max: 5 }) }),
  fc.record({ kind: fc.constant("give" as const), which: fc.nat(), pages: fc.nat() }),
);
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** No frame is given twice, none lies outside, blocks are aligned, and all can be had. */
function obeys(source: FrameSource, isInside: (pfn: number) => boolean, steps: Operation[]) {
  const out: number[] = [];
  const taken = new Set<number>();
  const note = (pfn: number, pages: number) => {
    for (let frame = pfn; frame < pfn + pages; frame += 1) {
      expect(isInside(frame)).toBe(true);
      expect(taken.has(frame)).toBe(false);
      taken.add(frame);
      out.push(frame);
    }
  };
  for (const step of steps) {
    if (step.kind === "take") {
      const pfn = source.take(step.pages, 0);
      if (pfn < 0) continue;
      expect(source.takenPages).toBeLessThanOrEqual(step.pages);
      note(pfn, source.takenPages);
    } else if (step.kind === "block") {
      const pfn = source.takeBlock(step.order, 0);
      if (pfn < 0) continue;
      expect(pfn % 2 ** step.order).toBe(0);
      note(pfn, 2 ** step.order);
    } else if (out.length > 0) {
      const [pfn] = out.splice(step.which % out.length, 1);
      taken.delete(pfn!);
      source.give(pfn!, 1);
    }
  }
  for (let pfn = source.take(7, 0); pfn >= 0; pfn = source.take(7, 0)) note(pfn, source.takenPages);
  return taken.size;
}

describe("a source of frames", () => {
  const inside = (pfn: number) => pfn >= 77 && pfn < 77 + 300;
  const stretch = { basePfn: 77, pages: 300 };
  const runs = [
    { pfn: 330, pages: 47 },
    { pfn: 77, pages: 200 },
    { pfn: 277, pages: 53 },
  ];
  const sources: Record<string, () => FrameSource> = {
    contiguous: () => contiguousFrames(stretch),
    "of single pages": () => scatteredFrames({ ...stretch, unitPages: 1, seed: 1 }),
    "of 32 page units": () => scatteredFrames({ ...stretch, unitPages: 32, seed: 1 }),
    listed: () => listedFrames(runs),
    "of two nodes": () =>
      numaFrames(
        new Map([
          [0, contiguousFrames({ basePfn: 77, pages: 100, node: 0 })],
          [1, scatteredFrames({ basePfn: 177, pages: 200, node: 1, unitPages: 8, seed: 1 })],
        ]),
      ),
  };
  for (const [name, create] of Object.entries(sources))
    it(`gives each frame once and in the end all of them: ${name}`, () => {
      fc.assert(
        fc.property(fc.array(operation, { maxLength: 60 }), (steps) => {
          expect(obeys(create(), inside, steps)).toBe(300);
        }),
      );
    });

  it("in disorder depends on its seed alone, and is in disorder", () => {
    const order = (seed: number) => {
      const source = scatteredFrames({ basePfn: 1, pages: 1000, unitPages: 1, seed });
      return Array.from({ length: 1000 }, () => source.take(5, 0));
    };
    expect(order(7)).toEqual(order(7));
    expect(order(7)).not.toEqual(order(8));
    const neighbours = order(7).filter((pfn, index, all) => pfn === (all[index - 1] ?? 0) + 1);
    expect(neighbours.length).toBeLessThan(20);
  });

  it("knows the nodes of its frames and no others", () => {
    const source = sources["of two nodes"]!();
    expect([76, 77, 176, 177, 376, 377].map((pfn) => source.nodeOf(pfn))).toEqual([
      -1, 0, 0, 1, 1, -1,
    ]);
  });

  it("in a recorded order gives no block where the order has none", () => {
    const source = listedFrames(runs);
    expect(source.takeBlock(3, 0)).toBe(-1);
    expect(source.take(2, 0)).toBe(330);
  });
});
