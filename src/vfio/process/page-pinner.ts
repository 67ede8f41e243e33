/**
 * Pinning of a process's pages, and following of its page table where device memory has none.
 *
 * Works on the mappings of one address space. Steps are reported as the kernel does the work: one
 * call of GUP for up to 512 pages, whose pages left over serve the runs after; one refused call and
 * one lookup for each entry of device memory. Source: drivers/vfio/vfio_iommu_type1.c:
 * vfio_pin_pages_remote, vaddr_get_pfns, follow_fault_pfn; mm/gup.c: __get_user_pages,
 * check_vma_flags.
 *
 * Target: a run of one page in less than 50 ns, all in (bench/pinning.bench.ts).
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type Meter, Step } from "../../meter.ts";
import { alignDown, powerOfTwo } from "../../units.ts";
import { countEntries, entryOrderAt } from "./device-mapping.ts";
import type { FrameMap } from "./frame-map.ts";
import type { FrameSource } from "./frame-source.ts";
import type { FrameTable } from "./frame-table.ts";
import type { FollowRules } from "./mappable-device.ts";
import type { PageFaults } from "./page-faults.ts";
import type { PinRun } from "./process-memory.ts";
import type { Vma, VmaList } from "./vma.ts";

/** What pinning works on. */
export interface PinnerParts {
  readonly vmas: VmaList;
  readonly own: FrameMap;
  readonly table: FrameTable;
  readonly faults: PageFaults;
  readonly source: FrameSource;
  readonly rules: FollowRules;
  readonly meter: Meter;
}

/** Pins pages of an address space. */
export class PagePinner {
  readonly #vmas: VmaList;
  readonly #own: FrameMap;
  readonly #table: FrameTable;
  readonly #faults: PageFaults;
  readonly #source: FrameSource;
  readonly #rules: FollowRules;
  readonly #meter: Meter;
  /** The mapping used last, whether GUP serves it for reading and for writing. */
  #vma: Vma | null = null;
  #frames: FrameMap;
  #isDevice = false;
  /** What turns a virtual page into a page of `#frames`. */
  #shift = 0;
  #readErrno = 0;
  #writeErrno = 0;
  /** Where the pages start that calls of GUP have covered, where the next run is to start, the end
   * of what is covered, and the end of what was asked for. */
  #batchStart = 0;
  #batchNext = -1;
  #batchEnd = 0;
  #requestEnd = -1;
  /** Sum of what was read ahead: a use of it, or the reading would be dropped. */
  warmed = 0;

  constructor(parts: PinnerParts) {
    this.#vmas = parts.vmas;
    this.#own = parts.own;
    this.#frames = parts.own;
    this.#table = parts.table;
    this.#faults = parts.faults;
    this.#source = parts.source;
    this.#rules = parts.rules;
    this.#meter = parts.meter;
  }

  /** The mappings have changed. */
  forgetMapping(): void {
    this.#vma = null;
    this.#batchNext = -1;
  }

  /** See ProcessMemory.pinRun. */
  pinRun(vpn: number, pages: number, isWrite: boolean, batchPages: number, out: PinRun): number {
    const vma = this.#useMapping(vpn);
    if (vma === null) return this.#fail(Errno.EFAULT);
    if (this.#isDevice) return this.#followRuns(vma, vpn, pages, isWrite, out);
    const errno = isWrite ? this.#writeErrno : this.#readErrno;
    if (errno !== Errno.OK) return this.#fail(errno);
    if (vpn !== this.#batchNext || vpn + pages !== this.#requestEnd) {
      this.#batchStart = vpn;
      this.#batchEnd = vpn;
      this.#requestEnd = vpn + pages;
    }
    const page = vpn + this.#shift;
    let entry = this.#frames.entryAt(page);
    if (entry <= 0) {
      const errno = this.#faultIn(vma, vpn, batchPages);
      entry = this.#frames.entryAt(page);
      if (entry <= 0) return this.#fail(errno);
    }
    const next = pages > 1 && vpn < vma.last ? this.#frames.entryAt(page + 1) : 0;
    let count = 1;
    out.nextErrno = Errno.OK;
    if (next > 0 && next !== entry + 1) {
      if (vpn + 2 > this.#batchEnd) this.#cover(vpn + 2, batchPages);
    } else {
      count = this.#measure(vma, vpn, pages, isWrite, batchPages, entry, out);
    }
    const pinned = this.#table.pin(entry - 1, count);
    if (pinned === 0) return this.#fail(Errno.ENOMEM);
    if (pinned < count) this.#endWith(Errno.ENOMEM, out);
    out.pfn = entry - 1;
    out.pages = pinned;
    out.isReserved = false;
    this.#cover(vpn + count, batchPages);
    this.#batchNext = vpn + pinned;
    this.#meter.step(Step.pagePin, pinned, 0);
    return Errno.OK;
  }

  /** Length of the run of frames that starts with `first`; says in `out` why it ends. */
  #measure(
    from: Vma,
    vpn: number,
    pages: number,
    isWrite: boolean,
    batchPages: number,
    first: number,
    out: PinRun,
  ): number {
    let vma = from;
    let count = 1;
    while (count < pages) {
      const at = vpn + count;
      if (at > vma.last) {
        const next = this.#useMapping(at);
        if (next === null || this.#isDevice) {
          // Device memory never continues a run: it is of the other kind.
          if (next === null) this.#endWith(Errno.EFAULT, out);
          return count;
        }
        vma = next;
        const errno = isWrite ? this.#writeErrno : this.#readErrno;
        if (errno !== Errno.OK) {
          this.#endWith(errno, out);
          return count;
        }
      }
      const page = at + this.#shift;
      let entry = this.#frames.entryAt(page);
      if (entry <= 0) {
        const errno = this.#faultIn(vma, at, batchPages);
        entry = this.#frames.entryAt(page);
        if (entry <= 0) {
          this.#endWith(errno, out);
          return count;
        }
      }
      if (entry !== first + count) {
        this.#cover(at + 1, batchPages);
        return count;
      }
      count += this.#frames.runFrom(page, Math.min(vpn + pages, vma.last + 1) - at);
    }
    return count;
  }

  /** Fills in what is absent from a page on, as far as the call of GUP goes that reaches it. */
  #faultIn(vma: Vma, vpn: number, batchPages: number): number {
    this.#cover(vpn + 1, batchPages);
    const end = Math.min(this.#batchEnd, vma.last + 1);
    return this.#faults.populate(vma, vpn, end - vpn);
  }

  /** Reports the calls of GUP that reach all pages below `end` and were not reported yet. */
  #cover(end: number, batchPages: number): void {
    if (end <= this.#batchEnd) return;
    const from = Math.max(this.#batchEnd, this.#batchStart);
    const calls = Math.ceil((end - from) / batchPages);
    this.#batchEnd = Math.min(from + calls * batchPages, this.#requestEnd);
    this.#meter.step(Step.pinBatch, calls, 0);
    if (calls === 1) this.#warm(from, this.#batchEnd);
  }

  /** Reads ahead what is known of the frames of a batch, unless they lie side by side. */
  #warm(first: number, end: number): void {
    const vma = this.#vma;
    if (vma === null) return;
    const page = first + this.#shift;
    const table = this.#frames.tableAround(page);
    if (table === null) return;
    const from = page & (table.length - 1);
    if (table[from + 1] === table[from]! + 1) return;
    this.warmed = this.#table.warm(table, from, Math.min(table.length, from + end - first));
  }

  #fail(errno: number): number {
    this.#meter.step(Step.pinRefused, 1, 0);
    this.#batchNext = -1;
    return errno;
  }

  /** GUP fails on the page after a run. */
  #endWith(errno: number, out: PinRun): void {
    this.#meter.step(Step.pinRefused, 1, 0);
    out.nextErrno = errno;
  }

  /** Finds the mapping of a page and what GUP says to it; null in a hole. */
  #useMapping(vpn: number): Vma | null {
    const recent = this.#vma;
    if (recent !== null && vpn >= recent.start && vpn <= recent.last) return recent;
    const vma = this.#vmas.find(vpn);
    if (vma === null) return null;
    this.#vma = vma;
    const { backing } = vma;
    const isOwn = backing.kind !== "file" || !backing.isShared;
    this.#frames = isOwn ? this.#own : backing.file.frames;
    this.#shift = isOwn ? 0 : vma.fileDelta;
    this.#isDevice = backing.kind === "device";
    // Long-term pins for writing are refused where a file system tracks who dirties its pages.
    const isTracked = !isOwn && backing.kind === "file" && backing.file.tracksDirty;
    const isRefused = backing.kind === "io";
    this.#readErrno = vma.isReadable && !isRefused ? Errno.OK : Errno.EFAULT;
    this.#writeErrno = vma.isWritable && !isRefused && !isTracked ? Errno.OK : Errno.EFAULT;
    return vma;
  }

  /** Device memory: runs on over mappings side by side that show frames side by side. */
  #followRuns(from: Vma, vpn: number, pages: number, isWrite: boolean, out: PinRun): number {
    const errno = this.#follow(from, vpn, pages, isWrite, out);
    if (errno !== Errno.OK) return errno;
    const pfn = vpn + from.pfnDelta;
    let vma: Vma | null = from;
    let count = out.pages;
    while (out.nextErrno === Errno.OK && count < pages) {
      vma = this.#useMapping(vpn + count);
      if (vma === null) this.#endWith(Errno.EFAULT, out);
      else if (vma.backing.kind !== "device" || vpn + count + vma.pfnDelta !== pfn + count) break;
      else {
        const next = this.#follow(vma, vpn + count, pages - count, isWrite, out);
        if (next !== Errno.OK) out.nextErrno = next;
        else count += out.pages;
      }
    }
    out.pfn = pfn;
    out.pages = count;
    out.isReserved = true;
    return Errno.OK;
  }

  /** Follows the page table of one mapping; `out` receives pages and why they end. */
  #follow(vma: Vma, vpn: number, pages: number, isWrite: boolean, out: PinRun): number {
    const { stride } = this.#rules;
    if (stride === "none") return this.#fail(Errno.EFAULT);
    this.#batchNext = -1;
    const mayAccess = isWrite ? vma.isWritable : vma.isReadable;
    // Frames of the machine's own memory have pages, and are not to be had this way.
    const hasPages = this.#source.nodeOf(vpn + vma.pfnDelta) >= 0;
    if (!mayAccess || hasPages) return this.#fail(Errno.EFAULT);
    const last = Math.min(vma.last, vpn + pages - 1);
    out.nextErrno = Errno.OK;
    const end = this.fillEntries(vma, vpn, last);
    if (end === vpn) return this.#fail(Errno.EFAULT);
    if (end <= last) this.#endWith(Errno.EFAULT, out);
    out.pages = end - vpn;
    if (this.#rules.isWalked === true) {
      this.#walk(vma, vpn, end - 1);
    } else {
      const orders = stride === "page" ? [0] : this.#rules.entryOrders;
      const lookups = countEntries(vma, vpn, end - 1, orders);
      this.#meter.step(Step.pinRefused, lookups, 0);
      this.#meter.step(Step.pfnLookup, lookups, 0);
    }
    return Errno.OK;
  }

  /** Looks every entry up, one by one, as the kernel does. */
  #walk(vma: Vma, vpn: number, last: number): void {
    const { entryOrders, stride } = this.#rules;
    const entries = vma.entries!;
    let at = vpn;
    while (at <= last) {
      this.#meter.step(Step.pinRefused, 1, 0);
      assert(entries.has(at), "what was faulted in is there");
      const order = entryOrderAt(vma, at, entryOrders);
      this.#meter.step(Step.pfnLookup, 1, 0);
      const size = powerOfTwo(order);
      at = stride === "page" ? at + 1 : alignDown(at, size) + size;
    }
  }

  /**
   * Fills in the entries of device memory that a range needs.
   *
   * @returns the first page that has no entry; beyond the range when all have
   */
  fillEntries(vma: Vma, first: number, last: number): number {
    const entries = vma.entries!;
    const { backing } = vma;
    const isAccessible = backing.kind === "device" && backing.device.isAccessible;
    let end = last + 1;
    let faults = 0;
    entries.visitMissing(first, last, (from, to) => {
      if (!isAccessible) end = Math.min(end, from);
      else faults += countEntries(vma, from, to, this.#rules.entryOrders);
    });
    if (faults === 0) return end;
    const { entryOrders } = this.#rules;
    const firstSize = powerOfTwo(entryOrderAt(vma, first, entryOrders));
    const lastSize = powerOfTwo(entryOrderAt(vma, last, entryOrders));
    entries.fill(alignDown(first, firstSize), alignDown(last, lastSize) + lastSize - 1);
    this.#meter.step(Step.pageFault, faults, 0);
    return end;
  }
}
