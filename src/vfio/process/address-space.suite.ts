/** A plain twin of the address space: one record a page, no extents, no caches. */
import { Errno } from "../../errno.ts";
import { AssertionError } from "../../errors.ts";
import type { AddressSpace } from "./address-space.ts";
import type { FrameRun, FrameSource } from "./frame-source.ts";
import type { MemoryFile } from "./memory-file.ts";
import { createPinRun } from "./process-memory.ts";

/** What `expect` says too, at a thousandth of its price. */
function same<T>(seen: T, wanted: T): void {
  if (seen !== wanted) throw new AssertionError(`${String(seen)} instead of ${String(wanted)}`);
}

/** Hands frames out from a wrapped source and knows which are out. */
export class CheckedFrames implements FrameSource {
  takenPages = 0;
  readonly out = new Set<number>();
  readonly #source: FrameSource;

  constructor(source: FrameSource) {
    this.#source = source;
  }

  take(pages: number, node: number): number {
    const pfn = this.#source.take(pages, node);
    this.takenPages = this.#source.takenPages;
    if (pfn >= 0) this.#note(pfn, this.takenPages);
    return pfn;
  }

  takeBlock(order: number, node: number): number {
    const pfn = this.#source.takeBlock(order, node);
    if (pfn >= 0) this.#note(pfn, 2 ** order);
    return pfn;
  }

  give(pfn: number, pages: number): void {
    for (let frame = pfn; frame < pfn + pages; frame += 1) same(this.out.delete(frame), true);
    this.#source.give(pfn, pages);
  }

  nodeOf(pfn: number): number {
    return this.#source.nodeOf(pfn);
  }

  #note(pfn: number, pages: number): void {
    for (let frame = pfn; frame < pfn + pages; frame += 1) {
      same(this.out.has(frame), false);
      this.out.add(frame);
    }
  }
}

/** What the twin knows of a page. */
interface TwinPage {
  kind: "anonymous" | "shared" | "io";
  isReadable: boolean;
  isWritable: boolean;
  filePage: number;
  /** Frame of its own; −1 for none, and 0 for the zero page. */
  pfn: number;
}

/** The twin. It learns frames from the address space, and checks that they stay. */
export class PlainSpace {
  readonly pages = new Map<number, TwinPage>();
  /** Frames of the one file, by its page. */
  readonly filePages = new Map<number, number>();
  readonly pins = new Map<number, number>();
  readonly dirty = new Set<number>();
  readonly held: FrameRun[] = [];
  readonly space: AddressSpace;
  readonly frames: CheckedFrames;
  readonly filePagesMax: number;

  constructor(space: AddressSpace, frames: CheckedFrames, file: MemoryFile) {
    this.space = space;
    this.frames = frames;
    this.filePagesMax = file.pages;
  }

  mmap(vpn: number, pages: number, page: Omit<TwinPage, "pfn">): void {
    for (let at = 0; at < pages; at += 1)
      this.pages.set(vpn + at, { ...page, filePage: page.filePage + at, pfn: -1 });
  }

  munmap(vpn: number, pages: number): void {
    for (let at = vpn; at < vpn + pages; at += 1) this.pages.delete(at);
  }

  /** @returns the errno, and changes up to the first hole */
  mprotect(vpn: number, pages: number, isReadable: boolean, isWritable: boolean): number {
    for (let at = vpn; at < vpn + pages; at += 1) {
      const page = this.pages.get(at);
      if (page === undefined) return Errno.ENOMEM;
      page.isReadable = isReadable;
      page.isWritable = isWritable;
    }
    return Errno.OK;
  }

  discard(vpn: number, pages: number): number {
    let errno: number = Errno.OK;
    for (let at = vpn; at < vpn + pages; at += 1) {
      const page = this.pages.get(at);
      if (page?.kind === "io") return Errno.EINVAL;
      if (page === undefined) errno = Errno.ENOMEM;
      else page.pfn = -1;
    }
    return errno;
  }

  remove(vpn: number, pages: number): number {
    for (let at = vpn; at < vpn + pages; at += 1) {
      const page = this.pages.get(at);
      if (page === undefined) return Errno.ENOMEM;
      if (page.kind !== "shared") return Errno.EINVAL;
      if (!page.isWritable) return Errno.EACCES;
      this.filePages.delete(page.filePage);
    }
    return Errno.OK;
  }

  /** Why a page cannot be pinned; OK when it can. */
  pinErrno(vpn: number, isWrite: boolean): number {
    const page = this.pages.get(vpn);
    if (page === undefined || page.kind === "io") return Errno.EFAULT;
    if (isWrite ? !page.isWritable : !page.isReadable) return Errno.EFAULT;
    if (page.kind === "shared" && page.filePage >= this.filePagesMax) return Errno.EFAULT;
    return Errno.OK;
  }

  touchErrno(vpn: number, isWrite: boolean): number {
    const page = this.pages.get(vpn);
    if (page === undefined || (isWrite ? !page.isWritable : !page.isReadable)) return Errno.EFAULT;
    if (page.kind === "shared" && page.filePage >= this.filePagesMax) return Errno.EFAULT;
    return Errno.OK;
  }

  /** Takes over the frames that pages have got; whatever had one keeps it. */
  learn(mayMove: boolean): void {
    for (const [vpn, page] of this.pages) {
      const seen = this.space.frameAt(vpn);
      if (page.kind === "shared") {
        const had = this.filePages.get(page.filePage) ?? -1;
        if (had >= 0 && !mayMove) same(seen, had);
        if (seen >= 0) this.filePages.set(page.filePage, seen);
        continue;
      }
      if (page.pfn > 0 && !mayMove) same(seen, page.pfn);
      page.pfn = seen;
    }
  }

  /** Everything that must hold between any two operations. */
  check(): void {
    const owners = new Map<number, string>();
    for (const [vpn, page] of this.pages)
      if (page.kind !== "shared" && page.pfn > 0) {
        same(owners.has(page.pfn), false);
        owners.set(page.pfn, `page ${vpn}`);
      }
    for (const [filePage, pfn] of this.filePages) {
      same(owners.has(pfn), false);
      owners.set(pfn, `file ${filePage}`);
    }
    const out = new Set([...owners.keys(), ...this.pins.keys()]);
    same(this.frames.out.size, out.size);
    for (const pfn of out) {
      same(this.frames.out.has(pfn), true);
      same(this.space.pinsOf(pfn), this.pins.get(pfn) ?? 0);
    }
    for (const pfn of this.dirty)
      if (out.has(pfn)) same(this.space.isDirty(pfn), true);
      else this.dirty.delete(pfn);
  }

  /** Pins by the address space and checks every word of its answer. */
  pinRun(vpn: number, pages: number, isWrite: boolean): void {
    const run = createPinRun();
    const errno = this.space.pinRun(vpn, pages, isWrite, 512, run);
    same(errno, this.pinErrno(vpn, isWrite));
    this.learn(false);
    if (errno !== Errno.OK) return;
    same(run.isReserved, false);
    let count = 0;
    while (count < pages && this.pinErrno(vpn + count, isWrite) === Errno.OK) {
      if (this.space.frameAt(vpn + count) !== run.pfn + count) break;
      count += 1;
    }
    same(run.pages, count);
    same(run.nextErrno, count < pages ? this.pinErrno(vpn + count, isWrite) : Errno.OK);
    for (let pfn = run.pfn; pfn < run.pfn + count; pfn += 1)
      this.pins.set(pfn, (this.pins.get(pfn) ?? 0) + 1);
    this.held.push({ pfn: run.pfn, pages: count });
  }

  /** Unpins part of a run that is pinned. */
  unpin(which: number, part: number, isDirty: boolean): void {
    if (this.held.length === 0) return;
    const index = which % this.held.length;
    const run = this.held[index]!;
    const pages = 1 + (part % run.pages);
    this.space.unpin(run.pfn, pages, isDirty);
    for (let pfn = run.pfn; pfn < run.pfn + pages; pfn += 1) {
      const left = this.pins.get(pfn)! - 1;
      if (left === 0) this.pins.delete(pfn);
      else this.pins.set(pfn, left);
      if (isDirty) this.dirty.add(pfn);
    }
    if (pages === run.pages) this.held.splice(index, 1);
    else this.held[index] = { pfn: run.pfn + pages, pages: run.pages - pages };
  }
}
