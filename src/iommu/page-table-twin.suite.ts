/**
 * The plain twin of a page table: a tree of Maps, one leaf at a time, with nothing clever in it.
 * The rules are those of linux-dma-path.md §1.6 and §1.7.
 */
import { Errno } from "../errno.ts";
import type { PageTableFormat } from "./formats/format.ts";

interface TwinLeaf {
  readonly kind: "leaf";
  readonly iovaPfn: number;
  readonly physPfn: number;
  readonly frames: number;
  readonly prot: number;
}

interface TwinTable {
  readonly kind: "table";
  readonly level: number;
  readonly entries: Map<number, TwinLeaf | TwinTable>;
}

/** What a lookup in the twin finds. */
export interface TwinPage {
  readonly physPfn: number;
  readonly frames: number;
  readonly prot: number;
}

function newTable(level: number): TwinTable {
  return { kind: "table", level, entries: new Map() };
}

function holdsLeaf(table: TwinTable): boolean {
  for (const entry of table.entries.values()) {
    if (entry.kind === "leaf" || holdsLeaf(entry)) return true;
  }
  return false;
}

/** A page table in the plainest form. */
export class PageTableTwin {
  mappedPages = 0;
  /** Tables that left the tree. */
  dropped = 0;
  readonly #format: PageTableFormat;
  #top: TwinTable;

  constructor(format: PageTableFormat) {
    this.#format = format;
    this.#top = newTable(format.topLevel);
  }

  /** Frames of the largest page that fits at an address, or 0. */
  static bestFrames(
    format: PageTableFormat,
    iovaPfn: number,
    physPfn: number,
    pages: number,
  ): number {
    let best = 0;
    for (const shift of format.pageShifts) {
      const frames = 2 ** (shift - 12);
      if (frames > pages || iovaPfn % frames !== 0 || physPfn % frames !== 0) continue;
      best = frames;
    }
    return best;
  }

  map(iovaPfn: number, physPfn: number, pages: number, prot: number): number {
    this.mappedPages = 0;
    if (PageTableTwin.bestFrames(this.#format, iovaPfn, physPfn, pages) === 0) return Errno.ENXIO;
    this.#grow(iovaPfn + pages - 1);
    while (this.mappedPages < pages) {
      const iova = iovaPfn + this.mappedPages;
      const phys = physPfn + this.mappedPages;
      const left = pages - this.mappedPages;
      const frames = PageTableTwin.bestFrames(this.#format, iova, phys, left);
      if (!this.#insert(iova, phys, frames, prot, false)) return Errno.EADDRINUSE;
      this.mappedPages += frames;
    }
    return Errno.OK;
  }

  /** Arm: what ends in one table is looked at as a whole before anything is written. */
  mapPages(iovaPfn: number, physPfn: number, frames: number, count: number, prot: number): number {
    this.mappedPages = 0;
    const tableFrames = this.#format.tableFramesOf[this.#levelOf(frames)]!;
    while (this.mappedPages < count * frames) {
      const start = iovaPfn + this.mappedPages;
      const tableEnd = (Math.floor(start / tableFrames) + 1) * tableFrames;
      const end = Math.min(tableEnd, iovaPfn + count * frames);
      for (let iova = start; iova < end; iova += frames) {
        const page = this.find(iova);
        if (page !== null && page.frames >= frames) return Errno.EEXIST;
      }
      for (let iova = start; iova < end; iova += frames) {
        this.#insert(iova, physPfn + iova - iovaPfn, frames, prot, true);
        this.mappedPages += frames;
      }
    }
    return Errno.OK;
  }

  unmap(iovaPfn: number, pages: number): number {
    if (!this.#isBelowTop(iovaPfn + pages - 1)) return 0;
    const result = { unmapped: 0 };
    this.#unmapIn(this.#top, iovaPfn, iovaPfn + pages - 1, result);
    return result.unmapped;
  }

  unmapPages(iovaPfn: number, frames: number, count: number): number {
    const level = this.#levelOf(frames);
    for (let done = 0; done < count; done += 1) {
      const iova = iovaPfn + done * frames;
      let table = this.#top;
      while (table.level > level) {
        const entry = table.entries.get(this.#index(table.level, iova));
        if (entry === undefined || entry.kind === "leaf") return done * frames;
        table = entry;
      }
      const index = this.#index(level, iova);
      const entry = table.entries.get(index);
      if (entry === undefined) return done * frames;
      if (entry.kind === "table") this.#drop(entry);
      table.entries.delete(index);
    }
    return count * frames;
  }

  find(iovaPfn: number): TwinPage | null {
    let entry: TwinLeaf | TwinTable | undefined = this.#top;
    while (entry?.kind === "table") {
      if (entry === this.#top && !this.#isBelowTop(iovaPfn)) return null;
      entry = entry.entries.get(this.#index(entry.level, iovaPfn));
    }
    if (entry === undefined) return null;
    const { frames, prot } = entry;
    return { physPfn: entry.physPfn + iovaPfn - entry.iovaPfn, frames, prot };
  }

  /** Tables of a level. */
  tableCount(level: number): number {
    const count = (table: TwinTable): number => {
      let sum = table.level === level ? 1 : 0;
      for (const entry of table.entries.values()) if (entry.kind === "table") sum += count(entry);
      return sum;
    };
    return count(this.#top);
  }

  #isBelowTop(iovaPfn: number): boolean {
    const { level } = this.#top;
    return level === this.#format.topLevelMax || iovaPfn < this.#format.tableFramesOf[level]!;
  }

  #grow(lastPfn: number): void {
    while (!this.#isBelowTop(lastPfn)) {
      const top = newTable(this.#top.level + 1);
      top.entries.set(0, this.#top);
      this.#top = top;
    }
  }

  #levelOf(frames: number): number {
    return this.#format.levelOfShift[Math.log2(frames) + 12]!;
  }

  #index(level: number, iovaPfn: number): number {
    const entries = this.#format.maskOf[level]! + 1;
    return Math.floor(iovaPfn / this.#format.entryFramesOf[level]!) % entries;
  }

  #insert(
    iovaPfn: number,
    physPfn: number,
    frames: number,
    prot: number,
    dropsLeaves: boolean,
  ): boolean {
    const level = this.#levelOf(frames);
    let table = this.#top;
    while (table.level > level) {
      const index = this.#index(table.level, iovaPfn);
      let entry = table.entries.get(index);
      if (entry?.kind === "leaf") return false;
      if (entry === undefined) {
        entry = newTable(table.level - 1);
        table.entries.set(index, entry);
      }
      table = entry;
    }
    const slots = frames / this.#format.entryFramesOf[level]!;
    const first = this.#index(level, iovaPfn);
    for (let index = first; index < first + slots; index += 1) {
      const entry = table.entries.get(index);
      if (entry === undefined) continue;
      if (entry.kind === "leaf") return false;
      if (!dropsLeaves && holdsLeaf(entry)) return false;
      this.#drop(entry);
      table.entries.delete(index);
    }
    const leaf: TwinLeaf = { kind: "leaf", iovaPfn, physPfn, frames, prot };
    for (let index = first; index < first + slots; index += 1) table.entries.set(index, leaf);
    return true;
  }

  #drop(table: TwinTable): void {
    this.dropped += 1;
    for (const entry of table.entries.values()) if (entry.kind === "table") this.#drop(entry);
  }

  #unmapIn(
    table: TwinTable,
    firstPfn: number,
    lastPfn: number,
    result: { unmapped: number },
  ): boolean {
    const entryFrames = this.#format.entryFramesOf[table.level]!;
    let first = firstPfn;
    while (first <= lastPfn) {
      const index = this.#index(table.level, first);
      const entry = table.entries.get(index);
      if (entry === undefined) return false;
      if (entry.kind === "leaf") {
        if (first !== entry.iovaPfn) return false;
        for (let slot = 0; slot < entry.frames / entryFrames; slot += 1) {
          table.entries.delete(index + slot);
        }
        result.unmapped += entry.frames;
        first += entry.frames;
        continue;
      }
      const start = Math.floor(first / entryFrames) * entryFrames;
      const last = start + entryFrames - 1;
      if (!this.#unmapIn(entry, first, Math.min(last, lastPfn), result)) return false;
      if (first === start && last <= lastPfn) {
        this.#drop(entry);
        table.entries.delete(index);
      }
      first = last + 1;
    }
    return true;
  }
}
