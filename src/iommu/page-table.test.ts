import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { StackError } from "../errors.ts";
import {
  createLocation,
  type FrameChunk,
  type FrameMemory,
  PagePool,
} from "../memory/page-pool.ts";
import { CountingMeter, NULL_METER } from "../meter.ts";
import { amdV1 } from "./formats/amd-v1.ts";
import { vtdSecondStage } from "./formats/vtd-second-stage.ts";
import { IotlbGather } from "./gather.ts";
import { createWorld, leavesOf, sync } from "./page-table.suite.ts";
import { PageTable } from "./page-table.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { DumpMemory, dumpTables, forEachLeaf } from "./table-dump.ts";
import { TableWalker, WalkFault, WalkResult } from "./table-walk.ts";

const vtd = () => vtdSecondStage({ levels: 4 });
const MIB_2 = 512;
const GIB = 512 * 512;

/** Runs of equal leaves, as `[count, log2 of bytes]`. */
function runsOf(table: PageTable): [number, number][] {
  const runs: [number, number][] = [];
  for (const { pageShift } of leavesOf(table)) {
    const last = runs.at(-1);
    if (last?.[1] === pageShift) last[0] += 1;
    else runs.push([1, pageShift]);
  }
  return runs;
}

describe("rows of linux-dma-path.md §11", () => {
  it("row 93: 4K over a 2M leaf is EADDRINUSE, its middle unmaps 0, its start all of it", () => {
    const { table, gather } = createWorld(vtd());
    expect(table.map(0, 0, MIB_2, PROT_RW)).toBe(Errno.OK);
    expect(runsOf(table)).toEqual([[1, 21]]);
    expect(table.map(0, 0, 1, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(table.unmap(1, 1, gather)).toBe(0);
    expect(table.unmap(0, 1, gather)).toBe(MIB_2);
  });

  it("row 95: 8 MiB at 0x1000 becomes 511 of 4K, 3 of 2M and 1 of 4K", () => {
    const { table } = createWorld(vtd());
    expect(table.map(1, 1, 4 * MIB_2, PROT_RW)).toBe(Errno.OK);
    expect(runsOf(table)).toEqual([
      [511, 12],
      [3, 21],
      [1, 12],
    ]);
  });

  it("row 107: 192 GiB, congruent modulo 1 GiB, becomes 192 leaves", () => {
    const world = createWorld(vtd());
    const { table, meter } = world;
    meter.reset();
    expect(table.map(256 * GIB, 1024 * GIB, 192 * GIB, PROT_RW)).toBe(Errno.OK);
    expect(runsOf(table)).toEqual([[192, 30]]);
    // One table of level 2 below the root, its entry, and the leaves.
    expect(meter.amount("tableAlloc")).toBe(1);
    expect(meter.amount("entryWrite")).toBe(193);
    expect(table.unmap(256 * GIB, 192 * GIB, world.gather)).toBe(192 * GIB);
  });
});

describe("page sizes of a mapping, §1.6", () => {
  it.each([
    [
      0x1ff,
      0x1ff,
      MIB_2 + 1,
      [
        [1, 12],
        [1, 21],
      ],
    ],
    [0x1ff, 0x1ff, MIB_2, [[512, 12]]],
    [MIB_2, MIB_2 + 1, 3 * MIB_2, [[1536, 12]]],
    [
      0x3_fe00,
      0x3_fe00,
      3 * GIB,
      [
        [1, 21],
        [2, 30],
        [511, 21],
      ],
    ],
    [0, 0, 3 * GIB, [[3, 30]]],
  ])("maps from frame %i to %i, %i frames, as runs of %j", (iova, phys, pages, runs) => {
    const { table } = createWorld(vtd());
    expect(table.map(iova, phys, pages, PROT_RW)).toBe(Errno.OK);
    expect(table.mappedPages).toBe(pages);
    expect(runsOf(table)).toEqual(runs);
  });
});

describe("memory of the tables", () => {
  it("comes from the preferred node, and from another when that is full", () => {
    const pool = new PagePool([
      { node: 0, basePfn: 0, frameCount: 256 },
      { node: 3, basePfn: 0x4000, frameCount: 2 },
    ]);
    const meter = new CountingMeter();
    const table = new PageTable({ format: vtd(), pool, node: 3, meter });
    table.map(0, 0, 1, PROT_RW);
    expect([pool.usedFramesOf(3), pool.usedFramesOf(0)]).toEqual([2, 2]);
    expect(meter.amountAt("tableAlloc", 3)).toBe(2);
    meter.reset();
    const result = new WalkResult();
    expect(table.walk(0, result)).toBe(true);
    expect([...result.tablePfns.subarray(0, 4)].map((pfn) => pool.nodeOf(pfn))).toEqual([
      0, 0, 3, 3,
    ]);
    expect([meter.amountAt("entryRead", 3), meter.amountAt("entryRead", 0)]).toEqual([2, 2]);
    table.destroy();
    expect(pool.usedFrames).toBe(0);
  });

  it("may lie beyond 8 TiB, and is not mistaken for what lies 8 TiB below", () => {
    for (const basePfn of [2 ** 31 - 256, 2 ** 31 + 0x1000, 2 ** 39 + 0x1000]) {
      const pool = new PagePool([
        { node: 0, basePfn: 0x1000, frameCount: 256 },
        { node: 1, basePfn, frameCount: 512 },
      ]);
      const table = new PageTable({ format: vtd(), pool, node: 1 });
      pool.allocate(1, 7);
      pool.allocate(1, 6);
      pool.allocate(1, 5);
      expect(table.map(0, 1, 4 * MIB_2, PROT_RW)).toBe(Errno.OK);
      const result = new WalkResult();
      const plain = new WalkResult();
      const walker = new TableWalker(table.format, pool, NULL_METER);
      for (const iova of [0, 511, 512, 4 * MIB_2 - 1]) {
        expect(table.walk(iova, result)).toBe(true);
        expect(result.physPfn).toBe(iova + 1);
        expect(walker.walkPlain(3, table.rootPfn, iova, plain)).toBe(true);
        expect(plain).toEqual(result);
      }
      const gather = new IotlbGather();
      expect(table.unmap(0, 4 * MIB_2, gather)).toBe(4 * MIB_2);
      table.freeTables(gather.takeTables()!);
      expect(table.unmap(5, 1, gather)).toBe(0);
    }
  });

  it("beyond 8 TiB is not sought 8 TiB below", () => {
    const { table, pool } = createWorld(vtd());
    const result = new WalkResult();
    const at = createLocation();
    table.map(0, 1, 1, PROT_RW);
    pool.locate(table.rootPfn, at);
    at.words[at.index + 1]! |= 2 ** 11;
    expect(table.walk(0, result)).toBe(false);
    expect(result.fault).toBe(WalkFault.NO_MEMORY);
  });

  it("that is not there for the top makes no table", () => {
    const pool = new PagePool([{ node: 0, basePfn: 0, frameCount: 1 }]);
    const first = PageTable.create({ format: vtd(), pool });
    expect(first?.rootPfn).toBe(0);
    expect(PageTable.create({ format: vtd(), pool })).toBe(null);
    expect(() => new PageTable({ format: vtd(), pool })).toThrow("room for the top");
    expect(first?.map(0, 0, 1, PROT_RW)).toBe(Errno.ENOMEM);
    expect(first?.mappedPages).toBe(0);
  });

  it("is not given back twice", () => {
    const world = createWorld(vtd());
    world.table.map(0, 1, MIB_2, PROT_RW);
    world.table.unmap(0, MIB_2, world.gather);
    const tables = world.gather.takeTables()!;
    world.table.freeTables(tables);
    expect(() => world.table.freeTables(tables)).toThrow("freed once");
  });

  it("stays readable after it was freed too early, as a stale walk would find it", () => {
    const world = createWorld(vtd());
    const { table } = world;
    const result = new WalkResult();
    table.map(0, 1, MIB_2, PROT_RW);
    table.walk(5, result);
    const leafTable = result.tablePfns[0]!;
    table.unmap(0, MIB_2, world.gather);
    sync(world);
    expect(table.walkFrom(0, leafTable, 5, result)).toBe(false);
    table.map(1024, 4097, MIB_2, PROT_RW);
    // The frame serves as another table now, and a stale cache leads there.
    expect(table.walkFrom(0, leafTable, 5, result)).toBe(true);
    expect(result.physPfn).toBe(4097 + 5);
  });

  it("survives a map that fails between two pages of the same call", () => {
    const pool = new PagePool([{ node: 0, basePfn: 0, frameCount: 5 }]);
    const table = new PageTable({ format: vtd(), pool });
    expect(table.map(MIB_2 - 1, 0, 2 * MIB_2, PROT_RW)).toBe(Errno.ENOMEM);
    expect(table.mappedPages).toBe(1 + MIB_2);
    expect(table.iovaToPhys(2 * MIB_2 - 1)).toBe(MIB_2);
    expect(table.iovaToPhys(2 * MIB_2)).toBe(-1);
  });
});

describe("rights and faults of a walk", () => {
  it("are limited by table entries that somebody else wrote", () => {
    const { table, pool } = createWorld(vtd());
    table.map(0, 1, 1, PROT_RW);
    const at = createLocation();
    pool.locate(table.rootPfn, at);
    at.words[at.index]! &= ~2;
    const result = new WalkResult();
    expect(table.walk(0, result)).toBe(true);
    expect(result.prot).toBe(Prot.READ);
    at.words[at.index]! &= ~1;
    expect(table.walk(0, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.NOT_PRESENT, level: 3, prot: 0 });
  });

  it("tell an empty entry from a reserved one and from a table that is nowhere", () => {
    const { table, pool } = createWorld(vtd());
    const result = new WalkResult();
    expect(table.walk(7, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.NOT_PRESENT, level: 3, physPfn: -1 });
    const at = createLocation();
    pool.locate(table.rootPfn, at);
    at.words[at.index] = 0x83;
    expect(table.walk(7, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.RESERVED, level: 3 });
    at.words[at.index] = 0x7000_0003;
    at.words[at.index + 1] = 0xf_ffff;
    expect(table.walk(7, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.NO_MEMORY, level: 2 });
    expect(result.tablePfns[2]).toBe(0xffff_f700_00);
  });
});

describe("dump of a page table", () => {
  it("is walked like the original, and holds the numbers of its tables", () => {
    const { table } = createWorld(amdV1());
    table.map(2 ** 40, 16, 16, PROT_RW);
    const dump = table.dump();
    expect(dump).toMatchObject({ format: "amd-v1", topLevel: 4, rootPfn: table.rootPfn });
    // The old top of three levels is empty and comes first, with the smallest addresses.
    expect(dump.tables.map((one) => one.level)).toEqual([4, 3, 2, 3, 2, 1, 0]);
    const walker = new TableWalker(table.format, new DumpMemory(dump), NULL_METER);
    const result = new WalkResult();
    expect(walker.walk(dump.rootPfn, dump.topLevel, 2 ** 40 + 3, result)).toBe(true);
    expect(result).toMatchObject({ physPfn: 19, pageShift: 16 });
  });

  it("of a table that points to itself ends with an error", () => {
    const loop = foreignMemory((pfn) => (pfn === 1 ? 1 : -1));
    const root = { format: vtd(), memory: loop, rootPfn: 1, topLevel: 3 };
    expect(() => forEachLeaf(root, () => {})).toThrow(StackError);
    expect(() => dumpTables(root)).toThrow("points to a table above it");
  });

  it("of tables that are used over and over ends at a bound", () => {
    // Frame n points to frame n + 1 in all its entries: 512^3 tables.
    const memory = foreignMemory((pfn) => pfn + 1);
    const root = { format: vtd(), memory, rootPfn: 1, topLevel: 3 };
    let leaves = 0;
    const visit = () => {
      leaves += 1;
    };
    expect(() => forEachLeaf(root, visit, 20)).toThrow("more than 20 tables");
    expect(leaves).toBeLessThanOrEqual(20 * 512);
  });
});

/** Tables whose entries all point to the frame that `next` gives; −1 for no memory. */
function foreignMemory(next: (pfn: number) => number): FrameMemory {
  return {
    chunkAt(pfn: number, out: FrameChunk): boolean {
      const target = next(pfn);
      if (target < 0) return false;
      const words = new Uint32Array(1024);
      for (let entry = 0; entry < 512; entry += 1) words[2 * entry] = target * 4096 + 3;
      Object.assign(out, { words, firstPfn: pfn, frames: 1, node: 0 });
      return true;
    },
  };
}
