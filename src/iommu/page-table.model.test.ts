/** Model-based: random operations on a page table, its plain twin, and a flat map of pages. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { NULL_METER } from "../meter.ts";
import { standardFormats } from "./formats/catalog.ts";
import type { PageTableFormat } from "./formats/format.ts";
import { createWorld, leavesOf, sync, type TableWorld } from "./page-table.suite.ts";
import { PageTableTwin } from "./page-table-twin.suite.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { TableWalker, WalkResult } from "./table-walk.ts";

interface Operation {
  readonly kind: "map" | "unmap" | "mapPages" | "unmapPages" | "sync";
  /** Position and length in granules. */
  readonly at: number;
  readonly length: number;
  /** Distance from the virtual to the physical side, in granules. */
  readonly shift: number;
  readonly prot: number;
  /** Which page size, from the smallest. */
  readonly size: number;
}

/** Granules that the operations touch: two leaf tables and a bit, over a boundary. */
function windowOf(format: PageTableFormat): number {
  return 2 * (format.maskOf[0]! + 1) + 16;
}

function operations(format: PageTableFormat): fc.Arbitrary<Operation[]> {
  const entries = format.maskOf[0]! + 1;
  const window = windowOf(format);
  const at = fc.oneof(
    { weight: 3, arbitrary: fc.nat(24) },
    { weight: 2, arbitrary: fc.integer({ min: entries - 12, max: entries + 12 }) },
    { weight: 2, arbitrary: fc.constantFrom(0, entries, 2 * entries) },
    { weight: 1, arbitrary: fc.nat(window - 1) },
  );
  const length = fc.oneof(
    { weight: 4, arbitrary: fc.integer({ min: 1, max: 20 }) },
    { weight: 2, arbitrary: fc.constantFrom(entries, 2 * entries, entries / 2, entries + 3) },
    { weight: 1, arbitrary: fc.integer({ min: 1, max: window }) },
  );
  const kinds: Operation["kind"][] =
    format.style === "range"
      ? ["map", "map", "map", "unmap", "unmap", "sync"]
      : ["map", "map", "mapPages", "mapPages", "unmap", "unmapPages", "unmapPages", "sync"];
  return fc.array(
    fc.record<Operation>({
      kind: fc.constantFrom(...kinds),
      at,
      length,
      shift: fc.constantFrom(0, 0, 0, 1, 7, 4 * entries, entries + 8),
      prot: fc.constantFrom(PROT_RW, PROT_RW, Prot.READ, Prot.WRITE),
      size: fc.constantFrom(0, 0, 0, 1),
    }),
    { maxLength: 30 },
  );
}

/** What is mapped, granule by granule, kept only by what the calls report. */
class FlatPages {
  readonly pages = new Map<number, number>();

  map(at: number, phys: number, count: number): void {
    for (let page = 0; page < count; page += 1) this.pages.set(at + page, phys + page);
  }

  unmap(at: number, count: number): void {
    for (let page = 0; page < count; page += 1) this.pages.delete(at + page);
  }
}

function apply(world: TableWorld, twin: PageTableTwin, flat: FlatPages, operation: Operation) {
  const { table, gather } = world;
  const { format } = table;
  const granule = 2 ** (format.granuleShift - 12);
  const window = windowOf(format);
  // A base that crosses a table of level 1 in the middle of the window.
  const base = (format.entryFramesOf[2] ?? 2 * format.entryFramesOf[1]!) / granule;
  const start = base - (format.maskOf[0]! + 1);
  const { kind, prot, size } = operation;
  const length = Math.min(operation.length, window - operation.at);
  const pageShift = format.pageShifts[size]!;
  const frames = 2 ** (pageShift - 12);
  const count = Math.max(1, Math.floor((length * granule) / frames));
  const at = start + operation.at;
  const phys = at + operation.shift;
  const aligned = Math.floor((at * granule) / frames) * frames;
  switch (kind) {
    case "map": {
      const errno = table.map(at * granule, phys * granule, length * granule, prot);
      expect(errno).toBe(twin.map(at * granule, phys * granule, length * granule, prot));
      expect(table.mappedPages).toBe(twin.mappedPages);
      flat.map(at, phys, table.mappedPages / granule);
      break;
    }
    case "unmap": {
      const unmapped = table.unmap(at * granule, length * granule, gather);
      expect(unmapped).toBe(twin.unmap(at * granule, length * granule));
      flat.unmap(at, unmapped / granule);
      break;
    }
    case "mapPages": {
      const target = aligned + Math.floor(operation.shift / 8) * frames;
      const errno = table.mapPages(aligned, target, pageShift, count, prot);
      expect(errno).toBe(twin.mapPages(aligned, target, frames, count, prot));
      expect(table.mappedPages).toBe(twin.mappedPages);
      flat.map(aligned / granule, target / granule, table.mappedPages / granule);
      break;
    }
    case "unmapPages": {
      const unmapped = table.unmapPages(aligned, pageShift, count, gather);
      expect(unmapped).toBe(twin.unmapPages(aligned, frames, count));
      flat.unmap(aligned / granule, unmapped / granule);
      break;
    }
    default:
      sync(world);
  }
  if (table.replaced.freelist !== null) {
    table.freeTables(table.replaced.takeTables()!);
    table.replaced.reset();
  }
}

function compare(world: TableWorld, twin: PageTableTwin, flat: FlatPages): void {
  const { table, pool } = world;
  const { format } = table;
  const granule = 2 ** (format.granuleShift - 12);
  const differences: string[] = [];
  let pages = 0;
  for (const leaf of leavesOf(table)) {
    const frames = 2 ** (leaf.pageShift - 12);
    const page = twin.find(leaf.iovaPfn);
    if (page?.physPfn !== leaf.physPfn || page.frames !== frames) {
      differences.push(`leaf at ${leaf.iovaPfn}`);
    }
    for (let offset = 0; offset < frames; offset += granule) {
      const expected = flat.pages.get((leaf.iovaPfn + offset) / granule);
      if (expected !== (leaf.physPfn + offset) / granule) {
        differences.push(`page at ${leaf.iovaPfn + offset}`);
      }
      pages += 1;
    }
  }
  const counts = Array.from({ length: format.levels }, (_, level) => level);
  expect(differences).toEqual([]);
  expect(pages).toBe(flat.pages.size);
  expect(counts.map((level) => table.tableCount(level))).toEqual(
    counts.map((level) => twin.tableCount(level)),
  );
  const walker = new TableWalker(format, pool, NULL_METER);
  const fast = new WalkResult();
  const plain = new WalkResult();
  for (const page of [...flat.pages.keys()].filter((_, index) => index % 16 === 0)) {
    for (const iova of [page * granule, (page + 1) * granule]) {
      table.walk(iova, fast);
      walker.walkPlain(table.topLevel, table.rootPfn, iova, plain);
      const expected = flat.pages.get(iova / granule);
      if (fast.physPfn !== (expected === undefined ? -1 : expected * granule)) {
        differences.push(`walk to ${iova}`);
      }
      if (JSON.stringify(fast) !== JSON.stringify(plain)) differences.push(`plain to ${iova}`);
    }
  }
  expect(differences).toEqual([]);
}

describe("page table against its twin", () => {
  it.each(standardFormats().map((format) => [format.name, format] as const))(
    "does on %s what a tree of maps does, and reports what it did",
    (_name, format) => {
      const large = format.maskOf[0]! > 4000;
      fc.assert(
        fc.property(operations(format), (list) => {
          const world = createWorld(format, 512);
          const twin = new PageTableTwin(format);
          const flat = new FlatPages();
          for (const operation of list) apply(world, twin, flat, operation);
          compare(world, twin, flat);
          sync(world);
          expect(world.table.pendingTables).toBe(0);
          world.table.destroy();
          expect(world.pool.usedFrames).toBe(0);
        }),
        { seed: 7, numRuns: large ? 10 : 40 },
      );
    },
  );
});
