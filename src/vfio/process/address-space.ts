/**
 * The memory of a process: mappings, their pages, and what becomes of both while devices hold them.
 *
 * Pages get frames when they are first written or pinned, from an injected source. Notifiers are
 * called before a page goes away or changes; a pinned frame outlives its mapping until the last pin
 * is gone. Source: mm/mmap.c, mm/vma.c: do_munmap, __mmap_region; mm/mprotect.c; mm/madvise.c:
 * madvise_dontneed_free, madvise_remove; mm/migrate.c; mm/mmu_notifier.c.
 *
 * @example
 * const space = new AddressSpace({ frames: contiguousFrames({ basePfn: 2 ** 20, pages: 2 ** 22 }) });
 * space.mmap({ vpn: 2 ** 24, pages: 2 ** 18, backing: { kind: "anonymous", isHuge: true } }); // 0
 */
import { Errno } from "../../errno.ts";
import { type Meter, NULL_METER, Step } from "../../meter.ts";
import { alignDown, isAligned, powerOfTwo } from "../../units.ts";
import { entryOrderAt } from "./device-mapping.ts";
import { FrameMap } from "./frame-map.ts";
import type { FrameSource } from "./frame-source.ts";
import { type FrameTable, frameTableOf } from "./frame-table.ts";
import { createMapping, isCount, type MapRequest } from "./map-request.ts";
import {
  type DeviceMapper,
  type FollowRules,
  followRules,
  type MappableDevice,
} from "./mappable-device.ts";
import { MappedPages } from "./mapped-pages.ts";
import type { FileMapper, MemoryFile } from "./memory-file.ts";
import { PageFaults } from "./page-faults.ts";
import { PagePinner } from "./page-pinner.ts";
import type { MemoryNotifier, PinRun, ProcessMemory } from "./process-memory.ts";
import { VMAS_MAX, type Vma, VmaList } from "./vma.ts";

/** What an address space is made of. */
export interface AddressSpaceOptions {
  /** The machine's frames: one source for all processes that share files. */
  readonly frames: FrameSource;
  readonly rules?: FollowRules;
  readonly meter?: Meter;
  /** Pages of the user's part of the address space: 2^35 − 1 with 47 bits. */
  readonly pagesMax?: number;
}

/** An address space. */
export class AddressSpace implements ProcessMemory, DeviceMapper, FileMapper {
  readonly #vmas = new VmaList();
  readonly #own = new FrameMap();
  readonly #table: FrameTable;
  readonly #source: FrameSource;
  readonly #pages: MappedPages;
  readonly #faults: PageFaults;
  readonly #pinner: PagePinner;
  readonly #rules: FollowRules;
  readonly #meter: Meter;
  readonly #pagesMax: number;

  constructor(options: AddressSpaceOptions) {
    this.#source = options.frames;
    this.#table = frameTableOf(options.frames);
    this.#rules = options.rules ?? followRules["linux-6.15"];
    this.#meter = options.meter ?? NULL_METER;
    this.#pagesMax = options.pagesMax ?? 2 ** 35 - 1;
    const parts = {
      vmas: this.#vmas,
      own: this.#own,
      table: this.#table,
      source: this.#source,
      rules: this.#rules,
      meter: this.#meter,
    };
    this.#pages = new MappedPages(parts);
    this.#faults = new PageFaults({
      ...parts,
      invalidate: (first, last) => this.#pages.invalidate(first, last),
    });
    this.#pinner = new PagePinner({ ...parts, faults: this.#faults });
  }

  /** How many mappings there are. */
  get mappingCount(): number {
    return this.#vmas.count;
  }

  /** The mapping that holds a page, or null. */
  mappingAt(vpn: number): Readonly<Vma> | null {
    return this.#vmas.find(vpn);
  }

  /**
   * Maps memory, in place of what was there.
   *
   * @returns EINVAL (no pages, misaligned huge pages, what a device refuses), ENOMEM (beyond the
   *   address space, too many mappings), EACCES (shared writing to a file opened for reading),
   *   EOVERFLOW, and what a device gives
   */
  mmap(request: MapRequest): number {
    const { vpn, pages, backing } = request;
    if (!isCount(vpn) || !isCount(pages) || pages === 0) return Errno.EINVAL;
    if (pages > this.#pagesMax || vpn > this.#pagesMax - pages) return Errno.ENOMEM;
    if (this.#vmas.count > VMAS_MAX) return Errno.ENOMEM;
    const vma = createMapping(request);
    if (typeof vma === "number") return vma;
    if (backing.kind === "file") backing.file.addMapper(this, this.#table);
    const errno = this.munmap(vpn, pages);
    if (errno !== Errno.OK) return errno;
    this.#vmas.insert(vma);
    if (backing.kind === "device") backing.device.mappers.add(this);
    return Errno.OK;
  }

  /**
   * Unmaps a range; holes in it do not matter.
   *
   * @returns EINVAL (no pages, out of the address space, a huge page cut), ENOMEM (too many
   *   mappings for a hole inside one)
   */
  munmap(vpn: number, pages: number): number {
    if (!this.#isRange(vpn, pages)) return Errno.EINVAL;
    const last = vpn + pages - 1;
    if (!this.#vmas.overlaps(vpn, last)) return Errno.OK;
    if (this.#cutsHugePage(vpn, last)) return Errno.EINVAL;
    const first = this.#vmas.find(vpn);
    const isHole = first !== null && first.start < vpn && first.last > last;
    if (isHole && this.#vmas.count >= VMAS_MAX) return Errno.ENOMEM;
    this.#cut(vpn, last);
    this.#change(vpn, last, () => {
      this.#eachMapping(vpn, last, (vma, from, to) => this.#pages.drop(vma, from, to));
      this.#vmas.remove(vpn, last);
    });
    return Errno.OK;
  }

  /**
   * Changes rights; stops at the first hole, with what lies before it changed.
   *
   * @returns EINVAL, ENOMEM (a hole, too many mappings), EACCES
   */
  mprotect(vpn: number, pages: number, isReadable: boolean, isWritable: boolean): number {
    if (pages === 0 && isCount(vpn)) return Errno.OK;
    if (!this.#isRange(vpn, pages)) return Errno.ENOMEM;
    let at = vpn;
    const last = vpn + pages - 1;
    while (at <= last) {
      const vma = this.#vmas.find(at);
      if (vma === null) return Errno.ENOMEM;
      const to = Math.min(last, vma.last);
      const errno = this.#protect(vma, at, to, isReadable, isWritable);
      if (errno !== Errno.OK) return errno;
      at = to + 1;
    }
    return Errno.OK;
  }

  /**
   * Gives the frames of a range back while it stays mapped, as a balloon does (MADV_DONTNEED): the
   * next access gets another frame, and what a device has pinned is no longer what the process sees.
   * Pages of a shared file stay in the file.
   *
   * @returns EINVAL (device memory, a huge page cut), ENOMEM when there was a hole, the rest being
   *   done
   */
  discard(vpn: number, pages: number): number {
    if (pages === 0 && isCount(vpn)) return Errno.OK;
    if (!this.#isRange(vpn, pages)) return Errno.EINVAL;
    let at = vpn;
    let hasHole = false;
    const last = vpn + pages - 1;
    for (let index = this.#vmas.indexFrom(vpn); at <= last; index += 1) {
      const vma = this.#vmas.at(index);
      if (vma === undefined || vma.start > last) break;
      if (vma.start > at) hasHole = true;
      const from = Math.max(at, vma.start);
      const to = Math.min(last, vma.last);
      const { kind } = vma.backing;
      if (kind === "device" || kind === "io" || this.#cutsHugePage(from, to)) return Errno.EINVAL;
      this.#change(from, to, () => this.#pages.drop(vma, from, to));
      at = to + 1;
    }
    return hasHole || at <= last ? Errno.ENOMEM : Errno.OK;
  }

  /**
   * Takes pages out of the files that a range shares (MADV_REMOVE): they go for every process.
   *
   * @returns EINVAL (not a file's memory), EACCES (private, or not to be written), ENOMEM (a hole)
   */
  remove(vpn: number, pages: number): number {
    if (pages === 0 && isCount(vpn)) return Errno.OK;
    if (!this.#isRange(vpn, pages)) return Errno.EINVAL;
    let at = vpn;
    while (at < vpn + pages) {
      const vma = this.#vmas.find(at);
      if (vma === null) return Errno.ENOMEM;
      const { backing } = vma;
      const to = Math.min(vpn + pages - 1, vma.last);
      if (backing.kind !== "file") return Errno.EINVAL;
      if (!backing.isShared || !vma.isWritable) return Errno.EACCES;
      this.#pages.truncate(backing.file, at + vma.fileDelta, to + vma.fileDelta);
      at = to + 1;
    }
    return Errno.OK;
  }

  /**
   * Moves the pages of a range to other frames, as compaction or move_pages does; what is pinned
   * stays where it is, for long-term pins cannot be waited for.
   *
   * @param node - preferred NUMA node of the new frames, −1 for any
   * @returns how many pages were moved
   */
  migrate(vpn: number, pages: number, node = -1): number {
    if (!this.#isRange(vpn, pages)) return 0;
    let moved = 0;
    this.#eachMapping(vpn, vpn + pages - 1, (vma, from, to) => {
      moved += this.#pages.migrate(vma, from, to, node);
    });
    return moved;
  }

  /**
   * Has the CPU read or write each page of a range.
   *
   * @returns EFAULT where that is a signal (a hole, no rights, a device that does not decode),
   *   ENOMEM when frames have run out; the pages before have been touched
   */
  touch(vpn: number, pages: number, isWrite: boolean): number {
    if (pages === 0 && isCount(vpn)) return Errno.OK;
    if (!this.#isRange(vpn, pages)) return Errno.EFAULT;
    let at = vpn;
    const last = vpn + pages - 1;
    while (at <= last) {
      const vma = this.#vmas.find(at);
      if (vma === null) return Errno.EFAULT;
      if (isWrite ? !vma.isWritable : !vma.isReadable) return Errno.EFAULT;
      const to = Math.min(last, vma.last);
      const errno = this.#touchIn(vma, at, to, isWrite);
      if (errno !== Errno.OK) return errno;
      at = to + 1;
    }
    return Errno.OK;
  }

  /** The frame that a page shows; −1 when it shows none yet, 0 for the zero page. */
  frameAt(vpn: number): number {
    const vma = this.#vmas.find(vpn);
    if (vma === null) return -1;
    const { backing } = vma;
    if (backing.kind === "device") return vma.entries!.has(vpn) ? vpn + vma.pfnDelta : -1;
    if (backing.kind === "file" && backing.isShared)
      return Math.abs(backing.file.frames.entryAt(vpn + vma.fileDelta)) - 1;
    return Math.abs(this.#own.entryAt(vpn)) - 1;
  }

  /** How often a frame is pinned. */
  pinsOf(pfn: number): number {
    return this.#table.pinsOf(pfn);
  }

  /** Whether a device may have written to a frame while it was pinned. */
  isDirty(pfn: number): boolean {
    return this.#table.isDirty(pfn);
  }

  pinRun(vpn: number, pages: number, isWrite: boolean, batchPages: number, out: PinRun): number {
    return this.#pinner.pinRun(vpn, pages, isWrite, batchPages, out);
  }

  /**
   * Frames of device memory as VFIO_DMA_MAP_FLAG_MMIO_DONT_PIN is to find them: first frame of the
   * BAR plus the page in it. The posted patch took the frame from vm_pgoff instead, which has been
   * an offset into the device's file since Linux 6.10, not a frame; see docs/mmio.md.
   */
  dontPinRun(vpn: number, pages: number, out: PinRun): boolean {
    const vma = this.#vmas.find(vpn);
    if (vma === null || vma.backing.kind !== "device") return false;
    out.pfn = vpn + vma.pfnDelta;
    out.pages = Math.min(pages, vma.last - vpn + 1);
    out.isReserved = true;
    out.nextErrno = Errno.OK;
    return true;
  }

  unpin(pfn: number, pages: number, isDirty: boolean): void {
    this.#table.unpin(pfn, pages, isDirty);
    this.#meter.step(Step.pageUnpin, pages, 0);
  }

  addNotifier(notifier: MemoryNotifier): void {
    this.#pages.notifiers.add(notifier);
  }

  removeNotifier(notifier: MemoryNotifier): void {
    this.#pages.notifiers.delete(notifier);
  }

  unmapDevice(device: MappableDevice): void {
    for (let index = 0; index < this.#vmas.count; index += 1) {
      const vma = this.#vmas.at(index)!;
      if (vma.backing.kind !== "device" || vma.backing.device !== device) continue;
      this.#change(vma.start, vma.last, () => vma.entries!.clear(vma.start, vma.last));
    }
  }

  unmapFile(file: MemoryFile, firstPage: number, lastPage: number): void {
    for (let index = 0; index < this.#vmas.count; index += 1) {
      const vma = this.#vmas.at(index)!;
      if (vma.backing.kind !== "file" || vma.backing.file !== file) continue;
      const from = Math.max(vma.start, firstPage - vma.fileDelta);
      const to = Math.min(vma.last, lastPage - vma.fileDelta);
      if (from <= to) this.#pages.unmapFile(vma, from, to);
    }
  }

  #change(first: number, last: number, change: () => void): void {
    this.#pages.change(first, last, change);
    this.#pinner.forgetMapping();
  }

  #isRange(vpn: number, pages: number): boolean {
    if (!isCount(vpn) || !isCount(pages) || pages === 0) return false;
    return pages <= this.#pagesMax && vpn <= this.#pagesMax - pages;
  }

  #eachMapping(
    first: number,
    last: number,
    visitor: (vma: Vma, from: number, to: number) => void,
  ): void {
    for (let index = this.#vmas.indexFrom(first); index < this.#vmas.count; index += 1) {
      const vma = this.#vmas.at(index)!;
      if (vma.start > last) return;
      visitor(vma, Math.max(first, vma.start), Math.min(last, vma.last));
    }
  }

  /** Whether a border of a range lies inside a page of the hugetlb pool. */
  #cutsHugePage(first: number, last: number): boolean {
    for (const border of [first, last + 1]) {
      const vma = this.#vmas.find(border);
      if (vma === null || vma.start === border || vma.backing.kind !== "hugetlb") continue;
      if (!isAligned(border, powerOfTwo(vma.backing.order))) return true;
    }
    return false;
  }

  /** Makes mappings end at the borders of a range; large entries of devices do not outlive that. */
  #cut(first: number, last: number): void {
    for (const border of [first, last + 1]) {
      const vma = this.#vmas.find(border);
      if (vma !== null && vma.start < border) this.#splitEntry(vma, border);
      this.#vmas.cutAt(border);
    }
    this.#pinner.forgetMapping();
  }

  #splitEntry(vma: Vma, border: number): void {
    if (vma.entries === null || !vma.entries.has(border)) return;
    const size = powerOfTwo(entryOrderAt(vma, border, this.#rules.entryOrders));
    const block = alignDown(border, size);
    if (block === border) return;
    this.#change(block, block + size - 1, () => vma.entries!.clear(block, block + size - 1));
  }

  #protect(vma: Vma, from: number, to: number, isReadable: boolean, isWritable: boolean): number {
    if (vma.isReadable === isReadable && vma.isWritable === isWritable) return Errno.OK;
    const { backing } = vma;
    if (backing.kind === "file" && backing.isShared && isWritable && backing.file.isReadOnly)
      return Errno.EACCES;
    if (this.#cutsHugePage(from, to)) return Errno.EINVAL;
    if (this.#vmas.count + this.#vmas.cutsAt(from, to) > VMAS_MAX) return Errno.ENOMEM;
    this.#cut(from, to);
    const part = this.#vmas.find(from)!;
    this.#change(from, to, () => {
      part.isReadable = isReadable;
      part.isWritable = isWritable;
      this.#vmas.mergeAround(from, to);
    });
    return Errno.OK;
  }

  #touchIn(vma: Vma, from: number, to: number, isWrite: boolean): number {
    if (vma.backing.kind === "io") return Errno.OK;
    if (vma.backing.kind === "device")
      return this.#pinner.fillEntries(vma, from, to) > to ? Errno.OK : Errno.EFAULT;
    const pages = to - from + 1;
    return isWrite
      ? this.#faults.populate(vma, from, pages)
      : this.#faults.populateForRead(vma, from, pages);
  }
}
