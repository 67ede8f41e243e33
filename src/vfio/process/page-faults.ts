/**
 * Page faults of a process: how pages of memory get their frames.
 *
 * A page that is only read shows the zero page or the page cache, which is lent to it; a write or a
 * long-term pin, for reading as well, gives it a frame of its own. Source: mm/memory.c:
 * do_anonymous_page, do_read_fault, do_cow_fault, do_shared_fault, wp_page_copy; mm/huge_memory.c:
 * do_huge_pmd_anonymous_page; mm/hugetlb.c:hugetlb_no_page; mm/gup.c: gup_must_unshare.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type Meter, Step } from "../../meter.ts";
import { alignDown, powerOfTwo } from "../../units.ts";
import type { FrameMap } from "./frame-map.ts";
import type { FrameSource } from "./frame-source.ts";
import type { FrameTable } from "./frame-table.ts";
import type { MemoryFile } from "./memory-file.ts";
import type { Vma } from "./vma.ts";

/** log2 of the pages of a transparent huge page. */
export const HUGE_ORDER = 9;
/** Entry of a page that shows the zero page, which is frame 0 here and nobody's memory. */
const ZERO_PAGE = -1;

/** Fills in pages. */
export class PageFaults {
  readonly #own: FrameMap;
  readonly #table: FrameTable;
  readonly #source: FrameSource;
  readonly #meter: Meter;
  readonly #invalidate: (first: number, last: number) => void;

  /**
   * @param own - the process's own pages, by virtual page
   * @param invalidate - called before a page that is present gets another frame
   */
  constructor(parts: {
    readonly own: FrameMap;
    readonly table: FrameTable;
    readonly source: FrameSource;
    readonly meter: Meter;
    readonly invalidate: (first: number, last: number) => void;
  }) {
    this.#own = parts.own;
    this.#table = parts.table;
    this.#source = parts.source;
    this.#meter = parts.meter;
    this.#invalidate = parts.invalidate;
  }

  /**
   * Gives each page of a range inside one mapping a frame of its own, or of the file it shares.
   *
   * @returns an errno: ENOMEM when frames have run out, EFAULT beyond the end of a file or where
   *   huge pages have run out; the pages before the one that failed have their frames
   */
  populate(vma: Vma, vpn: number, pages: number): number {
    const backing = vma.backing;
    if (backing.kind === "file") {
      const left = backing.file.pages - (vpn + vma.fileDelta);
      if (left < pages) {
        const errno = left > 0 ? this.#populateFile(vma, backing, vpn, left) : Errno.OK;
        return errno === Errno.OK ? Errno.EFAULT : errno;
      }
      return this.#populateFile(vma, backing, vpn, pages);
    }
    return this.#populateOwn(vma, vpn, pages);
  }

  /** Shows something to a reader on each page of a range inside one mapping. */
  populateForRead(vma: Vma, vpn: number, pages: number): number {
    const backing = vma.backing;
    if (backing.kind === "hugetlb") return this.populate(vma, vpn, pages);
    if (backing.kind === "file" && backing.isShared) return this.populate(vma, vpn, pages);
    for (let page = vpn; page < vpn + pages; page += 1) {
      if (this.#own.entryAt(page) !== 0) continue;
      let entry = ZERO_PAGE;
      if (backing.kind === "file") {
        const filePage = page + vma.fileDelta;
        if (filePage >= backing.file.pages) return Errno.EFAULT;
        const errno = this.#fill(backing.file.frames, filePage, 1, vma.node);
        if (errno !== Errno.OK) return errno;
        entry = -backing.file.frames.entryAt(filePage);
      }
      this.#own.set(page, 1, entry);
      this.#meter.step(Step.pageFault, 1, Math.max(0, vma.node));
    }
    return Errno.OK;
  }

  #populateFile(
    vma: Vma,
    backing: { readonly file: MemoryFile; readonly isShared: boolean },
    vpn: number,
    pages: number,
  ): number {
    if (!backing.isShared) return this.#populateOwn(vma, vpn, pages);
    return this.#fill(backing.file.frames, vpn + vma.fileDelta, pages, vma.node);
  }

  #populateOwn(vma: Vma, vpn: number, pages: number): number {
    const own = this.#own;
    const end = vpn + pages;
    let page = vpn;
    while (page < end) {
      const entry = own.entryAt(page);
      if (entry > 0) {
        page += own.runFrom(page, end - page);
        continue;
      }
      const isLent = entry < 0;
      if (isLent) this.#invalidate(page, page);
      const absent = isLent ? 1 : own.runFrom(page, end - page);
      const order = vma.backing.kind === "hugetlb" ? vma.backing.order : HUGE_ORDER;
      if (!isLent && this.#fillBlock(vma, page, order)) {
        page = alignDown(page, powerOfTwo(order)) + powerOfTwo(order);
        continue;
      }
      // A hugetlb fault without a page in the pool is a SIGBUS (mm/hugetlb.c:hugetlb_no_page).
      if (vma.backing.kind === "hugetlb") return Errno.EFAULT;
      const errno = this.#fillAbsent(
        own,
        page,
        isLent ? 1 : this.#untilBlock(vma, page, absent),
        vma.node,
      );
      if (errno !== Errno.OK) return errno;
      page += isLent ? 1 : this.#untilBlock(vma, page, absent);
    }
    return Errno.OK;
  }

  /** Pages to fill singly before the next block that may be a huge page is looked at. */
  #untilBlock(vma: Vma, page: number, absent: number): number {
    if (vma.backing.kind !== "anonymous" || !vma.backing.isHuge) return absent;
    const size = powerOfTwo(HUGE_ORDER);
    return Math.min(absent, alignDown(page, size) + size - page);
  }

  /** Fills the whole block around a page with a huge page, if it may and can be one. */
  #fillBlock(vma: Vma, page: number, order: number): boolean {
    const backing = vma.backing;
    if (backing.kind === "file") return false;
    if (backing.kind === "anonymous" && !backing.isHuge) return false;
    const size = powerOfTwo(order);
    const block = alignDown(page, size);
    if (block < vma.start || block + size - 1 > vma.last) return false;
    if (this.#own.entryAt(block) !== 0 || this.#own.runFrom(block, size) < size) return false;
    const pfn = this.#source.takeBlock(order, vma.node);
    if (pfn < 0) return false;
    this.#store(this.#own, block, size, pfn);
    return true;
  }

  /** Fills what is absent from a file's range. */
  #fill(frames: FrameMap, page: number, pages: number, node: number): number {
    let done = 0;
    while (done < pages) {
      const count = frames.runFrom(page + done, pages - done);
      if (frames.entryAt(page + done) === 0) {
        const errno = this.#fillAbsent(frames, page + done, count, node);
        if (errno !== Errno.OK) return errno;
      }
      done += count;
    }
    return Errno.OK;
  }

  #fillAbsent(frames: FrameMap, page: number, pages: number, node: number): number {
    let done = 0;
    while (done < pages) {
      const pfn = this.#source.take(pages - done, node);
      if (pfn < 0) return Errno.ENOMEM;
      const taken = this.#source.takenPages;
      assert(taken >= 1 && taken <= pages - done, "a source gives no more than was asked for");
      this.#store(frames, page + done, taken, pfn);
      done += taken;
    }
    return Errno.OK;
  }

  #store(frames: FrameMap, page: number, pages: number, pfn: number): void {
    this.#table.hold(pfn, pages);
    frames.set(page, pages, pfn + 1);
    this.#meter.step(Step.pageFault, pages, Math.max(0, this.#source.nodeOf(pfn)));
  }
}
