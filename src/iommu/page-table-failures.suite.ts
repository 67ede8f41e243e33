/** Every allocation of a page table made to fail in turn: part of the suite of all formats. */
import { expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { PagePool } from "../memory/page-pool.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { IotlbGather } from "./gather.ts";
import { PageTable } from "./page-table.ts";
import { PROT_RW } from "./prot.ts";

/** Frames that are mapped. */
function mappedFrames(table: PageTable): number {
  let frames = 0;
  table.forEachLeaf((leaf) => {
    frames += 2 ** (leaf.pageShift - 12);
  });
  return frames;
}

/** The n-th failure sweep. */
export function describeTableFailures(create: () => PageTableFormat): void {
  it("survives the failure of every allocation in turn", () => {
    const format = create();
    let failures = 0;
    for (let nth = 0; nth < 200; nth += 1) {
      const pool = new PagePool([{ node: 0, basePfn: 0x1000, frameCount: 1024 }]);
      pool.failAfter(nth, 1);
      const table = PageTable.create({ format, pool });
      if (table === null) {
        expect(pool.usedFrames).toBe(0);
        failures += 1;
        continue;
      }
      const granule = 2 ** (format.granuleShift - 12);
      const gather = new IotlbGather();
      const span = (format.maskOf[0]! + 1) * granule;
      const ranges: [number, number, number][] = [
        [2 * span - 3 * granule, granule, span + 6 * granule],
        [table.apertureLastPfn - 4 * granule + 1, 5 * granule, 4 * granule],
      ];
      for (const [iova, phys, pages] of ranges) {
        const errno = table.map(iova, phys, pages, PROT_RW);
        const mapped = table.mappedPages;
        expect(errno === Errno.OK).toBe(mapped === pages);
        if (errno === Errno.OK) continue;
        expect(errno).toBe(Errno.ENOMEM);
        let wrong = 0;
        for (let page = 0; page < pages; page += granule) {
          const expected = page < mapped ? phys + page : -1;
          if (table.iovaToPhys(iova + page) !== expected) wrong += 1;
        }
        expect(wrong).toBe(0);
        expect(table.unmap(iova, mapped, gather)).toBe(mapped);
        expect(table.map(iova, phys, pages, PROT_RW)).toBe(Errno.OK);
      }
      expect(mappedFrames(table)).toBe(span + 10 * granule);
      table.freeTables(gather.takeTables() ?? []);
      table.destroy();
      expect(pool.usedFrames).toBe(0);
      if (pool.injectedFailures === 0) break;
      failures += 1;
    }
    expect(failures).toBeGreaterThanOrEqual(format.levels);
    expect(failures).toBeLessThan(200);
  });
}
