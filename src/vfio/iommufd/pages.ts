/**
 * A piece of memory that IOASes map: pinned once and charged once, however many page tables and
 * IOASes use it.
 *
 * Source: drivers/iommu/iommufd/io_pagetable.h, struct iopt_pages; drivers/iommu/iommufd/pages.c:
 * iopt_alloc_user_pages, iopt_alloc_file_pages, iopt_alloc_dmabuf_pages, pfn_reader_user_pin,
 * iopt_pages_update_pinned, iopt_revoke_notify. Pages are counted from the memory's first one.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { createPinRun, type ProcessMemory } from "../process/process-memory.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { LockedUser } from "./locked-user.ts";
import { PinExtents, type Pinner, type RunVisitor } from "./pin-extents.ts";

/** Pages that one call of GUP asks for: as many page pointers as 64 KiB hold. */
const GUP_PAGES = 8192;

/** Runs that are pinned and mapped at a time: as many as a batch of 64 KiB holds. */
export const BATCH_RUNS = 5461;

/** Who is charged for pinned pages: nobody, the user, or the process. */
export type AccountMode = "none" | "user" | "mm";

/** Told when a buffer goes away. */
export interface BufferImporter {
  revoke(): void;
}

/** A dma-buf as iommufd uses it: physical memory of a device, which may be revoked. */
export interface DeviceBuffer {
  /** Length in pages. */
  readonly pages: number;
  /** @returns an errno: ENODEV when it is revoked, EOPNOTSUPP when it is not VFIO's */
  attach(importer: BufferImporter): number;
  detach(importer: BufferImporter): void;
  /** The one range it consists of. @returns ENODEV when revoked, EOPNOTSUPP with several */
  physRun(out: { pfn: number; pages: number }): number;
}

/** What is behind pages. */
export type PagesSource =
  /** A process's memory, or a file's: then `firstPage` is a page of the file. */
  | {
      readonly kind: "user" | "file";
      readonly memory: ProcessMemory | null;
      readonly firstPage: number;
      /** Last page that the file has; null for a process. */
      readonly lastPage: number | null;
    }
  /** A device's memory: never pinned, never charged. */
  | { readonly kind: "dma-buf"; readonly buffer: DeviceBuffer; readonly firstPage: number };

/** What pages are made of. */
export interface PagesOptions {
  readonly source: PagesSource;
  readonly count: number;
  /** Whether they may be mapped for writing; they are pinned so, then. */
  readonly isWritable: boolean;
  readonly process: UserProcess;
  readonly user: LockedUser;
  readonly accountMode: AccountMode;
}

/** Filled and read within one call. */
const pinRun = createPinRun();

/** The pages. */
export class IoPages {
  readonly source: PagesSource;
  readonly count: number;
  readonly isWritable: boolean;
  process: UserProcess;
  user: LockedUser;
  readonly accountMode: AccountMode;
  /** Areas, or calls in progress, that have them. */
  users = 1;
  /** Pages that are charged. */
  chargedPages = 0;
  /** First frame of the device's memory; −1 when it was revoked, or is no device's. */
  #devicePfn = -1;
  readonly #extents = new PinExtents();
  readonly #pinner: SourcePinner;
  /** Only a device's memory has those: what is mapped of it, and what hears of revocations. */
  #revokers: Set<() => void> | null = null;
  #importer: BufferImporter | null = null;

  constructor(options: PagesOptions) {
    this.source = options.source;
    this.count = options.count;
    this.isWritable = options.isWritable;
    this.process = options.process;
    this.user = options.user;
    this.accountMode = options.accountMode;
    this.#pinner = new SourcePinner(this.source, this.isWritable);
  }

  /** Pages pinned, each counted once. */
  get pinnedPages(): number {
    return this.#extents.pages;
  }

  /** Whether they are a device's. */
  get isDevice(): boolean {
    return this.source.kind === "dma-buf";
  }

  /** Whether the device took its memory back: nothing is mapped of it any more. */
  get isRevoked(): boolean {
    return this.isDevice && this.#devicePfn < 0;
  }

  /** Extents that are pinned, as [index, frame, pages, users]. */
  get extents(): number[][] {
    return this.#extents.list();
  }

  /** Last page that {@link hold} holds. */
  get heldLast(): number {
    return this.#extents.heldLast;
  }

  /** Attaches to the device's buffer. @returns an errno; does nothing for other memory */
  attach(): number {
    const { source } = this;
    if (source.kind !== "dma-buf") return Errno.OK;
    this.#importer = { revoke: () => this.#revoke() };
    const errno = source.buffer.attach(this.#importer);
    if (errno !== Errno.OK) return errno;
    const run = { pfn: 0, pages: 0 };
    const runErrno = source.buffer.physRun(run);
    if (runErrno !== Errno.OK) {
      source.buffer.detach(this.#importer);
      return runErrno;
    }
    this.#devicePfn = run.pfn + source.firstPage;
    return Errno.OK;
  }

  /** One user fewer; the last one leaves the device's buffer. */
  put(): void {
    this.users -= 1;
    if (this.users > 0 || this.source.kind !== "dma-buf") return;
    this.source.buffer.detach(this.#importer!);
  }

  /** Has a function called when the device takes its memory back, until the result is called. */
  onRevoke(revoker: () => void): () => void {
    const revokers = this.#revokers ?? new Set();
    this.#revokers = revokers;
    revokers.add(revoker);
    return () => revokers.delete(revoker);
  }

  /**
   * Holds the pages from `first` to `last`, or those of the first {@link BATCH_RUNS} runs: pins
   * those that are not pinned yet. {@link heldLast} tells how far it came.
   *
   * @returns an errno, and then nothing has changed: EFAULT (a hole, no rights, memory without
   *   pages), ENOMEM, EINVAL (past the end of a file)
   */
  hold(first: number, last: number): number {
    if (!this.isDevice) return this.#extents.hold(first, last, BATCH_RUNS, this.#pinner);
    this.#extents.heldLast = last;
    return Errno.OK;
  }

  /** Ends one {@link hold} of a range; what nobody holds any more is unpinned. */
  release(first: number, last: number): void {
    if (!this.isDevice) this.#extents.release(first, last, this.#pinner);
  }

  /** Visits the physical runs of a range that is held. @returns what the visitor gave */
  forEachRun(first: number, last: number, visit: RunVisitor): number {
    if (!this.isDevice) return this.#extents.forEachRun(first, last, visit);
    if (this.isRevoked) return Errno.OK;
    return visit(first, this.#devicePfn + first, last - first + 1);
  }

  /**
   * Brings the charge in line with what is pinned.
   *
   * @returns ENOMEM, and nothing is charged, when a limit would be passed
   */
  updateCharge(): number {
    const more = this.pinnedPages - this.chargedPages;
    if (more === 0) return Errno.OK;
    const errno = this.#charge(more);
    if (errno === Errno.OK) this.chargedPages += more;
    return errno;
  }

  #charge(pages: number): number {
    const { accountMode, process } = this;
    if (accountMode === "user") return this.user.charge(pages, process.memlockPages);
    return accountMode === "mm" ? process.charge(pages, false) : Errno.OK;
  }

  #revoke(): void {
    if (this.isRevoked) return;
    for (const revoke of this.#revokers ?? []) revoke();
    this.#devicePfn = -1;
  }
}

/** Pins the memory of a source. */
class SourcePinner implements Pinner {
  pfn = 0;
  pages = 0;
  readonly #source: PagesSource;
  readonly #isWritable: boolean;

  constructor(source: PagesSource, isWritable: boolean) {
    this.#source = source;
    this.#isWritable = isWritable;
  }

  pin(index: number, pages: number): number {
    const source = this.#source;
    assert(source.kind !== "dma-buf", "a device's memory is not pinned");
    const { memory, lastPage } = source;
    const first = source.firstPage + index;
    if (lastPage !== null && first + pages - 1 > lastPage) return Errno.EINVAL;
    if (memory === null) return Errno.EFAULT;
    const errno = memory.pinRun(first, pages, this.#isWritable, GUP_PAGES, pinRun);
    if (errno !== Errno.OK) return errno;
    this.pfn = pinRun.pfn;
    this.pages = pinRun.pages;
    // GUP refuses memory without pages, and iommufd does not look further.
    return pinRun.isReserved ? Errno.EFAULT : Errno.OK;
  }

  unpin(pfn: number, pages: number): void {
    const source = this.#source;
    assert(source.kind !== "dma-buf", "a device's memory is not pinned");
    source.memory!.unpin(pfn, pages, this.#isWritable);
  }
}
