import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { ExposureGroup, ExposureTotals } from "./exposure.ts";

type Action = { readonly waitNs: number; readonly open: number; readonly group: number };

const actions = fc.array(
  fc.record({
    waitNs: fc.integer({ min: 0, max: 1_000_000_000 }),
    /** Frames to expose; 0 closes. */
    open: fc.integer({ min: 0, max: 5 }),
    group: fc.integer({ min: 0, max: 2 }),
  }),
  { maxLength: 80 },
);

/** The plain twin: a list of exposures. */
function plainTotals(script: readonly Action[]) {
  let now = 0;
  let live: { at: number; pages: number; group: number }[] = [];
  const out = { count: 0, peakPages: 0, longestNs: 0, sumNs: 0, pageNs: 0, openPageNs: 0 };
  for (const { waitNs, open, group } of script) {
    now += waitNs;
    if (open > 0) {
      live.push({ at: now, pages: open, group });
      out.count += 1;
      out.peakPages = Math.max(
        out.peakPages,
        live.reduce((sum, { pages }) => sum + pages, 0),
      );
      continue;
    }
    for (const entry of live.filter((candidate) => candidate.group === group)) {
      const lasted = now - entry.at;
      out.longestNs = Math.max(out.longestNs, lasted);
      out.sumNs += lasted;
      out.pageNs += lasted * entry.pages;
    }
    live = live.filter((candidate) => candidate.group !== group);
  }
  for (const { at, pages } of live) out.openPageNs += (now - at) * pages;
  return out;
}

describe("exposures", () => {
  it("sum up to what a list of them gives", () => {
    fc.assert(
      fc.property(actions, (script) => {
        const totals = new ExposureTotals();
        const groups = [0, 1, 2].map(() => new ExposureGroup(totals));
        let now = 0;
        for (const { waitNs, open, group } of script) {
          now += waitNs;
          if (open > 0) groups[group]!.open(open, now);
          else groups[group]!.close(now);
        }
        const plain = plainTotals(script);
        expect({
          count: totals.count,
          peakPages: totals.peakPages,
          longestNs: totals.longestNs,
          sumNs: totals.sumNs,
          pageNs: totals.pageNs,
          openPageNs: groups.reduce((sum, group) => sum + group.openPageNs(now), 0),
        }).toEqual(plain);
      }),
      { seed: 11, numRuns: 300 },
    );
  });

  it("a close without an open exposure changes nothing", () => {
    const totals = new ExposureTotals();
    new ExposureGroup(totals).close(5);
    expect(totals).toEqual(new ExposureTotals());
  });
});
