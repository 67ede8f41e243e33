/** Vectors after the AMD IOMMU specification, tables 14 to 16, and linux-dma-path.md §8.3. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { createLocation } from "../../memory/page-pool.ts";
import { IotlbGather } from "../gather.ts";
import { leavesOf } from "../page-table.suite.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { WalkFault, WalkResult } from "../table-walk.ts";
import { amdV1 } from "./amd-v1.ts";
import { bits, createVectorTable, entriesAt, leafEntry } from "./entries.suite.ts";
import { contiguousShift } from "./format.ts";

const IR = 61;
const IW = 62;
const SIZED = 0xe00n;
const GIB = 2 ** 18;

describe("AMD v1 entries", () => {
  it("of tables hold PR, IR, IW and the level of the next table in 11:9", () => {
    const world = createVectorTable(amdV1({ levels: 6 }));
    world.table.map(2 ** 51, 7, 1, PROT_RW);
    expect(entriesAt(world, 2 ** 51)).toEqual([
      bits(0, IR, IW, 0xa00n, 0x101000n),
      bits(0, IR, IW, 0x800n, 0x102000n),
      bits(0, IR, IW, 0x600n, 0x103000n),
      bits(0, IR, IW, 0x400n, 0x104000n),
      bits(0, IR, IW, 0x200n, 0x105000n),
      bits(0, IR, IW, 0x7000n),
    ]);
  });

  it("of leaves of a level's own size have next level 0", () => {
    const format = amdV1({ levels: 4 });
    expect(leafEntry(format, 0, 0xabcdef, 12, Prot.READ)).toBe(bits(0, IR, 0xabcdef000n));
    expect(leafEntry(format, 0, 0xabcdef, 12, Prot.WRITE)).toBe(bits(0, IW, 0xabcdef000n));
    expect(leafEntry(format, 0x200, 0x400, 21)).toBe(bits(0, IR, IW, 0x400000n));
    expect(leafEntry(format, GIB, 3 * GIB, 30)).toBe(bits(0, IR, IW, 0xc000_0000n));
  });

  it("of other sizes have next level 7 and the size in the address", () => {
    const format = amdV1({ levels: 6 });
    // 8K: bit 12 is zero; 16K: bit 12 one, 13 zero; 1M: bits 18:12 ones, 19 zero.
    expect(leafEntry(format, 0, 0x10, 13)).toBe(bits(0, IR, IW, SIZED, 0x10000n));
    expect(leafEntry(format, 0, 0x10, 14)).toBe(bits(0, IR, IW, SIZED, 0x11000n));
    expect(leafEntry(format, 0x100, 0x300, 20)).toBe(bits(0, IR, IW, SIZED, 0x37f000n));
    expect(leafEntry(format, 2 * GIB, 4 * GIB, 31)).toBe(bits(0, IR, IW, SIZED, 0x13ffff000n));
    expect(leafEntry(format, 4 * GIB, 8 * GIB, 32)).toBe(bits(0, IR, IW, SIZED, 0x27ffff000n));
    expect(leafEntry(format, 8 * GIB, 0, 33)).toBe(bits(0, IR, IW, SIZED, 0xfffff000n));
    expect(leafEntry(format, 0, 0, 51)).toBe(bits(0, IR, IW, SIZED, 0x3_ffff_ffff_f000n));
  });

  it("of a larger page stand in every slot it covers", () => {
    const world = createVectorTable(amdV1());
    world.table.map(0x10, 0x20, 16, PROT_RW);
    const { tables } = world.table.dump();
    const { words } = tables.at(-1)!;
    for (let slot = 0; slot < 48; slot += 1) {
      const expected = slot >= 16 && slot < 32 ? [0x27e01, 0x6000_0000] : [0, 0];
      expect([...words.subarray(2 * slot, 2 * slot + 2)]).toEqual(expected);
    }
  });

  it("carry FC in leaves where coherence is forced, and the encryption bit", () => {
    expect(leafEntry(amdV1({ forceCoherence: true }), 0, 1, 12)).toBe(bits(0, 12, 60, IR, IW));
    const format = amdV1({ encryptionBit: 47 });
    const world = createVectorTable(format);
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0)[0]).toBe(bits(0, 47, IR, IW, 0x400n, 0x101000n));
    expect(entriesAt(world, 0)[2]).toBe(bits(0, 12, 47, IR, IW));
    expect(leafEntry(format, 0, 1, 12, PROT_RW | Prot.MMIO)).toBe(bits(0, 12, IR, IW));
  });

  it("tell every size from 8K to 2P by their address", () => {
    for (let shift = 13; shift <= 51; shift += 1) {
      const ones = (1n << BigInt(shift - 1)) - 0x1000n;
      const low = Number(BigInt.asIntN(32, ones));
      const high = Number(BigInt.asIntN(32, ones >> 32n));
      expect(contiguousShift(low, high)).toBe(shift);
    }
    expect(contiguousShift(-1, -1)).toBe(64);
  });
});

describe("AMD v1 page sizes", () => {
  it("are every power of two from 4K to 2P except 512G", () => {
    const { pageShifts } = amdV1();
    expect(pageShifts[0]).toBe(12);
    expect(pageShifts.at(-1)).toBe(51);
    expect(pageShifts).toHaveLength(39);
    expect(pageShifts).not.toContain(39);
    expect(amdV1({ levelsMax: 4 }).pageShifts.at(-1)).toBe(46);
  });

  it("map 192 GiB at a multiple of 128 GiB as one leaf of 128 and one of 64 GiB", () => {
    const { table } = createVectorTable(amdV1());
    expect(table.map(128 * GIB, 256 * GIB, 192 * GIB, PROT_RW)).toBe(Errno.OK);
    expect(leavesOf(table).map((leaf) => leaf.pageShift)).toEqual([37, 36]);
    const { words } = table.dump().tables.at(-1)!;
    expect(words.filter((word) => word !== 0)).toHaveLength(2 * 192);
  });

  it("map 512 GiB as two pages of 256", () => {
    const { table } = createVectorTable(amdV1());
    table.map(512 * GIB, 512 * GIB, 512 * GIB, PROT_RW);
    expect(leavesOf(table).map((leaf) => leaf.pageShift)).toEqual([38, 38]);
  });
});

describe("AMD v1 top", () => {
  it("starts with 3 levels and grows on demand, keeping what is mapped", () => {
    const { table } = createVectorTable(amdV1());
    expect(table.topLevel).toBe(2);
    table.map(5, 6, 1, PROT_RW);
    const root = table.rootPfn;
    expect(table.map(2 ** 27, 7, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.topLevel).toBe(3);
    expect(table.rootPfn).not.toBe(root);
    expect(table.map(2 ** 52 - 1, 8, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.topLevel).toBe(5);
    expect([5, 2 ** 27, 2 ** 52 - 1].map((iova) => table.iovaToPhys(iova))).toEqual([6, 7, 8]);
    expect(table.apertureLastPfn).toBe(2 ** 52 - 1);
  });

  it("does not grow for an unmap or a walk: above it nothing is mapped", () => {
    const { table } = createVectorTable(amdV1());
    table.map(2 ** 27 - 1, 6, 1, PROT_RW);
    expect(table.unmap(2 ** 27 - 1, 2, new IotlbGather())).toBe(0);
    const result = new WalkResult();
    expect(table.walk(2 ** 27, result)).toBe(false);
    expect(result.fault).toBe(WalkFault.OUT_OF_RANGE);
    expect(table.topLevel).toBe(2);
  });

  it("stays as it was when there is no memory to grow", () => {
    const { table, pool } = createVectorTable(amdV1());
    const used = pool.usedFrames;
    for (const nth of [0, 1, 2]) {
      pool.failAfter(nth, 1);
      expect(table.map(2 ** 51, 0, 1, PROT_RW)).toBe(Errno.ENOMEM);
      expect(table.topLevel).toBe(2);
      expect(pool.usedFrames).toBe(used);
    }
  });

  it("does not grow beyond what the unit walks", () => {
    const { table } = createVectorTable(amdV1({ levelsMax: 4 }));
    expect(table.map(2 ** 36, 0, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(2 ** 36 - 1, 0, 1, PROT_RW)).toBe(Errno.OK);
  });
});

describe("AMD v1 walks of other people's tables", () => {
  /** A 4-level root with one entry, and a last-level table that maps frame 3 to 9. */
  function createForeign(rootEntry: bigint) {
    const world = createVectorTable(amdV1({ levels: 4 }));
    const { table, pool } = world;
    const leafTable = pool.allocate(0);
    const at = createLocation();
    pool.locate(leafTable, at);
    at.words[at.index + 6] = 0x9001;
    at.words[at.index + 7] = 0x6000_0000;
    pool.locate(table.rootPfn, at);
    const entry = rootEntry | (BigInt(leafTable) << 12n);
    at.words[at.index] = Number(entry & 0xffff_ffffn);
    at.words[at.index + 1] = Number(entry >> 32n);
    return table;
  }

  it("follow an entry that skips levels while the skipped address bits are zero", () => {
    const table = createForeign(bits(0, IR, 0x200n));
    const result = new WalkResult();
    expect(table.walk(3, result)).toBe(true);
    expect(result).toMatchObject({ physPfn: 9, prot: Prot.READ, level: 0, startLevel: 3 });
    expect([...result.tablePfns.subarray(1, 3)]).toEqual([-1, -1]);
    expect(table.walk(512 + 3, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.NOT_PRESENT });
    expect(leavesOf(table)).toMatchObject([{ iovaPfn: 3, physPfn: 9, prot: Prot.READ }]);
  });

  it("see a page whose first slots are missing, and what comes after it", () => {
    const { table, pool } = createVectorTable(amdV1());
    const result = new WalkResult();
    const at = createLocation();
    table.map(0, 16, 16, PROT_RW);
    table.map(20, 50, 1, PROT_RW);
    table.walk(0, result);
    pool.locate(result.tablePfns[0]!, at);
    at.words.fill(0, at.index, at.index + 16);
    expect(table.walk(7, result)).toBe(false);
    expect(table.walk(8, result)).toBe(true);
    expect(result).toMatchObject({ physPfn: 24, pageShift: 16 });
    expect(leavesOf(table)).toMatchObject([
      { iovaPfn: 0, physPfn: 16, pageShift: 16 },
      { iovaPfn: 20, physPfn: 50, pageShift: 12 },
    ]);
  });

  it("fault at a next level that leads upwards, and at a size below the level's own", () => {
    const result = new WalkResult();
    expect(createForeign(bits(0, IR, IW, 0x800n)).walk(3, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.RESERVED, level: 3, physPfn: -1 });
    expect(createForeign(bits(0, IR, IW, 0xe00n)).walk(3, result)).toBe(false);
    expect(result.fault).toBe(WalkFault.RESERVED);
  });
});

describe("AMD v1 dirty state", () => {
  it("of a larger page is that of any of its slots, and is cleaned in all", () => {
    const { table } = createVectorTable(amdV1({ dirty: true }));
    table.map(16, 16, 16, PROT_RW);
    const dirty: number[][] = [];
    const report = (iovaPfn: number, pages: number) => dirty.push([iovaPfn, pages]);
    expect(table.markDirty(19)).toBe(true);
    expect(table.markDirty(30)).toBe(true);
    expect(table.readDirty(0, 64, false, report)).toBe(Errno.OK);
    expect(table.readDirty(24, 4, true, report)).toBe(Errno.OK);
    expect(dirty).toEqual([
      [16, 16],
      [24, 4],
    ]);
    table.readDirty(0, 64, true, report);
    expect(dirty).toHaveLength(2);
  });
});
