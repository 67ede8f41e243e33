import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { amdV1 } from "./formats/amd-v1.ts";
import { armStage1 } from "./formats/arm-stage1.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { choosePageRun, type PageRun } from "./page-size.ts";
import { PageTableTwin } from "./page-table-twin.suite.ts";

const sizes = [12, 21, 30];
const MIB = 256;
const GIB = 1024 * MIB;

function runs(shifts: readonly number[], iova: number, phys: number, pages: number): PageRun[] {
  const found: PageRun[] = [];
  for (let done = 0; done < pages; ) {
    const run = { pageShift: 0, count: 0 };
    if (!choosePageRun(shifts, iova + done, phys + done, pages - done, run)) break;
    done += run.count * 2 ** (run.pageShift - 12);
    found.push(run);
  }
  return found;
}

describe("choosePageRun, worked values of §1.6", () => {
  it.each([
    [
      "row 95: 8M at 0x1000",
      1,
      1,
      8 * MIB,
      [
        [12, 511],
        [21, 3],
        [12, 1],
      ],
    ],
    [
      "2M + 4K at 0x1ff000",
      0x1ff,
      0x1ff,
      2 * MIB + 1,
      [
        [12, 1],
        [21, 1],
      ],
    ],
    ["2M at 0x1ff000", 0x1ff, 0x1ff, 2 * MIB, [[12, 512]]],
    ["physical side off by a page", 2 * MIB, 2 * MIB + 1, 64 * MIB, [[12, 64 * MIB]]],
    ["192G at 0", 0, 0, 192 * GIB, [[30, 192]]],
    [
      "192G at 0x3fe00000",
      0x3_fe00,
      0x3_fe00,
      192 * GIB,
      [
        [21, 1],
        [30, 191],
        [21, 511],
      ],
    ],
    ["row 108: 192G off by a page", GIB, GIB + 1, 192 * GIB, [[12, 50_331_648]]],
  ] as const)("%s", (_name, iova, phys, pages, expected) => {
    const found = runs(sizes, iova, phys, pages);
    expect(found.map((run) => [run.pageShift, run.count])).toEqual(expected);
  });

  it("finds nothing below the smallest size", () => {
    const run = { pageShift: 0, count: 0 };
    expect(choosePageRun([16, 29], 0, 0, 15, run)).toBe(false);
    expect(choosePageRun([16, 29], 8, 0, 16, run)).toBe(false);
    expect(choosePageRun([16, 29], 0, 8, 16, run)).toBe(false);
    expect(choosePageRun([16, 29], 16, 32, 16, run)).toBe(true);
  });

  it("knows no limit of alignment at address 0, nor of length at the top of the space", () => {
    const run = { pageShift: 0, count: 0 };
    choosePageRun(amdV1().pageShifts, 0, 0, 2 ** 52, run);
    expect(run).toEqual({ pageShift: 51, count: 2 ** 13 });
    choosePageRun(sizes, 2 ** 52 - 1, 2 ** 40 - 1, 1, run);
    expect(run).toEqual({ pageShift: 12, count: 1 });
  });
});

describe("choosePageRun against its plain twin", () => {
  const formats: readonly PageTableFormat[] = [
    vtdSecondStage({ levels: 5 }),
    amdV1(),
    armStage1({ granuleShift: 14, inputBits: 48, outputBits: 48 }),
    armStage1({ granuleShift: 16, inputBits: 52, outputBits: 52 }),
  ];
  const address = fc.tuple(fc.nat(40), fc.nat(600)).map(([shift, odd]) => odd * 2 ** shift);

  it.each(formats.map((format) => [format.name, format] as const))(
    "makes, on %s, the leaves that one step after another makes, in the longest runs",
    (_name, format) => {
      const property = fc.property(
        address,
        fc.oneof(fc.constant(0), address),
        fc.oneof(fc.integer({ min: 1, max: 3000 }), address),
        (iova, distance, pages) => {
          const run = { pageShift: 0, count: 0 };
          const phys = iova + distance;
          const best = PageTableTwin.bestFrames(format, iova, phys, Math.max(pages, 1));
          const found = choosePageRun(format.pageShifts, iova, phys, Math.max(pages, 1), run);
          expect(found).toBe(best > 0);
          if (!found) return;
          const frames = 2 ** (run.pageShift - 12);
          let left = Math.max(pages, 1);
          let leaf = 0;
          for (; leaf < Math.min(run.count, 2000); leaf += 1) {
            const at = leaf * frames;
            if (PageTableTwin.bestFrames(format, iova + at, phys + at, left) !== frames) break;
            left -= frames;
          }
          expect(leaf).toBe(Math.min(run.count, 2000));
          if (leaf < run.count) return;
          const at = leaf * frames;
          const next = left > 0 ? PageTableTwin.bestFrames(format, iova + at, phys + at, left) : 0;
          expect(next).not.toBe(frames);
        },
      );
      fc.assert(property, { seed: 11, numRuns: 300 });
    },
  );
});
