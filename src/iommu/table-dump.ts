/**
 * Page tables seen from outside: every leaf in order, and a copy of the tables as plain data that
 * any walker can walk, ours included.
 *
 * The tables may be anybody's: what a hostile table can make this visit is bounded.
 */
import { assert, StackError } from "../errors.ts";
import { createChunk, type FrameChunk, type FrameMemory } from "../memory/page-pool.ts";
import { alignDown, hex, PAGE_SHIFT, PFN_LAST, powerOfTwo } from "../units.ts";
import {
  contiguousShift,
  EntryKind,
  entryPfn,
  LEVELS_MAX,
  leafPfn,
  type PageTableFormat,
} from "./formats/format.ts";

/** Tables that a visit takes at most, without another bound: 4 GiB of them. */
export const TABLES_MAX = 2 ** 20;

const ENTRIES_PER_FRAME = 512;
const FRAME_WORDS = 1024;

/** Where the tables of a domain begin. */
export interface TableRoot {
  readonly format: PageTableFormat;
  readonly memory: FrameMemory;
  readonly rootPfn: number;
  readonly topLevel: number;
}

/** One mapping, as the hardware sees it. */
export interface Leaf {
  readonly iovaPfn: number;
  readonly physPfn: number;
  /** log2 of its size in bytes. */
  readonly pageShift: number;
  /** Bits of `Prot`. */
  readonly prot: number;
}

/** One table. */
export interface DumpedTable {
  readonly level: number;
  readonly pfn: number;
  readonly node: number;
  /** Its entries, low word first. */
  readonly words: Uint32Array;
}

/** A copy of all tables of a domain, top first. */
export interface TableDump {
  readonly format: string;
  readonly rootPfn: number;
  readonly topLevel: number;
  readonly tables: readonly DumpedTable[];
}

interface Visitor {
  table?(level: number, pfn: number): void;
  leaf?(leaf: Leaf): void;
}

interface Rights {
  readonly andLow: number;
  readonly andHigh: number;
  readonly orHigh: number;
}

/** Visits tables before what is below them, and everything in the order of addresses. */
class TreeVisit {
  readonly #root: TableRoot;
  readonly #visitor: Visitor;
  readonly #chunk: FrameChunk = createChunk();
  readonly #tablesMax: number;
  /** Tables above the one visited, by level. */
  readonly #path = new Float64Array(LEVELS_MAX).fill(-1);
  #tables = 0;

  constructor(root: TableRoot, visitor: Visitor, tablesMax: number) {
    this.#root = root;
    this.#visitor = visitor;
    this.#tablesMax = tablesMax;
    assert(root.topLevel < root.format.levels, "the top is one of the format's levels");
    this.#visit(root.topLevel, root.rootPfn, 0, { andLow: -1, andHigh: -1, orHigh: 0 });
  }

  #visit(level: number, tablePfn: number, startPfn: number, rights: Rights): void {
    const { format, memory } = this.#root;
    const chunk = this.#chunk;
    if (!memory.chunkAt(tablePfn, chunk)) return;
    this.#tables += 1;
    if (this.#tables > this.#tablesMax) {
      throw tableError(`there are more than ${this.#tablesMax} tables`);
    }
    for (let above = level + 1; above <= this.#root.topLevel; above += 1) {
      if (this.#path[above] !== tablePfn) continue;
      throw tableError(
        `a table of level ${level + 1} points to a table above it: ${hex(tablePfn)}`,
      );
    }
    this.#path[level] = tablePfn;
    this.#visitor.table?.(level, tablePfn);
    const entryFrames = format.entryFramesOf[level]!;
    for (let index = 0; index <= format.maskOf[level]!; ) {
      const pfn = tablePfn + (index >> 9);
      if (!memory.chunkAt(pfn, chunk)) break;
      const word = (pfn - chunk.firstPfn) * FRAME_WORDS + 2 * (index % ENTRIES_PER_FRAME);
      const low = chunk.words[word]! | 0;
      const high = chunk.words[word + 1]! | 0;
      const iovaPfn = startPfn + index * entryFrames;
      index += this.#entry(level, low, high, iovaPfn, rights);
    }
    this.#path[level] = -1;
  }

  /** @returns how many entries the entry stands for */
  #entry(level: number, low: number, high: number, iovaPfn: number, rights: Rights): number {
    const { format } = this.#root;
    if ((low & format.presentLow) === 0) return 1;
    const type = (low >>> format.typeShift) & format.typeMask;
    const kind = format.kinds[level * 8 + type]!;
    if (kind === EntryKind.RESERVED) return 1;
    if (kind === EntryKind.TABLE || kind === EntryKind.SKIP) {
      const below = {
        andLow: rights.andLow & low,
        andHigh: rights.andHigh & high,
        orHigh: rights.orHigh | high,
      };
      const childLevel = kind === EntryKind.TABLE ? level - 1 : type - 1;
      this.#visit(childLevel, entryPfn(format, low, high), iovaPfn, below);
      return 1;
    }
    const shift = format.shiftOf[level]!;
    let order = shift;
    if (kind === EntryKind.CONTIGUOUS) order = contiguousShift(low, high) - PAGE_SHIFT;
    if (order < shift || order > 39) return 1;
    const { andLow, andHigh, orHigh } = rights;
    const first = alignDown(iovaPfn, powerOfTwo(order));
    // Somebody else's table may lack the first entries of a page; it is reported as a whole.
    this.#visitor.leaf?.({
      iovaPfn: this.#extended(first),
      physPfn: leafPfn(format, low, high, order + PAGE_SHIFT),
      pageShift: order + PAGE_SHIFT,
      prot: format.decodeProt(low, high, andLow, andHigh, orHigh),
    });
    return (first + powerOfTwo(order) - iovaPfn) / powerOfTwo(shift);
  }

  #extended(iovaPfn: number): number {
    const { format } = this.#root;
    if (!format.signExtend || iovaPfn <= format.lastPfn) return iovaPfn;
    return PFN_LAST - 2 * format.lastPfn - 1 + iovaPfn;
  }
}

function tableError(message: string): StackError {
  return new StackError({
    code: "iommu/table-loop",
    kind: "input",
    message: `page tables are not a tree: ${message}`,
    hint: "check the frame of the root and the format",
  });
}

/**
 * Calls `visit` for every mapping, in the order of addresses.
 *
 * @param tablesMax - how many tables are taken at most
 * @throws StackError `iommu/table-loop` when there are more, or one points to one above it
 */
export function forEachLeaf(
  root: TableRoot,
  visit: (leaf: Leaf) => void,
  tablesMax = TABLES_MAX,
): void {
  new TreeVisit(root, { leaf: visit }, tablesMax);
}

/** Copies all tables. @throws StackError as {@link forEachLeaf} does */
export function dumpTables(root: TableRoot, tablesMax = TABLES_MAX): TableDump {
  const { format, memory } = root;
  const tables: DumpedTable[] = [];
  const chunk = createChunk();
  const table = (level: number, pfn: number): void => {
    const entries = format.maskOf[level]! + 1;
    const words = new Uint32Array(2 * entries);
    for (let entry = 0; entry < entries; entry += ENTRIES_PER_FRAME) {
      const framePfn = pfn + entry / ENTRIES_PER_FRAME;
      if (!memory.chunkAt(framePfn, chunk)) break;
      const count = Math.min(FRAME_WORDS, words.length - 2 * entry);
      const start = (framePfn - chunk.firstPfn) * FRAME_WORDS;
      words.set(chunk.words.subarray(start, start + count), 2 * entry);
    }
    memory.chunkAt(pfn, chunk);
    tables.push({ level, pfn, node: chunk.node, words });
  };
  new TreeVisit(root, { table }, tablesMax);
  return { format: format.name, rootPfn: root.rootPfn, topLevel: root.topLevel, tables };
}

/** Memory that holds a dump, and nothing else. */
export class DumpMemory implements FrameMemory {
  readonly #frames = new Map<number, { words: Uint32Array; node: number }>();

  constructor(dump: TableDump) {
    for (const { pfn, node, words } of dump.tables) {
      for (let frame = 0; frame * FRAME_WORDS < words.length; frame += 1) {
        const start = frame * FRAME_WORDS;
        this.#frames.set(pfn + frame, { words: words.subarray(start), node });
      }
    }
  }

  chunkAt(pfn: number, out: FrameChunk): boolean {
    const frame = this.#frames.get(pfn);
    if (frame === undefined) return false;
    out.words = frame.words;
    out.firstPfn = pfn;
    out.frames = 1;
    out.node = frame.node;
    return true;
  }
}
