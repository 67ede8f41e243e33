/**
 * A domain's page table: one mapper, one unmapper and one walker over real tables in a page pool.
 *
 * All addresses and lengths are 4 KiB frames. Two styles of call, as in Linux: `map` and `unmap`
 * take ranges and follow drivers/iommu/generic_pt; `mapPages` and `unmapPages` take runs of one
 * page size and follow drivers/iommu/io-pgtable-arm.c. The layouts are in `formats/`.
 *
 *     const table = new PageTable({ format: vtdSecondStage({ levels: 4 }), pool, node: 0 });
 *     table.map(0x1000, 0x8_0000, 512, PROT_RW); // 0; one 2 MiB leaf
 *     table.iovaToPhys(0x1001); // 0x8_0001
 *
 * Call order around invalidation: `unmap` puts tables on the gather; the caller invalidates, then
 * calls `freeTables`. After a `map` that replaced tables ({@link PageTable.replaced}) the caller
 * does the same at once. A `map` may change `rootPfn` and `topLevel` of a format whose top grows.
 */
import { assert } from "../errors.ts";
import type { PagePool } from "../memory/page-pool.ts";
import { type Meter, NULL_METER } from "../meter.ts";
import { modulo, PAGE_BYTES } from "../units.ts";
import type { PageTableFormat } from "./formats/format.ts";
import type { IotlbGather, TableList } from "./gather.ts";
import { TableCursor } from "./table-cursor.ts";
import { type DirtyReport, TableDirty } from "./table-dirty.ts";
import {
  dumpTables,
  forEachLeaf,
  type Leaf,
  type TableDump,
  type TableRoot,
} from "./table-dump.ts";
import { TableMapper } from "./table-map.ts";
import { TableTree } from "./table-tree.ts";
import { TableUnmapper } from "./table-unmap.ts";
import { TableWalker, WalkResult } from "./table-walk.ts";
import { FRAMES_OF_SHIFT } from "./tag-array.ts";

/** What a page table is made of. */
export interface PageTableOptions {
  readonly format: PageTableFormat;
  readonly pool: PagePool;
  /** NUMA node preferred for every table; −1 or none for the pool's first. */
  readonly node?: number;
  readonly meter?: Meter;
}

/** The page table of one domain. */
export class PageTable {
  readonly format: PageTableFormat;
  readonly #tree: TableTree;
  readonly #mapper: TableMapper;
  readonly #unmapper: TableUnmapper;
  readonly #dirty: TableDirty;
  readonly #walker: TableWalker;
  readonly #result = new WalkResult();
  readonly #quietWalker: TableWalker;
  #foundPages = 1;

  /**
   * @param tree - only for {@link PageTable.create}
   * @throws AssertionError when the pool has no room for the top table
   */
  constructor(options: PageTableOptions, tree: TableTree = createTree(options)) {
    assert(tree.rootPfn >= 0, "the pool has room for the top table");
    this.format = options.format;
    this.#tree = tree;
    const cursor = new TableCursor(tree);
    this.#mapper = new TableMapper(tree, cursor);
    this.#unmapper = new TableUnmapper(tree, cursor);
    this.#dirty = new TableDirty(tree);
    this.#walker = new TableWalker(options.format, options.pool, tree.meter);
    this.#quietWalker = new TableWalker(options.format, options.pool, NULL_METER);
  }

  /** A page table, or null (ENOMEM) when the pool has no room for its top. */
  static create(options: PageTableOptions): PageTable | null {
    const tree = createTree(options);
    return tree.rootPfn < 0 ? null : new PageTable(options, tree);
  }

  /** Page sizes that can be mapped, log2 of bytes, ascending. */
  get pageShifts(): readonly number[] {
    return this.format.pageShifts;
  }

  /** First frame that can be mapped. */
  get apertureStartPfn(): number {
    return 0;
  }

  /** Last frame that can be mapped; with sign extension, the last of the lower half. */
  get apertureLastPfn(): number {
    return this.format.lastPfn;
  }

  /** First frame of the top table; −1 after {@link destroy}. */
  get rootPfn(): number {
    return this.#tree.rootPfn;
  }

  /** Level of the top table, counted from 0 at the leaves. */
  get topLevel(): number {
    return this.#tree.topLevel;
  }

  /** Frames that the last map really mapped, also when it failed part-way. */
  get mappedPages(): number {
    return this.#mapper.mappedPages;
  }

  /** Tables that the last maps replaced by large leaves, with their range; taken by the caller. */
  get replaced(): IotlbGather {
    return this.#mapper.replaced;
  }

  /**
   * Maps `pages` frames with the largest pages that fit.
   *
   * @param prot - bits of `Prot`
   * @returns an errno, 0 on success: EINVAL (no rights, no length), EOVERFLOW (wraps), ERANGE
   *   (outside the aperture or the physical width), ENXIO (no page size fits), EADDRINUSE
   *   (occupied), ENOMEM; {@link mappedPages} tells how far it came
   */
  map(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    return this.#mapper.map(iovaPfn, physPfn, pages, prot);
  }

  /**
   * Maps `count` frames side by side, as one {@link map} of a single frame for each does, up to one
   * that fails.
   */
  mapEach(iovaPfn: number, pfns: Float64Array, count: number, prot: number): number {
    return this.#mapper.mapEach(iovaPfn, pfns, count, prot);
  }

  /**
   * Maps `count` pages of 2^pageShift bytes.
   *
   * @returns an errno, 0 on success: EINVAL (no such size, misaligned, no rights), ERANGE, EEXIST
   *   (a live leaf is in the way), ENOMEM; {@link mappedPages} tells how far it came
   */
  mapPages(
    iovaPfn: number,
    physPfn: number,
    pageShift: number,
    count: number,
    prot: number,
  ): number {
    return this.#mapper.mapPages(iovaPfn, physPfn, pageShift, count, prot);
  }

  /**
   * Unmaps `pages` frames. Only tables are put on the gather; what range to invalidate, and
   * whether to sync early, is the driver's decision.
   *
   * @returns frames unmapped from `iovaPfn` on: 0 inside a larger page or on a hole, fewer at a
   *   hole, more when the last page is larger
   */
  unmap(iovaPfn: number, pages: number, gather: IotlbGather): number {
    return this.#unmapper.unmap(iovaPfn, pages, gather);
  }

  /** Unmaps `count` pages of 2^pageShift bytes. @returns frames unmapped; stops at a hole */
  unmapPages(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    return this.#unmapper.unmapPages(iovaPfn, pageShift, count, gather);
  }

  /** Of the pages that the last {@link unmapPages} took out, how many were tables. */
  get cutBlocks(): number {
    return this.#unmapper.cutBlocks;
  }

  /** Walks from the top as the hardware does. @returns whether a page was found */
  walk(iovaPfn: number, out: WalkResult): boolean {
    const { rootPfn, topLevel, lastPfn } = this.#tree;
    if (iovaPfn <= lastPfn) return this.#walker.walkFrom(topLevel, rootPfn, iovaPfn, out);
    return this.#walker.walk(rootPfn, topLevel, iovaPfn, out);
  }

  /** Walks from the table of `level` at `tablePfn`, as found by an earlier walk. */
  walkFrom(level: number, tablePfn: number, iovaPfn: number, out: WalkResult): boolean {
    return this.#walker.walkFrom(level, tablePfn, iovaPfn, out);
  }

  /** The frame that a frame maps to, or −1. The CPU looks: no step is reported. */
  iovaToPhys(iovaPfn: number): number {
    const { rootPfn, topLevel } = this.#tree;
    const result = this.#result;
    this.#quietWalker.walk(rootPfn, topLevel, iovaPfn, result);
    const frames = FRAMES_OF_SHIFT[result.pageShift]!;
    this.#foundPages = frames === 1 ? 1 : frames - modulo(iovaPfn, frames);
    return result.physPfn;
  }

  /** After {@link iovaToPhys} found a page: frames from there to the end of that page. */
  get foundPages(): number {
    return this.#foundPages;
  }

  /**
   * Reports the pages of a range that were written, and makes them clean if asked to.
   *
   * @returns an errno, 0 on success; EINVAL when the format keeps no dirty state
   */
  readDirty(iovaPfn: number, pages: number, isCleaning: boolean, report: DirtyReport): number {
    return this.#dirty.read(iovaPfn, pages, isCleaning, report);
  }

  /** Marks a page as written, as the hardware does. @returns whether it is now marked */
  markDirty(iovaPfn: number): boolean {
    return this.#dirty.mark(iovaPfn);
  }

  /** Calls `visit` for every mapping, in the order of addresses. */
  forEachLeaf(visit: (leaf: Leaf) => void): void {
    forEachLeaf(this.#root, visit);
  }

  /** A copy of all tables that any walker can walk. */
  dump(): TableDump {
    return dumpTables(this.#root);
  }

  get #root(): TableRoot {
    const { format, pool, rootPfn, topLevel } = this.#tree;
    return { format, memory: pool, rootPfn, topLevel };
  }

  /** Takes tables from another node from now on; those that exist stay where they are. */
  preferNode(node: number): void {
    this.#tree.node = node;
  }

  /** Gives back tables that no walker can hold any more. */
  freeTables(tables: TableList): void {
    for (const pfn of tables) this.#tree.freePending(pfn);
  }

  /** Gives every table of the tree back; the table is unusable afterwards. */
  destroy(): void {
    this.#tree.destroy();
  }

  /** Tables that are part of the tree at a level. */
  tableCount(level: number): number {
    return this.#tree.tableCounts[level] ?? 0;
  }

  /** Tables cut off and not freed yet. */
  get pendingTables(): number {
    return this.#tree.pendingTables;
  }

  /** Bytes of tables held, pending ones included. */
  get tableBytes(): number {
    return this.#tree.frames * PAGE_BYTES;
  }

  /** The most bytes of tables that were held at once. */
  get tableBytesPeak(): number {
    return this.#tree.framesPeak * PAGE_BYTES;
  }
}

function createTree(options: PageTableOptions): TableTree {
  const { format, pool, node = -1, meter = NULL_METER } = options;
  const tree = new TableTree(format, pool, node, meter);
  tree.rootPfn = tree.allocateTable(format.topLevel, format.rootOrder);
  return tree;
}
