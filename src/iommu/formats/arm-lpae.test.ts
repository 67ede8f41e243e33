/** Vectors after the Arm Architecture Reference Manual, D8.3, and linux-dma-path.md §8.4. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { createLocation } from "../../memory/page-pool.ts";
import { IotlbGather } from "../gather.ts";
import { leavesOf } from "../page-table.suite.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { WalkFault, WalkResult } from "../table-walk.ts";
import { type ArmGranuleShift, armGeometry, chooseArmGranule } from "./arm-lpae.ts";
import { armStage1 } from "./arm-stage1.ts";
import { armStage2 } from "./arm-stage2.ts";
import { bits, createVectorTable, entriesAt, leafEntry } from "./entries.suite.ts";

const AF = 10;
const NG = 11;
const DBM = 51;
const XN = [53, 54];
const OUTER = 0x200n;
const INNER = 0x300n;
const stage1 = armStage1({ granuleShift: 12, inputBits: 48, outputBits: 48 });
const stage2 = armStage2({ granuleShift: 12, inputBits: 48, outputBits: 48 });

describe("Arm stage 1 descriptors", () => {
  it("hold attribute index, AP, shareability, AF and nG", () => {
    const address = 0xabcdef000n;
    const leaf = (prot: number) => leafEntry(stage1, 5, 0xabcdef, 12, prot);
    expect(leaf(PROT_RW)).toBe(bits(0, 1, 6, OUTER, AF, NG, address));
    expect(leaf(Prot.READ)).toBe(bits(0, 1, 6, 7, OUTER, AF, NG, address));
    expect(leaf(Prot.WRITE)).toBe(leaf(PROT_RW));
    expect(leaf(PROT_RW | Prot.CACHE)).toBe(bits(0, 1, 2, 6, INNER, AF, NG, address));
    expect(leaf(PROT_RW | Prot.MMIO)).toBe(bits(0, 1, 3, 6, OUTER, AF, NG, address));
    expect(leaf(PROT_RW | Prot.PRIV)).toBe(bits(0, 1, OUTER, AF, NG, address));
    expect(leaf(PROT_RW | Prot.NOEXEC)).toBe(bits(0, 1, 6, OUTER, AF, NG, ...XN, address));
  });

  it("of blocks have type 1, of pages and tables type 3", () => {
    expect(leafEntry(stage1, 0x200, 0x400, 21)).toBe(bits(0, 6, OUTER, AF, NG, 0x400000n));
    const world = createVectorTable(stage1);
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0).slice(0, 3)).toEqual([0x101003n, 0x102003n, 0x103003n]);
  });

  it("carry NS and NSTable, and SW_SYNC where the walk does not snoop", () => {
    const options = { granuleShift: 12, inputBits: 39, outputBits: 48 } as const;
    const world = createVectorTable(armStage1({ ...options, nonSecure: true, incoherent: true }));
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0)).toEqual([
      bits(0, 1, 55, 63, 0x101000n),
      bits(0, 1, 55, 63, 0x102000n),
      bits(0, 1, 5, 6, OUTER, AF, NG, 0x1000n),
    ]);
  });

  it("keep dirty state in AP while DBM is set", () => {
    const options = { granuleShift: 12, inputBits: 39, outputBits: 48, dirty: true } as const;
    const world = createVectorTable(armStage1(options));
    const { table } = world;
    const dirty: number[] = [];
    table.map(0, 1, 1, PROT_RW);
    table.map(1, 2, 1, Prot.READ);
    expect(entriesAt(world, 0).at(-1)).toBe(bits(0, 1, 6, OUTER, AF, NG, DBM, 0x1000n));
    expect(entriesAt(world, 1).at(-1)).toBe(bits(0, 1, 6, 7, OUTER, AF, NG, 0x2000n));
    table.readDirty(0, 2, true, (iova) => dirty.push(iova));
    expect(dirty).toEqual([0]);
    // Writable and clean: read-only with the modifier; the walk still grants writing.
    expect(entriesAt(world, 0).at(-1)).toBe(bits(0, 1, 6, 7, OUTER, AF, NG, DBM, 0x1000n));
    const result = new WalkResult();
    table.walk(0, result);
    expect(result.prot).toBe(PROT_RW);
    table.readDirty(0, 2, true, (iova) => dirty.push(iova));
    expect(dirty).toEqual([0]);
    expect(table.markDirty(0)).toBe(true);
    expect(table.markDirty(1)).toBe(false);
    table.readDirty(0, 2, false, (iova) => dirty.push(iova));
    expect(dirty).toEqual([0, 0]);
  });

  it("obey APTable of somebody else's table", () => {
    const { table, pool } = createVectorTable(stage1);
    table.map(0, 1, 1, PROT_RW);
    const at = createLocation();
    pool.locate(table.rootPfn, at);
    at.words[at.index + 1] = 0x4000_0000;
    const result = new WalkResult();
    table.walk(0, result);
    expect(result.prot).toBe(Prot.READ);
    at.words[at.index + 1] = 0x2000_0000;
    table.walk(0, result);
    expect(result.prot).toBe(PROT_RW | Prot.PRIV);
  });

  it("ignore the reserved bits below a 16K granule, and obey those of 64K above 48", () => {
    const result = new WalkResult();
    const at = createLocation();
    const sixteen = armStage1({ granuleShift: 14, inputBits: 36, outputBits: 48 });
    const small = createVectorTable(sixteen);
    small.table.map(0, 4, 4, PROT_RW);
    // What stands where the reserved bits, taken for address bits, would lead.
    small.table.map(4 * 1536, 400, 4, PROT_RW);
    small.pool.locate(small.table.rootPfn, at);
    at.words[at.index]! |= 0x3000;
    expect(small.table.walk(1, result)).toBe(true);
    expect(result.physPfn).toBe(5);
    const sixtyFour = armStage1({ granuleShift: 16, inputBits: 42, outputBits: 52 });
    const large = createVectorTable(sixtyFour);
    large.table.map(0, 16, 16, PROT_RW);
    large.pool.locate(large.table.rootPfn, at);
    at.words[at.index]! |= 0x1000;
    expect(large.table.walk(1, result)).toBe(false);
    expect(result.fault).toBe(WalkFault.NO_MEMORY);
    expect(result.tablePfns[0]).toBeGreaterThan(2 ** 36);
  });

  it("fault at a block on a level that has none", () => {
    const { table, pool } = createVectorTable(stage1);
    const at = createLocation();
    pool.locate(table.rootPfn, at);
    at.words[at.index] = 0x401;
    const result = new WalkResult();
    expect(table.walk(0, result)).toBe(false);
    expect(result).toMatchObject({ fault: WalkFault.RESERVED, level: 3 });
    expect(leavesOf(table)).toEqual([]);
  });
});

describe("Arm stage 2 descriptors", () => {
  it("hold S2AP, MemAttr, shareability and AF", () => {
    const address = 0xabcdef000n;
    const leaf = (prot: number, format = stage2) => leafEntry(format, 5, 0xabcdef, 12, prot);
    expect(leaf(PROT_RW)).toBe(bits(0, 1, 0x14n, 6, 7, OUTER, AF, address));
    expect(leaf(Prot.READ)).toBe(bits(0, 1, 0x14n, 6, OUTER, AF, address));
    expect(leaf(Prot.WRITE)).toBe(bits(0, 1, 0x14n, 7, OUTER, AF, address));
    expect(leaf(PROT_RW | Prot.CACHE)).toBe(bits(0, 1, 0x3cn, 6, 7, INNER, AF, address));
    expect(leaf(PROT_RW | Prot.MMIO)).toBe(bits(0, 1, 0x04n, 6, 7, OUTER, AF, address));
    expect(leaf(PROT_RW | Prot.NOEXEC)).toBe(bits(0, 1, 0x14n, 6, 7, OUTER, AF, ...XN, address));
    const forced = armStage2({
      granuleShift: 12,
      inputBits: 48,
      outputBits: 48,
      forceWriteBack: true,
    });
    expect(leaf(PROT_RW | Prot.CACHE, forced)).toBe(bits(0, 1, 0x18n, 6, 7, INNER, AF, address));
  });

  it("keep no dirty state", () => {
    const { table } = createVectorTable(stage2);
    expect(table.readDirty(0, 1, true, () => {})).toBe(Errno.EINVAL);
  });
});

describe("Arm granules", () => {
  it("of 64K keep physical bits 51:48 in bits 15:12", () => {
    const format = armStage1({ granuleShift: 16, inputBits: 52, outputBits: 52 });
    const pfn = 2 ** 39 + 2 ** 36 + 16 * 0x1234;
    const leaf = leafEntry(format, 16, pfn, 16);
    expect(leaf).toBe(bits(0, 1, 6, OUTER, AF, NG, 0x9000n, BigInt(16 * 0x1234) << 12n));
    const { table } = createVectorTable(format);
    table.mapPages(16, pfn, 16, 1, PROT_RW);
    expect(table.iovaToPhys(16 + 3)).toBe(pfn + 3);
  });

  it("carry a run of pages over physical bit 48", () => {
    const { table } = createVectorTable(
      armStage1({ granuleShift: 16, inputBits: 48, outputBits: 52 }),
    );
    const start = 2 ** 36 - 32;
    expect(table.map(0, start, 64, PROT_RW)).toBe(Errno.OK);
    const found = [0, 16, 32, 48].map((iova) => table.iovaToPhys(iova));
    expect(found).toEqual([start, start + 16, start + 32, start + 48]);
  });

  it("have the levels, roots and page sizes of the manual's tables", () => {
    const shape = (granuleShift: ArmGranuleShift, bitsIn: number, bitsOut: number, two = false) => {
      const options = { granuleShift, inputBits: bitsIn, outputBits: bitsOut };
      const { startLevel, indexBits, pageShifts, concatenated } = armGeometry(options, two);
      return [startLevel, indexBits, pageShifts, concatenated];
    };
    expect(shape(12, 48, 48)).toEqual([0, [9, 9, 9, 9], [12, 21, 30], 1]);
    expect(shape(12, 39, 48)).toEqual([1, [9, 9, 9], [12, 21, 30], 1]);
    expect(shape(12, 30, 40)).toEqual([2, [9, 9], [12, 21], 1]);
    expect(shape(14, 48, 48)).toEqual([0, [11, 11, 11, 1], [14, 25], 1]);
    expect(shape(14, 47, 48)).toEqual([1, [11, 11, 11], [14, 25], 1]);
    expect(shape(16, 48, 48)).toEqual([1, [13, 13, 6], [16, 29], 1]);
    expect(shape(16, 52, 52)).toEqual([1, [13, 13, 10], [16, 29, 42], 1]);
    expect(shape(16, 42, 48)).toEqual([2, [13, 13], [16, 29], 1]);
    expect(shape(12, 52, 52)).toEqual([0, [9, 9, 9, 9], [12, 21, 30], 1]);
    // Concatenation: 4K with 40 or 42 bits out, 16K with 48, 16K from level 1 with 40.
    expect(shape(12, 40, 40, true)).toEqual([1, [9, 9, 10], [12, 21, 30], 2]);
    expect(shape(12, 42, 42, true)).toEqual([1, [9, 9, 12], [12, 21, 30], 8]);
    expect(shape(12, 44, 44, true)).toEqual([0, [9, 9, 9, 5], [12, 21, 30], 1]);
    expect(shape(14, 48, 48, true)).toEqual([1, [11, 11, 12], [14, 25], 2]);
    expect(shape(14, 40, 40, true)).toEqual([2, [11, 15], [14, 25], 16]);
    expect(shape(14, 40, 40, false)).toEqual([1, [11, 11, 4], [14, 25], 1]);
  });

  it("of concatenated roots make one table that is aligned to its size", () => {
    const format = armStage2({ granuleShift: 14, inputBits: 40, outputBits: 40 });
    const { table, pool } = createVectorTable(format);
    expect(pool.usedFrames).toBe(64);
    expect(table.rootPfn % 64).toBe(0);
    const last = 2 ** 28 - 4;
    expect(table.map(last, 8, 4, PROT_RW)).toBe(Errno.OK);
    expect(table.iovaToPhys(last + 1)).toBe(9);
    table.destroy();
    expect(pool.usedFrames).toBe(0);
  });

  it("are chosen as the kernel does: the CPU's page, else the next below, else above", () => {
    expect(chooseArmGranule([12, 14, 16], 12)).toBe(12);
    expect(chooseArmGranule([12, 16], 14)).toBe(12);
    expect(chooseArmGranule([14, 16], 12)).toBe(14);
    expect(chooseArmGranule([12, 14], 16)).toBe(14);
  });
});

describe("Arm mapping rules", () => {
  it("row 94: a map over a live leaf is refused with EEXIST", () => {
    const { table } = createVectorTable(stage1);
    expect(table.mapPages(0, 0, 12, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.mapPages(0, 5, 12, 1, PROT_RW)).toBe(Errno.EEXIST);
    expect(table.iovaToPhys(0)).toBe(0);
  });

  it("a block over a table takes the table's place, with all that was in it", () => {
    const { table } = createVectorTable(stage1);
    table.mapPages(3, 7, 12, 1, PROT_RW);
    expect(table.mapPages(0, 512, 21, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.iovaToPhys(3)).toBe(515);
    expect(table.replaced).toMatchObject({ startPfn: 0, lastPfn: 511 });
    table.freeTables(table.replaced.takeTables()!);
    expect(table.pendingTables).toBe(0);
  });

  it("an unmap of a block's size takes a whole table away and counts it whole", () => {
    const { table } = createVectorTable(stage1);
    const gather = new IotlbGather();
    table.mapPages(3, 7, 12, 1, PROT_RW);
    expect(table.unmapPages(0, 21, 2, gather)).toBe(512);
    expect(gather.freelist).toHaveLength(1);
    expect(table.tableCount(0)).toBe(0);
    expect(leavesOf(table)).toEqual([]);
  });
});
