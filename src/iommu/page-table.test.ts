import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { PagePool } from "../memory/page-pool.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IotlbGather } from "./gather.ts";
import { PageTable } from "./page-table.ts";
import { PROT_RW } from "./prot.ts";
import { WalkResult } from "./table-walk.ts";

describe("PageTable", () => {
  it("maps, walks, unmaps and frees what it took", () => {
    const pool = new PagePool([{ node: 0, basePfn: 0x1000, frameCount: 4096 }]);
    const table = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
    expect(table.map(0x1ff, 0x1ff, 513, PROT_RW)).toBe(Errno.OK);
    expect(table.mappedPages).toBe(513);
    const result = new WalkResult();
    expect(table.walk(0x200, result)).toBe(true);
    expect(result).toMatchObject({ physPfn: 0x200, pageShift: 21, prot: PROT_RW, level: 1 });
    const gather = new IotlbGather();
    expect(table.unmap(0x1ff, 2, gather)).toBe(513);
    table.freeTables(gather.takeTables() ?? []);
    table.destroy();
    expect(pool.usedFrames).toBe(0);
  });
});
