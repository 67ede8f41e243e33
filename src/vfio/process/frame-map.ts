/**
 * Which frame is behind each page of a process or file: a page table whose entries reach as far as
 * frames lie side by side.
 *
 * An entry is a number: 0 when absent, `pfn + 1` for a frame that belongs here alone, `-(pfn + 1)`
 * for one that is only lent for reading (the zero page, or the page cache behind a private mapping)
 * and which a write or a long-term pin replaces. Tables of 512 entries hold single pages; a block
 * of 2 MiB or a group of 1 GiB whose frames lie side by side is one entry.
 *
 * On the path of every pin (bench/pinning.bench.ts): the table used last is kept.
 */
const TABLE_PAGES = 512;
const TABLE_SHIFT = 9;
const GROUP_PAGES = TABLE_PAGES * TABLE_PAGES;
const GROUP_MASK = GROUP_PAGES - 1;

const NO_TABLE = new Float64Array(0);

class Group {
  /** Entry of the first page while all frames of the group lie side by side; else 0. */
  whole = 0;
  /** Entry of the first page of each block whose frames lie side by side; else 0. */
  readonly blocks = new Float64Array(TABLE_PAGES);
  readonly tables: (Float64Array | undefined)[] = [];
  /** Blocks that have an entry or a table. */
  used = 0;

  /** Gives a block an entry, 0 for none, instead of what it had. */
  setBlock(block: number, entry: number): void {
    const had = this.blocks[block] !== 0 || this.tables[block] !== undefined;
    this.used += (entry !== 0 ? 1 : 0) - (had ? 1 : 0);
    this.blocks[block] = entry;
    this.tables[block] = undefined;
  }
}

/** Tells of a run of entries: lent ones come one by one. */
export type EntryVisitor = (pfn: number, pages: number, isLent: boolean) => void;

/** The map. */
export class FrameMap {
  readonly #groups = new Map<number, Group>();
  #table: Float64Array = NO_TABLE;
  #tableStart = 0;

  /** The entry of a page. */
  entryAt(page: number): number {
    const offset = page - this.#tableStart;
    if (offset >= 0 && offset < this.#table.length) return this.#table[offset]!;
    return this.#entrySlowly(page);
  }

  /**
   * Counts how many entries from a page on are of the kind of its own: absent, or own and side by
   * side; a lent one counts alone.
   *
   * @param max - at most that many
   */
  runFrom(page: number, max: number): number {
    const first = this.entryAt(page);
    if (first < 0) return 1;
    let count = 0;
    while (count < max) {
      const at = page + count;
      const entry = this.entryAt(at);
      if (entry !== (first === 0 ? 0 : first + count)) break;
      const rest = at - this.#tableStart;
      if (rest >= 0 && rest < this.#table.length) {
        count += this.#runInTable(rest, max - count);
      } else {
        count += this.#alikeFrom(at);
      }
    }
    return Math.min(count, max);
  }

  /** The 512 entries around a page where they are single pages, from `page & 511` on; else null. */
  tableAround(page: number): Float64Array | null {
    const offset = page - this.#tableStart;
    return offset >= 0 && offset < this.#table.length ? this.#table : null;
  }

  /** Stores frames that lie side by side; a negative entry is for one page. */
  set(page: number, pages: number, entry: number): void {
    let done = 0;
    while (done < pages) {
      const at = page + done;
      const offset = at & GROUP_MASK;
      const left = pages - done;
      if (offset === 0 && left >= GROUP_PAGES) {
        const group = new Group();
        group.whole = entry + done;
        this.#groups.set(at / GROUP_PAGES, group);
        this.#table = NO_TABLE;
        done += GROUP_PAGES;
      } else if ((offset & (TABLE_PAGES - 1)) === 0 && left >= TABLE_PAGES) {
        const group = this.#splitGroup(Math.floor(at / GROUP_PAGES));
        group.setBlock(offset >>> TABLE_SHIFT, entry + done);
        this.#table = NO_TABLE;
        done += TABLE_PAGES;
      } else {
        this.#useTable(at);
        const start = at - this.#tableStart;
        const end = Math.min(TABLE_PAGES, start + left);
        for (let slot = start; slot < end; slot += 1) {
          this.#table[slot] = entry + done;
          done += 1;
        }
      }
    }
  }

  /** Clears entries and tells of each run there was. */
  remove(page: number, pages: number, visitor: EntryVisitor): void {
    let done = 0;
    while (done < pages) {
      const at = page + done;
      const count = this.runFrom(at, pages - done);
      const entry = this.entryAt(at);
      if (entry !== 0) {
        this.#clear(at, count);
        visitor(Math.abs(entry) - 1, count, entry < 0);
      }
      done += count;
    }
  }

  #entrySlowly(page: number): number {
    const group = this.#groups.get(Math.floor(page / GROUP_PAGES));
    if (group === undefined) return 0;
    const offset = page & GROUP_MASK;
    if (group.whole !== 0) return group.whole + offset;
    const block = offset >>> TABLE_SHIFT;
    const entry = group.blocks[block]!;
    if (entry !== 0) return entry + (offset & (TABLE_PAGES - 1));
    const table = group.tables[block];
    if (table === undefined) return 0;
    this.#table = table;
    this.#tableStart = page - (offset & (TABLE_PAGES - 1));
    return table[offset & (TABLE_PAGES - 1)]!;
  }

  #runInTable(from: number, max: number): number {
    const table = this.#table;
    const end = Math.min(TABLE_PAGES, from + max);
    const step = table[from] === 0 ? 0 : 1;
    let slot = from + 1;
    while (slot < end && table[slot] === table[slot - 1]! + step) slot += 1;
    return slot - from;
  }

  /** Pages from one on that no table holds and that are one entry, or one absence. */
  #alikeFrom(page: number): number {
    const group = this.#groups.get(Math.floor(page / GROUP_PAGES));
    const offset = page & GROUP_MASK;
    if (group === undefined || group.whole !== 0) return GROUP_PAGES - offset;
    return TABLE_PAGES - (offset & (TABLE_PAGES - 1));
  }

  /** The group with an entry for each block. */
  #splitGroup(index: number): Group {
    let group = this.#groups.get(index);
    if (group === undefined) {
      group = new Group();
      this.#groups.set(index, group);
    } else if (group.whole !== 0) {
      for (let block = 0; block < TABLE_PAGES; block += 1)
        group.setBlock(block, group.whole + block * TABLE_PAGES);
      group.whole = 0;
    }
    return group;
  }

  /** Makes the table of a page, if need be out of its block, the one that is used. */
  #useTable(page: number): void {
    const offset = page - this.#tableStart;
    if (offset >= 0 && offset < this.#table.length) return;
    const group = this.#splitGroup(Math.floor(page / GROUP_PAGES));
    const block = (page & GROUP_MASK) >>> TABLE_SHIFT;
    let table = group.tables[block];
    if (table === undefined) {
      table = new Float64Array(TABLE_PAGES);
      const entry = group.blocks[block]!;
      if (entry !== 0) {
        for (let slot = 0; slot < TABLE_PAGES; slot += 1) table[slot] = entry + slot;
        group.blocks[block] = 0;
      } else {
        group.used += 1;
      }
      group.tables[block] = table;
    }
    this.#table = table;
    this.#tableStart = page - (page & (TABLE_PAGES - 1));
  }

  #clear(page: number, pages: number): void {
    let done = 0;
    while (done < pages) {
      const at = page + done;
      const offset = at & GROUP_MASK;
      const left = pages - done;
      if (offset === 0 && left >= GROUP_PAGES) {
        this.#groups.delete(at / GROUP_PAGES);
        this.#table = NO_TABLE;
        done += GROUP_PAGES;
      } else if ((offset & (TABLE_PAGES - 1)) === 0 && left >= TABLE_PAGES) {
        this.#clearBlock(at);
        done += TABLE_PAGES;
      } else {
        this.#useTable(at);
        const table = this.#table;
        const start = at - this.#tableStart;
        const end = Math.min(TABLE_PAGES, start + left);
        table.fill(0, start, end);
        // Empty tables go, as free_pgtables has it, so that memory follows what is in use.
        if (table.every((entry) => entry === 0)) this.#clearBlock(at);
        done += end - start;
      }
    }
  }

  #clearBlock(page: number): void {
    const index = Math.floor(page / GROUP_PAGES);
    const group = this.#splitGroup(index);
    group.setBlock((page & GROUP_MASK) >>> TABLE_SHIFT, 0);
    if (group.used === 0) this.#groups.delete(index);
    this.#table = NO_TABLE;
  }
}
