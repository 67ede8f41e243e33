/**
 * The memory of a virtual machine as its VMM describes it: regions by DMA address, each a stretch of
 * a file or nothing that can be reached.
 *
 * Regions with a file become guest memory at once. A region without one is memory that the VMM keeps
 * to itself (firmware, or RAM whose backend is not shared): it is known, so that unmapping it works,
 * and devices find nothing there. The same file comes again and again behind new descriptors; one of
 * them is kept for each file. Source: vfio-user protocol specification, version 0.0, "VFIO_USER_DMA_MAP",
 * "VFIO_USER_DMA_UNMAP"; hw/vfio-user/container.c.
 */
import { Errno } from "../../errno.ts";
import { assert, StackError } from "../../errors.ts";
import { NONE, RangeInsert, RangeMap } from "../../iommu/range-map.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { ADDRESS_LAST, addressOf, PAGE_BYTES, pfnOf } from "../../units.ts";
import type { System } from "../system/system.ts";
import { DmaMapFlag } from "./messages.ts";
import type { FileHold, MemoryFiles } from "./ports.ts";
import { Limit } from "./protocol.ts";

/** A region as the client asks for it. Addresses and sizes are bytes. */
export interface DmaRequest {
  readonly address: bigint;
  readonly size: bigint;
  readonly offset: bigint;
  /** Bits of {@link DmaMapFlag}. */
  readonly flags: number;
}

/** A region as plain data. */
export interface SavedRegion {
  /** Frame of the first address. */
  readonly pfn: number;
  readonly pages: number;
  /** Page of the file. */
  readonly filePage: number;
  readonly flags: number;
  /** Descriptor of the file, −1 for none. */
  readonly fd: number;
}

/** Hears of regions whose addresses devices can form. */
export interface DmaListener {
  /** Whether it makes guest memory of regions itself. */
  readonly showsMemory?: boolean;
  /**
   * @param key - the same for the same file; null for a region without one
   * @returns an errno; the region is refused with it
   */
  mapped(region: SavedRegion, key: string | null, hold: FileHold | null): number;
  /** Before the memory goes. */
  unmapped(region: SavedRegion, hold: FileHold | null): void;
  /** Does a bounded piece of what is left to do. @returns whether there is more */
  work?(): boolean;
}

/** Keeps regions where they outlive this process, each under the number of its slot. */
export interface RegionKeeper {
  /** Slots there are. */
  readonly slotsMax: number;
  /** Called once in a message, like the next two: a change counts when the message does. */
  put(slot: number, region: SavedRegion): void;
  remove(slot: number): void;
  clear(): void;
  /** Gives everything that is kept. */
  load(take: (slot: number, region: SavedRegion) => void): void;
}

/** What a table is made of. */
export interface DmaTableOptions {
  readonly system: Pick<System, "status" | "close">;
  readonly files: MemoryFiles;
  /** Where regions with a file appear. */
  readonly memory: GuestMemory;
  /** {@link Limit.DMA_REGIONS} without it. */
  readonly regionsMax?: number;
  readonly listener?: DmaListener | null;
  readonly keeper?: RegionKeeper | null;
}

/** A file, by the first descriptor that came for it. */
interface SharedFile {
  readonly key: string;
  readonly fd: number;
  users: number;
}

interface Region extends SavedRegion {
  readonly file: SharedFile | null;
  readonly hold: FileHold | null;
}

/** Devices reach memory up to here: addresses are exact numbers, and so are ends. */
const REACHABLE_PFN_LAST = 2 ** 41 - 2;

/** The table. */
export class DmaTable {
  /** Changes with what {@link save} holds. */
  revision = 0;
  readonly #options: DmaTableOptions;
  readonly #index: RangeMap;
  readonly #regions: (Region | undefined)[] = [];
  #freeSlots: number[] = [];
  readonly #files = new Map<string, SharedFile>();
  #reachablePages = 0;

  constructor(options: DmaTableOptions) {
    this.#options = options;
    this.#index = new RangeMap({ rangesMax: options.regionsMax ?? Limit.DMA_REGIONS });
  }

  /** Regions there are. */
  get count(): number {
    return this.#index.count;
  }

  /** Files that regions show. */
  get fileCount(): number {
    return this.#files.size;
  }

  /**
   * Which files those are, by device and inode: connections of one virtual machine have files in
   * common, those of two machines have none.
   */
  get fileNames(): string[] {
    const names = [...this.#files.keys()].map((key) => key.slice(0, key.lastIndexOf(":")));
    return [...new Set(names)].sort();
  }

  /** Bytes of regions that devices can reach. */
  get reachableBytes(): number {
    return this.#reachablePages * PAGE_BYTES;
  }

  /**
   * DMA_MAP.
   *
   * @param fd - taken over on success, the caller's on failure; −1 for none
   * @returns EINVAL (no bytes, misaligned, beyond 2^64, too many), EEXIST (a byte is taken by
   *   another region), or why the file cannot be looked at
   */
  map(request: DmaRequest, fd: number): number {
    const { address, size, offset, flags } = request;
    if ((flags & ~(DmaMapFlag.READ | DmaMapFlag.WRITE)) !== 0) return Errno.EINVAL;
    if (size === 0n || ((address | size | offset) & 0xfffn) !== 0n) return Errno.EINVAL;
    if (size - 1n > ADDRESS_LAST - address || size - 1n > ADDRESS_LAST - offset)
      return Errno.EINVAL;
    const pfn = pfnOf(address);
    const pages = Number(size >> 12n);
    const wanted = { pfn, pages, filePage: pfnOf(offset), flags, fd };
    const key = fd < 0 ? null : this.#keyOf(fd, flags);
    if (typeof key === "number") return key;
    const there = this.#exact(pfn, pages);
    if (there !== null && isSame(this.#regions[there]!, wanted, key)) {
      if (fd >= 0) this.#options.system.close(fd);
      return Errno.OK;
    }
    if (this.#index.overlaps(pfn, 0, pfn + pages - 1, 0xfff)) return Errno.EEXIST;
    const slot = this.#freeSlots.at(-1) ?? this.#regions.length;
    const { keeper = null } = this.#options;
    if (keeper !== null && slot >= keeper.slotsMax) return Errno.EINVAL;
    const errno = this.#insert(wanted, key, slot);
    if (errno === Errno.OK) keeper?.put(slot, this.#regions[slot]!);
    return errno;
  }

  /** DMA_UNMAP of one region. @returns ENOENT when the range is not exactly one */
  unmap(address: bigint, size: bigint): number {
    if (((address | size) & 0xfffn) !== 0n || size === 0n) return Errno.ENOENT;
    const pfn = pfnOf(address);
    const slot = this.#exact(pfn, Number(size >> 12n));
    if (slot === null) return Errno.ENOENT;
    this.#remove(slot);
    this.#options.keeper?.remove(slot);
    return Errno.OK;
  }

  /** DMA_UNMAP of everything. */
  clear(): void {
    for (let slot = 0; slot < this.#regions.length; slot += 1) {
      if (this.#regions[slot] !== undefined) this.#remove(slot);
    }
    this.#regions.length = 0;
    this.#freeSlots = [];
    this.#options.keeper?.clear();
  }

  /** Descriptors of files that regions show. */
  get descriptors(): number[] {
    return [...this.#files.values()].map(({ fd }) => fd);
  }

  /** What is mapped, by address. */
  save(): SavedRegion[] {
    const saved: SavedRegion[] = [];
    const index = this.#index;
    for (let at = index.first(); at !== NONE; at = index.next(at)) {
      const { pfn, pages, filePage, flags, fd } = this.#regions[index.valuePfn(at)]!;
      saved.push({ pfn, pages, filePage, flags, fd });
    }
    return saved;
  }

  /**
   * Maps what was mapped when it was saved; its descriptors are open again under the same numbers.
   *
   * @throws StackError `live/state` when a file is not there any more
   */
  restore(saved: readonly SavedRegion[]): void {
    assert(this.count === 0, "a new table takes over");
    for (const [slot, region] of saved.entries()) this.#restore(slot, region);
  }

  /** As {@link restore}, of what was kept region by region. */
  restoreKept(): void {
    assert(this.count === 0, "a new table takes over");
    this.#options.keeper?.load((slot, region) => this.#restore(slot, region));
    for (let slot = this.#regions.length - 1; slot >= 0; slot -= 1)
      if (this.#regions[slot] === undefined) this.#freeSlots.push(slot);
  }

  #restore(slot: number, region: SavedRegion): void {
    const key = region.fd < 0 ? null : this.#keyOf(region.fd, region.flags);
    const errno = typeof key === "number" ? key : this.#insert(region, key, slot);
    if (errno === Errno.OK) return;
    throw new StackError({
      code: "live/state",
      kind: "input",
      message: `Memory of the virtual machine at ${addressOf(region.pfn)} cannot be had again`,
      hint: "the descriptors of its memory have to be passed on with the state",
    });
  }

  /** Lets go of all memory, and of no descriptor: somebody else goes on with them. */
  release(): void {
    for (const region of this.#regions) if (region !== undefined) this.#hide(region);
    this.#regions.length = 0;
    this.#files.clear();
    this.#index.clear();
  }

  /** What is the same for all descriptors of a file that allow the same, or an errno. */
  #keyOf(fd: number, flags: number): string | number {
    const status = this.#options.system.status(fd);
    if (typeof status === "number" || status.kind !== "regular") return Errno.EINVAL;
    return `${status.device}:${status.inode}:${flags & DmaMapFlag.WRITE}`;
  }

  /** Slot of the region that is exactly a range. */
  #exact(pfn: number, pages: number): number | null {
    const index = this.#index;
    const at = index.find(pfn, 0);
    if (at === NONE || index.startPfn(at) !== pfn || index.lastPfn(at) !== pfn + pages - 1)
      return null;
    return index.valuePfn(at);
  }

  #insert(wanted: SavedRegion, key: string | null, slot: number): number {
    const { pfn, pages } = wanted;
    const hold = key === null ? null : this.#hold(wanted);
    if (typeof hold === "number") return hold;
    const inserted = this.#index.insert(pfn, 0, pfn + pages - 1, 0xfff, slot, 0, 0);
    const errno =
      inserted === RangeInsert.OK ? this.#show(wanted, key, hold) : (Errno.EINVAL as number);
    if (errno !== Errno.OK) {
      if (inserted === RangeInsert.OK) this.#index.removeContained(pfn, 0, pfn + pages - 1, 0xfff);
      hold?.release();
      return errno;
    }
    const file = key === null ? null : this.#useFile(key, wanted.fd);
    if (this.#freeSlots.at(-1) === slot) this.#freeSlots.pop();
    this.#regions[slot] = { ...wanted, fd: file?.fd ?? -1, file, hold };
    this.revision += 1;
    return Errno.OK;
  }

  #hold({ pages, filePage, flags, fd }: SavedRegion): FileHold | number {
    if (filePage + pages > REACHABLE_PFN_LAST + 1) return Errno.EINVAL;
    const access = (flags & DmaMapFlag.WRITE) !== 0 ? "shared" : "private";
    return this.#options.files.hold(fd, filePage * PAGE_BYTES, pages * PAGE_BYTES, access);
  }

  /** Lets devices see a region. */
  #show(region: SavedRegion, key: string | null, hold: FileHold | null): number {
    if (!isReachable(region)) return Errno.OK;
    const { listener = null, memory } = this.#options;
    const errno = listener?.mapped(region, key, hold) ?? Errno.OK;
    if (errno !== Errno.OK || hold === null) return errno;
    this.#reachablePages += region.pages;
    if (listener?.showsMemory === true) return Errno.OK;
    const isReadOnly = (region.flags & DmaMapFlag.WRITE) === 0;
    let start = region.pfn * PAGE_BYTES;
    for (const piece of hold.pieces) {
      const { bytes } = piece;
      const result = memory.addRegion({ start, bytes, backing: piece, isReadOnly });
      assert(result === "added", "the table knows what is free");
      start += bytes;
    }
    return Errno.OK;
  }

  /** Takes a region away from devices, then its memory. */
  #hide(region: Region): void {
    const { hold } = region;
    if (isReachable(region)) this.#hideReachable(region);
    hold?.release();
  }

  #hideReachable(region: Region): void {
    const { hold } = region;
    const { listener = null, memory } = this.#options;
    listener?.unmapped(region, hold);
    if (hold === null) return;
    this.#reachablePages -= region.pages;
    if (listener?.showsMemory === true) return;
    let start = region.pfn * PAGE_BYTES;
    for (const { bytes } of hold.pieces) {
      const isRemoved = memory.removeRegion(start);
      assert(isRemoved, "what was shown is there");
      start += bytes;
    }
  }

  #remove(slot: number): void {
    const region = this.#regions[slot]!;
    this.#regions[slot] = undefined;
    this.#freeSlots.push(slot);
    const { pfn, pages, file } = region;
    const removed = this.#index.removeContained(pfn, 0, pfn + pages - 1, 0xfff);
    assert(removed === 1, "a region is in the index once");
    this.#hide(region);
    this.revision += 1;
    if (file === null) return;
    file.users -= 1;
    if (file.users > 0) return;
    this.#files.delete(file.key);
    this.#options.system.close(file.fd);
  }

  /** The file behind a descriptor, which is closed where another one stands for it already. */
  #useFile(key: string, fd: number): SharedFile {
    let file = this.#files.get(key);
    if (file === undefined) {
      file = { key, fd, users: 0 };
      this.#files.set(key, file);
    } else if (file.fd !== fd) this.#options.system.close(fd);
    file.users += 1;
    return file;
  }
}

/** Whether devices can form addresses of a region. */
function isReachable({ pfn, pages, flags }: SavedRegion): boolean {
  return pfn + pages - 1 <= REACHABLE_PFN_LAST && flags !== 0;
}

function isSame(region: Region, wanted: SavedRegion, key: string | null): boolean {
  if (region.flags !== wanted.flags || (region.file?.key ?? null) !== key) return false;
  return key === null || region.filePage === wanted.filePage;
}
