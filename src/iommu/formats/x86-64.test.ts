/** Vectors after the VT-d specification, 9.7, the AMD IOMMU specification and §8.2. */
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { IotlbGather } from "../gather.ts";
import { leavesOf } from "../page-table.suite.ts";
import { PROT_RW, Prot } from "../prot.ts";
import { WalkResult } from "../table-walk.ts";
import { createVectorTable, entriesAt, leafEntry } from "./entries.suite.ts";
import { amdV2, vtdFirstStage } from "./x86-64.ts";

describe("x86-64 entries", () => {
  it("always have P, U and A; writable ones RW and D as well", () => {
    const format = vtdFirstStage({ levels: 4 });
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12, Prot.READ)).toBe(0xabcdef025n);
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12)).toBe(0xabcdef067n);
    expect(leafEntry(format, 0x1234, 0xab_cdef, 12, Prot.WRITE | Prot.NOEXEC)).toBe(0xabcdef067n);
    expect(leafEntry(format, 0x200, 0x8_0200, 21)).toBe(0x802000e7n);
    expect(leafEntry(format, 0x4_0000, 0xff_fffc_0000, 30)).toBe(0xf_ffff_c000_00e7n);
  });

  it("of tables have P, RW, U and A, and bit 9 where the walk does not snoop", () => {
    const world = createVectorTable(vtdFirstStage({ levels: 4 }));
    world.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(world, 0)).toEqual([0x101027n, 0x102027n, 0x103027n, 0x1067n]);
    const marked = createVectorTable(vtdFirstStage({ levels: 5, incoherent: true }));
    marked.table.map(0, 1, 1, PROT_RW);
    expect(entriesAt(marked, 0).slice(0, 2)).toEqual([0x101227n, 0x102227n]);
  });

  it("carry the encryption bit in tables and in leaves that are not device memory", () => {
    const world = createVectorTable(amdV2({ levels: 4, encryptionBit: 51 }));
    world.table.map(0, 1, 1, PROT_RW);
    world.table.map(1, 2, 1, PROT_RW | Prot.MMIO);
    expect(entriesAt(world, 0)).toEqual([
      0x8_0000_0010_1027n,
      0x8_0000_0010_2027n,
      0x8_0000_0010_3027n,
      0x8_0000_0000_1067n,
    ]);
    expect(entriesAt(world, 1).at(-1)).toBe(0x2067n);
    expect(world.table.iovaToPhys(0)).toBe(1);
    expect(world.table.map(2, 2 ** 39, 1, PROT_RW)).toBe(Errno.ERANGE);
  });
});

describe("x86-64 address spaces", () => {
  it("of VT-d are sign-extended: the upper half lies at the top of 64 bits", () => {
    const { table } = createVectorTable(vtdFirstStage({ levels: 4 }));
    expect(table.apertureLastPfn).toBe(2 ** 35 - 1);
    const upper = 2 ** 52 - 2 ** 35;
    const result = new WalkResult();
    expect(table.map(upper, 5, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.map(2 ** 52 - 1, 6, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.walk(upper, result)).toBe(true);
    expect(result.physPfn).toBe(5);
    expect(table.iovaToPhys(2 ** 52 - 1)).toBe(6);
    expect(leavesOf(table).map((leaf) => leaf.iovaPfn)).toEqual([upper, 2 ** 52 - 1]);
    expect(table.unmap(upper, 1, new IotlbGather())).toBe(1);
  });

  it("of VT-d have a hole in the middle", () => {
    const { table } = createVectorTable(vtdFirstStage({ levels: 5 }));
    expect(table.apertureLastPfn).toBe(2 ** 44 - 1);
    expect(table.map(2 ** 44 - 1, 0, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.map(2 ** 44 - 1, 0, 2, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(2 ** 44, 0, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(2 ** 52 - 2 ** 44 - 1, 0, 2, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(2 ** 52 - 2 ** 44, 0, 1, PROT_RW)).toBe(Errno.OK);
  });

  it("of AMD have 47 and 56 bits and no upper half", () => {
    const { table } = createVectorTable(amdV2({ levels: 4 }));
    expect(table.apertureLastPfn).toBe(2 ** 35 - 1);
    expect(table.map(2 ** 52 - 1, 0, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(amdV2({ levels: 5 }).lastPfn).toBe(2 ** 44 - 1);
  });

  it("take rights away by a table entry, and privilege by U", () => {
    const world = createVectorTable(vtdFirstStage({ levels: 4 }));
    const { table, pool } = world;
    table.map(0, 1, 1, PROT_RW);
    const result = new WalkResult();
    table.walk(0, result);
    const at = { words: new Uint32Array(0), index: 0, node: 0 };
    pool.locate(result.tablePfns[2]!, at);
    at.words[at.index]! &= ~0b010;
    table.walk(0, result);
    expect(result).toMatchObject({ prot: Prot.READ, physPfn: 1, level: 0 });
    at.words[at.index]! &= ~0b100;
    table.walk(0, result);
    expect(result.prot).toBe(Prot.READ | Prot.PRIV);
  });
});
