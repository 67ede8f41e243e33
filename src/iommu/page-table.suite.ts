/**
 * What every page-table format has to do, at each level and with each page size. Used by the tests
 * of all formats: `describePageTable(() => format, normalProt)`.
 */
import { describe, expect, it } from "vitest";
import { Errno } from "../errno.ts";
import { PagePool } from "../memory/page-pool.ts";
import { CountingMeter } from "../meter.ts";
import { PFN_LAST } from "../units.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { IotlbGather } from "./gather.ts";
import { PageTable } from "./page-table.ts";
import { describeMapEach } from "./page-table-each.suite.ts";
import { describeTableFailures } from "./page-table-failures.suite.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { DumpMemory, type Leaf } from "./table-dump.ts";
import { TableWalker, WalkFault, WalkResult } from "./table-walk.ts";

/** A page table with a pool of its own. */
export interface TableWorld {
  readonly pool: PagePool;
  readonly table: PageTable;
  readonly meter: CountingMeter;
  readonly gather: IotlbGather;
}

/** A table whose node is the second of two. */
export function createWorld(format: PageTableFormat, frameCount = 1024): TableWorld {
  const pool = new PagePool([
    { node: 0, basePfn: 0x1000, frameCount: 256 },
    { node: 1, basePfn: 0x10_0000, frameCount },
  ]);
  const meter = new CountingMeter();
  const table = new PageTable({ format, pool, node: 1, meter });
  return { pool, table, meter, gather: new IotlbGather() };
}

/** Frees what an unmap cut off, as after an invalidation. */
export function sync({ table, gather }: TableWorld): number {
  const tables = gather.takeTables() ?? [];
  gather.reset();
  table.freeTables(tables);
  return tables.length;
}

/** Every mapping of a table. */
export function leavesOf(table: PageTable): Leaf[] {
  const leaves: Leaf[] = [];
  table.forEachLeaf((leaf) => leaves.push(leaf));
  return leaves;
}

/** A place for a page of 2^shift bytes that no larger page could take: an odd multiple. */
function placeOf(format: PageTableFormat, pageShift: number): { iova: number; phys: number } {
  const frames = 2 ** (pageShift - 12);
  const iova = 3 * frames <= format.lastPfn - frames + 1 ? 3 * frames : frames;
  const phys = 6 * frames <= format.physEnd ? 5 * frames : frames;
  const physFits = phys + frames <= format.physEnd ? phys : 0;
  return { iova: iova + frames - 1 <= format.lastPfn ? iova : 0, phys: physFits };
}

function describeLeafSizes(create: () => PageTableFormat): void {
  const sizes = create().pageShifts;
  it.each(sizes)("maps, walks and unmaps one page of 2^%i bytes", (pageShift) => {
    const format = create();
    const world = createWorld(format);
    const { table, gather } = world;
    const frames = 2 ** (pageShift - 12);
    const { iova, phys } = placeOf(format, pageShift);
    expect(table.map(iova, phys, frames, PROT_RW)).toBe(Errno.OK);
    expect(table.mappedPages).toBe(frames);
    const result = new WalkResult();
    for (const offset of [0, 1, Math.floor(frames / 2), frames - 1]) {
      if (offset >= frames) continue;
      expect(table.walk(iova + offset, result)).toBe(true);
      expect(result.physPfn).toBe(phys + offset);
      expect(result.pageShift).toBe(pageShift);
      expect(result.level).toBe(format.levelOfShift[pageShift]);
      expect(result.prot & PROT_RW).toBe(PROT_RW);
      expect(table.iovaToPhys(iova + offset)).toBe(phys + offset);
    }
    expect(table.walk(iova + frames, result)).toBe(false);
    if (iova > 0) expect(table.iovaToPhys(iova - 1)).toBe(-1);
    expect(leavesOf(table)).toMatchObject([{ iovaPfn: iova, physPfn: phys, pageShift }]);
    expect(table.unmap(iova, frames, gather)).toBe(frames);
    expect(table.iovaToPhys(iova)).toBe(-1);
    sync(world);
    table.destroy();
    expect(world.pool.usedFrames).toBe(0);
  });

  it.each(sizes)("maps and unmaps pages of 2^%i bytes by mapPages and unmapPages", (pageShift) => {
    const format = create();
    const world = createWorld(format);
    const { table, gather } = world;
    const frames = 2 ** (pageShift - 12);
    const { iova, phys } = placeOf(format, pageShift);
    expect(table.mapPages(iova, phys, pageShift, 1, PROT_RW)).toBe(Errno.OK);
    expect(table.mappedPages).toBe(frames);
    expect(table.mapPages(iova, phys, pageShift, 1, PROT_RW)).toBe(Errno.EEXIST);
    expect(table.mappedPages).toBe(0);
    expect(table.iovaToPhys(iova + frames - 1)).toBe(phys + frames - 1);
    expect(table.unmapPages(iova, pageShift, 1, gather)).toBe(frames);
    expect(table.unmapPages(iova, pageShift, 1, gather)).toBe(0);
    sync(world);
    table.destroy();
    expect(world.pool.usedFrames).toBe(0);
  });

  it.each(sizes.slice(1))("keeps a page of 2^%i bytes whole", (pageShift) => {
    const world = createWorld(create());
    const { table, gather } = world;
    const smallest = 2 ** (sizes[0]! - 12);
    const frames = 2 ** (pageShift - 12);
    const { iova, phys } = placeOf(table.format, pageShift);
    table.map(iova, phys, frames, PROT_RW);
    // §1.7: start inside a large entry → 0; end inside a large entry → the whole entry.
    expect(table.unmap(iova + smallest, smallest, gather)).toBe(0);
    expect(table.unmap(iova + smallest, frames - smallest, gather)).toBe(0);
    expect(table.unmapPages(iova + smallest, sizes[0]!, 1, gather)).toBe(0);
    expect(table.unmapPages(iova, sizes[0]!, 1, gather)).toBe(0);
    expect(table.map(iova, phys, smallest, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(table.mapPages(iova, phys, sizes[0]!, 1, PROT_RW)).toBe(Errno.EEXIST);
    expect(table.iovaToPhys(iova + frames - 1)).toBe(phys + frames - 1);
    expect(table.unmap(iova, smallest, gather)).toBe(frames);
    expect(leavesOf(table)).toEqual([]);
  });
}

function describeBounds(create: () => PageTableFormat): void {
  it("maps the last granule of the aperture, and nothing beyond it", () => {
    const { table } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    const last = table.apertureLastPfn - granule + 1;
    expect(table.apertureStartPfn).toBe(0);
    expect(table.map(last, 0, granule, PROT_RW)).toBe(Errno.OK);
    expect(table.iovaToPhys(table.apertureLastPfn)).toBe(granule - 1);
    if (table.apertureLastPfn === PFN_LAST) return;
    expect(table.map(last + granule, 0, granule, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(last, 0, 2 * granule, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.mapPages(last + granule, 0, table.pageShifts[0]!, 1, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.mapPages(last, 0, table.pageShifts[0]!, 2, PROT_RW)).toBe(Errno.ERANGE);
    const result = new WalkResult();
    expect(table.walk(last + granule, result)).toBe(false);
    expect(result.fault).toBe(WalkFault.OUT_OF_RANGE);
    expect(table.unmap(last, 2 * granule, new IotlbGather())).toBe(0);
  });

  it("refuses a range that wraps, an empty one, none of the rights, and half a granule", () => {
    const { table, gather } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    expect(table.map(PFN_LAST - granule + 1, 0, 2 * granule, PROT_RW)).toBe(Errno.EOVERFLOW);
    expect(table.map(0, 0, 0, PROT_RW)).toBe(Errno.EINVAL);
    expect(table.map(0, 0, granule, 0)).toBe(Errno.EINVAL);
    expect(table.map(0, 0, granule, Prot.CACHE)).toBe(Errno.EINVAL);
    expect(table.mapPages(0, 0, table.pageShifts[0]!, 1, 0)).toBe(Errno.EINVAL);
    expect(table.mapPages(0, 0, table.pageShifts[0]!, 0, PROT_RW)).toBe(Errno.EINVAL);
    expect(table.mapPages(0, 0, 63, 1, PROT_RW)).toBe(Errno.EINVAL);
    expect(table.mapPages(0.5 * granule, 0, table.pageShifts[0]!, 1, PROT_RW)).toBe(Errno.EINVAL);
    expect(table.unmap(PFN_LAST, 2, gather)).toBe(0);
    expect(table.unmap(0, 0, gather)).toBe(0);
    if (granule > 1) expect(table.map(0, 0, granule + 1, PROT_RW)).toBe(Errno.ENXIO);
    if (granule > 1) expect(table.map(0, 1, granule, PROT_RW)).toBe(Errno.ENXIO);
    expect(table.mappedPages).toBe(0);
    expect(leavesOf(table)).toEqual([]);
  });

  it("maps the last physical granule, and nothing beyond it", () => {
    const { table } = createWorld(create());
    const { format } = table;
    const granule = 2 ** (format.granuleShift - 12);
    const last = format.physEnd - granule;
    expect(table.map(0, last, granule, PROT_RW)).toBe(Errno.OK);
    expect(table.iovaToPhys(granule - 1)).toBe(format.physEnd - 1);
    expect(table.map(granule, format.physEnd, granule, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.map(granule, last, 2 * granule, PROT_RW)).toBe(Errno.ERANGE);
    expect(table.mapPages(granule, last, format.pageShifts[0]!, 2, PROT_RW)).toBe(Errno.ERANGE);
  });
}

function describeRights(create: () => PageTableFormat, normalProt: (prot: number) => number): void {
  it("gives every combination of rights and attributes back as far as the format holds it", () => {
    const { table } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    const result = new WalkResult();
    for (let prot = 1; prot < 64; prot += 1) {
      if ((prot & PROT_RW) === 0) continue;
      expect(table.map(prot * granule, prot * granule, granule, prot)).toBe(Errno.OK);
      expect(table.walk(prot * granule, result)).toBe(true);
      expect({ prot, got: result.prot }).toEqual({ prot, got: normalProt(prot) });
    }
  });
}

function describeTables(create: () => PageTableFormat): void {
  it("stops an unmap at a hole and tells how far it came", () => {
    const { table, gather } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    table.map(0, 8 * granule, 3 * granule, PROT_RW);
    table.map(4 * granule, 8 * granule, granule, PROT_RW);
    expect(table.unmap(0, 5 * granule, gather)).toBe(3 * granule);
    expect(table.iovaToPhys(4 * granule)).toBe(8 * granule);
    expect(table.unmapPages(3 * granule, table.pageShifts[0]!, 2, gather)).toBe(0);
    expect(table.unmapPages(4 * granule, table.pageShifts[0]!, 2, gather)).toBe(granule);
  });

  it("maps up to what is in the way and says so", () => {
    const { table } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    table.map(5 * granule, 0, granule, PROT_RW);
    expect(table.map(granule, 16 * granule, 8 * granule, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(table.mappedPages).toBe(4 * granule);
    expect(table.iovaToPhys(4 * granule)).toBe(19 * granule);
    expect(table.iovaToPhys(6 * granule)).toBe(-1);
    const count = table.mapPages(6 * granule, 0, table.pageShifts[0]!, 2, PROT_RW);
    expect(count).toBe(Errno.OK);
    // Arm looks before it writes: nothing of what ends in the same table is mapped.
    expect(table.mapPages(7 * granule, 0, table.pageShifts[0]!, 2, PROT_RW)).toBe(Errno.EEXIST);
    expect(table.mappedPages).toBe(0);
  });

  it("keeps a table that was cut off until it is freed", () => {
    const world = createWorld(create());
    const { table, gather, pool, meter } = world;
    const { format } = table;
    const before = pool.usedFrames;
    const entries = format.maskOf[0]! + 1;
    const granule = 2 ** (format.granuleShift - 12);
    // The physical side is off by one granule, so that only the smallest pages fit.
    expect(table.map(entries * granule, granule, 2 * entries * granule, PROT_RW)).toBe(Errno.OK);
    expect(table.tableCount(0)).toBe(format.levels > 1 ? 2 : 1);
    const used = pool.usedFrames;
    expect(table.tableBytes).toBe(used * 4096);
    const span = 2 * entries * granule;
    expect(table.unmap(entries * granule, span, gather)).toBe(span);
    expect(gather.freelist).toHaveLength(2);
    expect(table.pendingTables).toBe(2);
    expect(table.tableCount(0)).toBe(0);
    expect(pool.usedFrames).toBe(used);
    expect(meter.amount("tableFree")).toBe(0);
    expect(sync(world)).toBe(2);
    expect(pool.usedFrames).toBe(used - 2 * 2 ** format.tableOrder);
    expect(meter.amountAt("tableFree", 1)).toBe(2 * 2 ** format.tableOrder);
    expect(table.tableBytesPeak).toBe(used * 4096);
    expect(pool.usedFrames).toBeGreaterThanOrEqual(before);
    table.destroy();
    expect(pool.usedFrames).toBe(0);
    expect(meter.amount("tableAlloc")).toBe(meter.amount("tableFree"));
    expect(table.tableBytes).toBe(0);
  });

  it("puts a large page over an empty table, and not over one in use", () => {
    const world = createWorld(create());
    const { table, gather } = world;
    const { format } = table;
    const large = format.entryFramesOf[1]!;
    const granule = 2 ** (format.granuleShift - 12);
    if (format.levelOfShift[Math.log2(large) + 12] !== 1) return;
    table.map(0, 0, granule, PROT_RW);
    expect(table.map(0, large, large, PROT_RW)).toBe(Errno.EADDRINUSE);
    expect(table.mappedPages).toBe(0);
    table.unmap(0, granule, gather);
    expect(table.replaced.freelist).toBe(null);
    expect(table.map(0, large, large, PROT_RW)).toBe(Errno.OK);
    const { replaced } = table;
    expect(replaced).toMatchObject({ startPfn: 0, lastPfn: large - 1 });
    expect(replaced.freelist).toHaveLength(1);
    table.freeTables(replaced.takeTables()!);
    expect(table.tableCount(0)).toBe(0);
    expect(table.pendingTables).toBe(0);
  });
}

function describeWalks(create: () => PageTableFormat): void {
  it("walks on from any table that a walk found", () => {
    const { table, meter } = createWorld(create());
    const granule = 2 ** (table.format.granuleShift - 12);
    table.map(7 * granule, 9 * granule, granule, PROT_RW);
    const whole = new WalkResult();
    meter.reset();
    expect(table.walk(7 * granule, whole)).toBe(true);
    expect(whole.startLevel).toBe(table.topLevel);
    expect(meter.amountAt("entryRead", 1)).toBe(table.topLevel + 1);
    for (let level = table.topLevel; level >= 0; level -= 1) {
      const part = new WalkResult();
      expect(table.walkFrom(level, whole.tablePfns[level]!, 7 * granule, part)).toBe(true);
      expect(part).toMatchObject({ physPfn: 9 * granule, level: 0, startLevel: level });
    }
  });

  it("ignores no bit of an address", () => {
    const { table } = createWorld(create());
    const { format } = table;
    const granule = 2 ** (format.granuleShift - 12);
    const inputBits = Math.round(Math.log2(table.apertureLastPfn + 1));
    // Alternating bits reach every index of every level in both states.
    for (const [nth, pattern] of [0x5_5555_5555_5555, 0xa_aaaa_aaaa_aaaa, 0].entries()) {
      const iova = Math.floor((pattern % 2 ** inputBits) / granule) * granule;
      expect(table.map(iova, (nth + 1) * granule, granule, PROT_RW)).toBe(Errno.OK);
      for (let bit = format.granuleShift - 12; bit < inputBits; bit += 1) {
        const weight = 2 ** bit;
        const other = Math.floor(iova / weight) % 2 === 0 ? iova + weight : iova - weight;
        expect([bit, table.iovaToPhys(other)]).toEqual([bit, -1]);
        expect(table.unmap(other, granule, new IotlbGather())).toBe(0);
      }
      expect(table.iovaToPhys(iova)).toBe((nth + 1) * granule);
    }
  });

  it("finds the same by the fast path, the plain one, and in a dump", () => {
    const { table, pool } = createWorld(create());
    const { format } = table;
    const granule = 2 ** (format.granuleShift - 12);
    const places = [0, 3 * granule, format.entryFramesOf[1] ?? granule * 8, table.apertureLastPfn];
    for (const place of places) {
      table.map(place - (place % granule), 11 * granule, granule, PROT_RW);
    }
    const dump = table.dump();
    const walkers = [
      new TableWalker(format, pool, new CountingMeter()),
      new TableWalker(format, new DumpMemory(dump), new CountingMeter()),
    ];
    expect(dump.tables[0]).toMatchObject({ pfn: table.rootPfn, level: table.topLevel, node: 1 });
    for (const place of [...places, granule, places[2]! + granule]) {
      const expected = new WalkResult();
      const isFound = table.walk(place, expected);
      for (const walker of walkers) {
        const fast = new WalkResult();
        const plain = new WalkResult();
        expect(walker.walk(dump.rootPfn, dump.topLevel, place, fast)).toBe(isFound);
        expect(walker.walkPlain(dump.topLevel, dump.rootPfn, place, plain)).toBe(isFound);
        expect(fast).toEqual(expected);
        expect(plain).toEqual(expected);
      }
    }
  });
}

/**
 * Runs the suite.
 *
 * @param create - makes the format
 * @param normalProt - what is left of rights and attributes in this format
 */
export function describePageTable(
  create: () => PageTableFormat,
  normalProt: (prot: number) => number,
): void {
  describe(`page table ${create().name}`, () => {
    describeLeafSizes(create);
    describeBounds(create);
    describeRights(create, normalProt);
    describeTables(create);
    describeWalks(create);
    describeTableFailures(create);
    if (create().style === "range") describeMapEach(create);
  });
}
