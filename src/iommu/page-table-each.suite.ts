/** Mapping pages each to a frame of its own, held equal to single maps, for every format. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { PagePool } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { PageTable } from "./page-table.ts";
import { PROT_RW } from "./prot.ts";

function makeTable(format: PageTableFormat) {
  const pool = new PagePool([{ node: 0, basePfn: 0x10_0000, frameCount: 64 }]);
  const meter = new CountingMeter();
  return { pool, meter, table: new PageTable({ format, pool, node: 0, meter }) };
}

/** Maps frame by frame, up to one that fails. */
function mapSingly(table: PageTable, iovaPfn: number, pfns: Float64Array): [number, number] {
  for (let done = 0; done < pfns.length; done += 1) {
    const errno = table.map(iovaPfn + done, pfns[done]!, 1, PROT_RW);
    if (errno !== 0) return [errno, done];
  }
  return [0, pfns.length];
}

/** @param create - makes the format */
export function describeMapEach(create: () => PageTableFormat): void {
  it("mapEach does what a map for each frame does: occupied, outside, without memory", () => {
    const frame = fc.oneof(
      { weight: 40, arbitrary: fc.nat(2 ** 20) },
      { weight: 1, arbitrary: fc.constant(2 ** 51) },
    );
    const calls = fc.array(
      fc.tuple(fc.nat(1500), fc.array(frame, { maxLength: 700, size: "max" })),
      {
        maxLength: 6,
      },
    );
    fc.assert(
      fc.property(calls, fc.nat(9), (given, allocations) => {
        const each = makeTable(create());
        const singly = makeTable(create());
        each.pool.failAfter(allocations, 1);
        singly.pool.failAfter(allocations, 1);
        for (const [iovaPfn, list] of given) {
          const pfns = Float64Array.from(list);
          const errno = each.table.mapEach(iovaPfn, pfns, pfns.length, PROT_RW);
          const expected = mapSingly(singly.table, iovaPfn, pfns);
          expect([errno, each.table.mappedPages]).toEqual(expected);
        }
        expect(each.table.dump()).toEqual(singly.table.dump());
        expect(each.meter.amount("entryWrite")).toBe(singly.meter.amount("entryWrite"));
      }),
      { seed: 1, numRuns: 20 },
    );
  });
}
