/** Vectors after the VT-d specification, 9.8, and linux-dma-path.md §8.1. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { bits, createVectorTable, entriesAt, leafEntry } from "./entries.suite.ts";
import { vtdSecondStage } from "./vtd-second-stage.ts";

describe("VT-d second-stage entries", () => {
  it("have the address at 51:12, R at 0, W at 1 and PS at 7 above the lowest level", () => {
    const format = vtdSecondStage({ levels: 4 });
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12)).toBe(0xabcdef003n);
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12, Prot.READ)).toBe(0xabcdef001n);
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12, Prot.WRITE)).toBe(0xabcdef002n);
    expect(leafEntry(format, 0x200, 0x8_0200, 21)).toBe(0x80200083n);
    expect(leafEntry(format, 0x4_0000, 0xff_fffc_0000, 30)).toBe(0xf_ffff_c000_0083n);
  });

  it("of tables are address, R and W, at every level", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 5 }));
    world.table.map(2 ** 44 + 5, 7, 1, PROT_RW);
    expect(entriesAt(world, 2 ** 44 + 5)).toEqual([
      0x101003n,
      0x102003n,
      0x103003n,
      0x104003n,
      0x7003n,
    ]);
  });

  it("carry SNP in bit 11 of leaves where snooping is forced", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 3, forceSnoop: true }));
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0)).toEqual([0x101003n, 0x102003n, 0x1803n]);
  });

  it("of tables carry the flush mark, bit 10, where the walk does not snoop", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 3, incoherent: true }));
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0)).toEqual([0x101403n, 0x102403n, 0x1003n]);
    expect(world.table.iovaToPhys(0)).toBe(1);
  });

  it("are indexed by nine bits a level from bit 12", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 4 }));
    const iova = (((1 * 512 + 2) * 512 + 3) * 512 + 4) * 1;
    world.table.map(iova, 9, 1, PROT_RW);
    const dump = world.table.dump();
    const filled = dump.tables.map(({ words }) => words.findIndex((word) => word !== 0) / 2);
    expect(filled).toEqual([1, 2, 3, 4]);
  });
});

describe("VT-d second-stage formats", () => {
  it("span 39, 48 and 57 bits with 3, 4 and 5 levels", () => {
    const last = ([3, 4, 5] as const).map((levels) => vtdSecondStage({ levels }).lastPfn);
    expect(last).toEqual([2 ** 27 - 1, 2 ** 36 - 1, 2 ** 45 - 1]);
    expect(vtdSecondStage({ levels: 5 }).topLevel).toBe(4);
  });

  it("refuse a read-only mapping where only writable ones work", () => {
    const { table } = createVectorTable(vtdSecondStage({ levels: 4, forceWritable: true }));
    expect(table.map(0, 0, 1, Prot.READ)).toBe(Errno.EINVAL);
    expect(table.map(0, 0, 1, Prot.READ)).toBe(Errno.EINVAL);
    expect(table.map(0, 0, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.map(1, 0, 1, Prot.READ)).toBe(Errno.EINVAL);
  });

  it("use no larger pages than the unit has", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 4, pageShifts: [12] }));
    expect(world.table.map(0, 0, 512, PROT_RW)).toBe(Errno.OK);
    expect(entriesAt(world, 511)).toEqual([0x101003n, 0x102003n, 0x103003n, 0x1ff003n]);
  });

  it("keep dirty state in bit 9 where the unit has it", () => {
    const world = createVectorTable(vtdSecondStage({ levels: 4, dirty: true }));
    world.table.map(0, 1, 1, PROT_RW);
    expect(world.table.markDirty(0)).toBe(true);
    expect(entriesAt(world, 0).at(-1)).toBe(bits(0, 1, 9, 12));
    const plain = createVectorTable(vtdSecondStage({ levels: 4 }));
    plain.table.map(0, 1, 1, PROT_RW);
    expect(plain.table.markDirty(0)).toBe(false);
    expect(plain.table.readDirty(0, 1, true, () => {})).toBe(Errno.EINVAL);
  });
});
