import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { FrameMap } from "./frame-map.ts";

const GROUP = 2 ** 18;
const page = fc.oneof(
  fc.constantFrom(0, 512, GROUP - 512, GROUP),
  fc.integer({ min: 0, max: 1100 }),
  fc.integer({ min: GROUP - 600, max: GROUP + 600 }),
);
const count = fc.oneof(fc.integer({ min: 1, max: 1100 }), fc.constantFrom(512, GROUP));
const operation = fc.record({
  kind: fc.constantFrom("own" as const, "own" as const, "lent" as const, "remove" as const),
  page,
  count,
  pfn: fc.integer({ min: 0, max: 40 }).map((block) => block * 100),
});
type Operation = typeof operation extends fc.Arbitrary<infer T> ? T : never;

/** The plain twin: the last operation that touches a page says what it has. */
function entryIn(done: readonly Operation[], at: number): number {
  for (let index = done.length - 1; index >= 0; index -= 1) {
    const { kind, page: first, count: pages, pfn } = done[index]!;
    if (at < first || at >= first + (kind === "lent" ? 1 : pages)) continue;
    if (kind === "remove") return 0;
    return kind === "lent" ? -(pfn + 1) : pfn + 1 + at - first;
  }
  return 0;
}

function runIn(done: readonly Operation[], at: number, max: number): number {
  const first = entryIn(done, at);
  if (first < 0) return 1;
  let pages = 1;
  while (pages < max && entryIn(done, at + pages) === (first === 0 ? 0 : first + pages)) pages += 1;
  return pages;
}

describe("frames behind pages", () => {
  it("are what a plain list of the changes says, and so are their runs", () => {
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 12 }), fc.array(page), (changes, probes) => {
        const map = new FrameMap();
        const done: Operation[] = [];
        for (const change of changes) {
          if (change.kind === "own") map.set(change.page, change.count, change.pfn + 1);
          else if (change.kind === "lent") map.set(change.page, 1, -(change.pfn + 1));
          else {
            let at = change.page;
            map.remove(change.page, change.count, (pfn, pages, isLent) => {
              while (entryIn(done, at) === 0) at += 1;
              expect(entryIn(done, at)).toBe(isLent ? -(pfn + 1) : pfn + 1);
              expect(entryIn(done, at + pages - 1)).toBe(isLent ? -(pfn + 1) : pfn + pages);
              at += pages;
            });
            for (let rest = at; rest < change.page + Math.min(change.count, 1200); rest += 1)
              if (rest < change.page + change.count) expect(entryIn(done, rest)).toBe(0);
          }
          done.push(change);
        }
        const borders = changes.flatMap((change) => [
          change.page,
          change.page + change.count - 1,
          change.page + change.count,
        ]);
        for (const at of [...probes, ...borders]) {
          expect(map.entryAt(at)).toBe(entryIn(done, at));
          expect(map.runFrom(at, 1300)).toBe(runIn(done, at, 1300));
        }
      }),
    );
  });

  it("side by side over 16 GiB are one run and go as one piece", () => {
    const map = new FrameMap();
    map.set(0, 16 * GROUP, 1001);
    expect(map.runFrom(5, 2 ** 30)).toBe(16 * GROUP - 5);
    const gone: number[] = [];
    map.remove(3, 16 * GROUP - 6, (pfn, pages) => gone.push(pfn, pages));
    expect(gone).toEqual([1003, 16 * GROUP - 6]);
    expect([map.entryAt(2), map.entryAt(3), map.entryAt(16 * GROUP - 3)]).toEqual([
      1003,
      0,
      1001 + 16 * GROUP - 3,
    ]);
  });
});
