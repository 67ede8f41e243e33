/**
 * The pages behind a process's mappings, and how they change and go: notifiers first, then the page
 * table, then the frames.
 *
 * Source: mm/mmu_notifier.c; mm/memory.c: zap_page_range_single, unmap_mapping_range;
 * mm/migrate.c: migrate_folio_unmap, folio_migrate_mapping (a pinned folio has references that
 * nobody accounts for, and stays).
 */
import { assert } from "../../errors.ts";
import { type Meter, Step } from "../../meter.ts";
import { isAligned, powerOfTwo } from "../../units.ts";
import type { FrameMap } from "./frame-map.ts";
import type { FrameSource } from "./frame-source.ts";
import type { FrameTable } from "./frame-table.ts";
import type { MemoryFile } from "./memory-file.ts";
import { HUGE_ORDER } from "./page-faults.ts";
import type { MemoryNotifier } from "./process-memory.ts";
import type { Vma } from "./vma.ts";

const HUGE_PAGES = powerOfTwo(HUGE_ORDER);

/** What changes of pages work on. */
export interface MappedPagesParts {
  /** The process's own pages, by virtual page. */
  readonly own: FrameMap;
  readonly table: FrameTable;
  readonly source: FrameSource;
  readonly meter: Meter;
}

/** Pages of one address space. */
export class MappedPages {
  readonly notifiers = new Set<MemoryNotifier>();
  readonly #own: FrameMap;
  readonly #table: FrameTable;
  readonly #source: FrameSource;
  readonly #meter: Meter;
  #isChanging = false;

  constructor(parts: MappedPagesParts) {
    this.#own = parts.own;
    this.#table = parts.table;
    this.#source = parts.source;
    this.#meter = parts.meter;
  }

  /** Tells everyone that pages are about to change. */
  invalidate(first: number, last: number): void {
    for (const notifier of this.notifiers) {
      this.#meter.step(Step.notifierCall, last - first + 1, 0);
      notifier.invalidate(first, last);
    }
  }

  /** Tells of pages and then changes them; whoever is told leaves the address space alone. */
  change(first: number, last: number, change: () => void): void {
    assert(!this.#isChanging, "a notifier does not change the memory it is told of");
    this.#isChanging = true;
    try {
      this.invalidate(first, last);
      change();
    } finally {
      this.#isChanging = false;
    }
  }

  /** Takes a range of a mapping out of the page table; own frames go. */
  drop(vma: Vma, from: number, to: number): void {
    if (vma.entries !== null) {
      vma.entries.clear(from, to);
      return;
    }
    if (vma.backing.kind === "file" && vma.backing.isShared) return;
    this.#own.remove(from, to - from + 1, (pfn, count, isLent) => {
      if (!isLent) this.#table.release(pfn, count);
    });
  }

  /** Takes pages of a file out of a mapping of it; a private mapping keeps its copies. */
  unmapFile(vma: Vma, from: number, to: number): void {
    this.change(from, to, () => {
      if (vma.backing.kind === "file" && vma.backing.isShared) return;
      for (let at = from; at <= to; ) {
        const count = this.#own.runFrom(at, to - at + 1);
        if (this.#own.entryAt(at) < 0) this.#own.remove(at, 1, () => {});
        at += count;
      }
    });
  }

  /** Frees pages of a file, which are in no mapping any more. */
  truncate(file: MemoryFile, firstPage: number, lastPage: number): void {
    for (const mapper of file.mappers) mapper.unmapFile(file, firstPage, lastPage);
    file.frames.remove(firstPage, lastPage - firstPage + 1, (pfn, count) =>
      this.#table.release(pfn, count),
    );
  }

  /** Moves what is not pinned of a range of a mapping to other frames. @returns pages moved */
  migrate(vma: Vma, from: number, to: number, node: number): number {
    const { backing } = vma;
    if (backing.kind !== "anonymous" && backing.kind !== "file") return 0;
    const file = backing.kind === "file" && backing.isShared ? backing.file : null;
    const frames = file === null ? this.#own : file.frames;
    const delta = file === null ? 0 : vma.fileDelta;
    let moved = 0;
    let at = from + delta;
    while (at <= to + delta) {
      const count = frames.runFrom(at, to + delta - at + 1);
      const first = frames.entryAt(at) - 1;
      if (first >= 0) {
        const start = at;
        this.#table.visitPins(first, count, (pins, pfn, alike) => {
          if (pins === 0) moved += this.#move(file, start + pfn - first, alike, node);
        });
      }
      at += count;
    }
    return moved;
  }

  /** Moves frames, as far as there are others. @returns how many */
  #move(file: MemoryFile | null, page: number, pages: number, node: number): number {
    const frames = file === null ? this.#own : file.frames;
    let moved = 0;
    while (moved < pages) {
      const at = page + moved;
      const isHuge = isAligned(at, HUGE_PAGES) && pages - moved >= HUGE_PAGES;
      let count = HUGE_PAGES;
      let pfn = isHuge ? this.#source.takeBlock(HUGE_ORDER, node) : -1;
      if (pfn < 0) {
        pfn = this.#source.take(pages - moved, node);
        count = this.#source.takenPages;
      }
      if (pfn < 0) break;
      const old = frames.entryAt(at) - 1;
      const replace = () => {
        this.#table.hold(pfn, count);
        frames.set(at, count, pfn + 1);
        this.#table.release(old, count);
      };
      if (file === null) this.change(at, at + count - 1, replace);
      else {
        for (const mapper of file.mappers) mapper.unmapFile(file, at, at + count - 1);
        replace();
      }
      moved += count;
    }
    return moved;
  }
}
