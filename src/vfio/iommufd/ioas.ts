/**
 * An I/O address space: areas of pages at IOVAs, and the page tables that all show the same of it.
 *
 * Source: drivers/iommu/iommufd/io_pagetable.c: iopt_map_pages, iopt_alloc_area_pages,
 * iopt_get_pages, iopt_unmap_iova_range, iopt_table_add_domain, iopt_table_remove_domain,
 * iopt_calculate_iova_alignment, iopt_disable_large_pages, iopt_cut_iova, iopt_area_split,
 * iopt_table_enforce_dev_resv_regions.
 */
import { Errno } from "../../errno.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { RANGES_LIMIT } from "../../iommu/range-map.ts";
import { type ReservedRegion, ReservedType } from "../../iommu/reserved-regions.ts";
import { ADDRESS_LAST, addressOf, offsetOf, PAGE_BYTES, pfnOf } from "../../units.ts";
import { type Area, pagesByteOf, splitArea } from "./area.ts";
import {
  type ByteRange,
  byteRange,
  contains,
  isBelow,
  lastOf,
  lengthOf,
  rangeBetween,
} from "./byte-range.ts";
import { fillDomain, fillDomains, unfillDomain, unfillDomains } from "./fill.ts";
import { IovaSpace } from "./iova-space.ts";
import type { IoPages } from "./pages.ts";

/** How often a kernel user is asked to let go of an area. */
const UNMAP_TRIES = 100;

/** A part of some pages, to be mapped. */
export interface PagesPart {
  readonly pages: IoPages;
  /** Offset of its first byte in the pages. */
  readonly startByte: bigint;
  readonly length: bigint;
}

/** A kernel user of an IOAS. */
export interface IoasUser {
  /** What it needs IOVAs and lengths to be multiples of. */
  readonly alignment: number;
  /** Asks it to let go of its pins in a range. */
  unmap(iova: bigint, length: bigint): void;
}

/** What a call gives: values are meaningful when `errno` is 0. */
export interface IovaReply {
  readonly errno: number;
  readonly iova: bigint;
}

/** What an unmap gives. */
export interface UnmapReply {
  readonly errno: number;
  /** Bytes unmapped, also when it failed half way. */
  readonly length: bigint;
}

/** An IOAS. */
export class Ioas {
  readonly space = new IovaSpace();
  readonly domains: IommuDomain[] = [];
  readonly users: IoasUser[] = [];
  #hasLargePages = true;

  /** Whether pages larger than 4 KiB are used in page tables. */
  get hasLargePages(): boolean {
    return this.#hasLargePages;
  }

  /** Page sizes that all page tables have, as bits; every multiple of 4 KiB without a table. */
  get pageSizes(): bigint {
    let sizes = ADDRESS_LAST;
    for (const domain of this.domains) {
      let own = 0n;
      for (const shift of domain.driver!.pageShifts) own |= 1n << BigInt(shift);
      sizes &= own;
    }
    const offsets = BigInt(PAGE_BYTES - 1);
    if ((sizes & offsets) !== 0n) sizes = (sizes & ~offsets) | BigInt(PAGE_BYTES);
    const alignment = BigInt(this.space.alignment);
    return sizes > alignment ? sizes : alignment;
  }

  /**
   * Maps parts of pages one behind the other.
   *
   * @param iova - where, or null for a place of the kernel's choice
   * @returns an errno, and then nothing has changed: EINVAL (misaligned, reserved), EOVERFLOW,
   *   EEXIST, ENOSPC (no place), EPERM (pages not for writing), ENOMEM, EFAULT, or what a page
   *   table gave
   */
  map(parts: readonly PagesPart[], length: bigint, iova: bigint | null, prot: number): IovaReply {
    const place = this.#placeFor(parts, length, iova);
    if (typeof place === "number") return { errno: place, iova: 0n };
    const areas: Area[] = [];
    let errno: number = Errno.OK;
    let at = place;
    for (const part of parts) {
      const area = this.#areaFor(part, at, prot);
      errno = typeof area === "number" ? area : Errno.OK;
      if (typeof area === "number") break;
      this.space.areas.insert(area);
      areas.push(area);
      at += part.length;
    }
    let filled = 0;
    while (errno === Errno.OK && filled < areas.length) {
      errno = this.#fill(areas[filled]!);
      if (errno === Errno.OK) filled += 1;
    }
    if (errno === Errno.OK) {
      for (const area of areas) area.pages.users += 1;
      return { errno, iova: place };
    }
    for (const [index, area] of areas.entries()) {
      if (index < filled) this.#unfill(area);
      this.space.areas.remove(area);
    }
    return { errno, iova: 0n };
  }

  /** The pages behind a range that is mapped throughout. @returns EINVAL, EOVERFLOW, ENOENT */
  partsOf(iova: bigint, length: bigint): PagesPart[] | number {
    if (length === 0n) return Errno.EINVAL;
    const range = byteRange(iova, length);
    if (range === null) return Errno.EOVERFLOW;
    const parts: PagesPart[] = [];
    const errno = this.forEachContiguous(range, (area, start, last) => {
      const startByte = pagesByteOf(area, start);
      parts.push({ pages: area.pages, startByte, length: last - start + 1n });
      return Errno.OK;
    });
    return errno === Errno.OK ? parts : errno;
  }

  /** Visits the areas of a range, each with its part of it. @returns ENOENT at a hole */
  forEachContiguous(
    range: ByteRange,
    visit: (area: Area, start: bigint, last: bigint) => number,
  ): number {
    let pfn = range.startPfn;
    let offset = range.startOffset;
    const rangeLast = lastOf(range);
    for (;;) {
      const area = this.space.areas.find(pfn, offset);
      if (area === null) return Errno.ENOENT;
      const reaches = isBelow(range.lastPfn, range.lastOffset, area.lastPfn, area.lastOffset);
      const last = reaches ? rangeLast : lastOf(area);
      const errno = visit(area, addressOf(pfn, offset), last);
      if (errno !== Errno.OK || reaches) return errno;
      pfn = pfnOf(last + 1n);
      offset = offsetOf(last + 1n);
    }
  }

  /**
   * Unmaps every area of a range.
   *
   * @returns ENOENT when nothing is mapped, or when an area is partly outside: those below it are
   *   gone then; EDEADLK when a kernel user does not let go
   */
  unmap(iova: bigint, length: bigint): UnmapReply {
    if (length === 0n) return { errno: Errno.EINVAL, length: 0n };
    const range = byteRange(iova, length);
    if (range === null) return { errno: Errno.EOVERFLOW, length: 0n };
    return this.#unmapRange(range);
  }

  /** Unmaps everything. */
  unmapAll(): UnmapReply {
    const reply = this.#unmapRange(rangeBetween(0n, ADDRESS_LAST));
    return reply.errno === Errno.ENOENT ? { ...reply, errno: Errno.OK } : reply;
  }

  /**
   * Adds a page table and maps everything in it.
   *
   * @returns an errno, and then nothing has changed: EINVAL (its pages are too large), EADDRINUSE
   *   (a mapping is misaligned for it or outside its aperture), ENOMEM, EFAULT, or what it gave
   */
  addDomain(domain: IommuDomain): number {
    const { space } = this;
    const driver = domain.driver!;
    const pageBytes = 2 ** driver.pageShifts[0]!;
    const alignment = Math.max(pageBytes, space.alignment);
    if (alignment > PAGE_BYTES) return Errno.EINVAL;
    if (!this.space.suitsAlignment(alignment)) return Errno.EADDRINUSE;
    let errno = space.reserveOutside(driver.apertureStartPfn, driver.apertureLastPfn, domain);
    if (errno === Errno.OK) errno = this.#fillAll(domain);
    if (errno !== Errno.OK) {
      space.unreserve(domain);
      return errno;
    }
    space.alignment = alignment;
    this.domains.push(domain);
    return Errno.OK;
  }

  /** Takes a page table away; with the last one everything is unpinned. */
  removeDomain(domain: IommuDomain): void {
    const index = this.domains.indexOf(domain);
    // The last one takes the place of the one that goes.
    const tail = this.domains.pop()!;
    if (tail !== domain) this.domains[index] = tail;
    for (const area of this.space.areas) {
      if (this.domains.length === 0) {
        this.#stopRevocation(area);
        unfillDomains(area, [domain]);
        continue;
      }
      if (area.storage === domain) area.storage = this.domains[0]!;
      unfillDomain(area, domain);
    }
    this.space.unreserve(domain);
    this.#updateAlignment();
  }

  /**
   * Reserves what a device must not have mapped.
   *
   * @returns EADDRINUSE, and nothing is reserved, when something is mapped or wanted there
   */
  reserveRegions(regions: readonly ReservedRegion[], owner: object): number {
    for (const { type, start, last } of regions) {
      if (type === ReservedType.DIRECT_RELAXABLE) continue;
      const errno = this.space.reserve(start, last, owner);
      if (errno === Errno.OK) continue;
      this.space.unreserve(owner);
      return errno;
    }
    return Errno.OK;
  }

  /** Has page tables use 4 KiB pages only. @returns EINVAL when one has larger ones already */
  disableLargePages(): number {
    if (!this.#hasLargePages) return Errno.OK;
    if (this.domains.length > 0 && this.space.areas.count > 0) return Errno.EINVAL;
    this.#hasLargePages = false;
    const errno = this.#updateAlignment();
    if (errno !== Errno.OK) this.#hasLargePages = true;
    return errno;
  }

  /** Ends {@link disableLargePages}, for mappings to come. */
  enableLargePages(): void {
    this.#hasLargePages = true;
    this.#updateAlignment();
  }

  /** A kernel user comes. @returns EADDRINUSE when a mapping is misaligned for it */
  addUser(user: IoasUser): number {
    this.users.push(user);
    const errno = this.#updateAlignment();
    if (errno !== Errno.OK) this.users.pop();
    return errno;
  }

  removeUser(user: IoasUser): void {
    this.users.splice(this.users.indexOf(user), 1);
    this.#updateAlignment();
  }

  /**
   * Cuts the area that holds an address, if one does, so that it ends there.
   *
   * @returns EINVAL where it cannot be cut, EBUSY while it is going away
   */
  cutBehind(iova: bigint): number {
    const area = this.space.areas.find(pfnOf(iova), offsetOf(iova));
    if (area === null) return Errno.OK;
    const { startPfn, startOffset, pages } = area;
    if (iova === addressOf(startPfn, startOffset) || iova === lastOf(area)) return Errno.OK;
    if (area.preventsAccess) return Errno.EBUSY;
    const second = iova + 1n;
    if (offsetOf(second) % this.space.alignment !== 0) return Errno.EINVAL;
    if (area.accesses > 0) return Errno.EINVAL;
    if (area.storage !== null && this.#hasLargePages) return Errno.EINVAL;
    this.#stopRevocation(area);
    this.space.areas.remove(area);
    const [first, rest] = splitArea(area, iova);
    pages.users += 1;
    for (const each of [first, rest]) {
      this.space.areas.insert(each);
      if (each.storage !== null) this.#watchRevocation(each);
    }
    return Errno.OK;
  }

  #placeFor(parts: readonly PagesPart[], length: bigint, iova: bigint | null): bigint | number {
    const { space } = this;
    if (length === 0n || offsetOf(length) % space.alignment !== 0) return Errno.EINVAL;
    if (space.areas.count + parts.length > RANGES_LIMIT) return Errno.ENOMEM;
    if (iova === null) {
      const { pages, startByte } = parts[0]!;
      return space.place(addressOf(pages.source.firstPage) + startByte, length);
    }
    if (offsetOf(iova) % space.alignment !== 0) return Errno.EINVAL;
    const range = byteRange(iova, length);
    if (range === null) return Errno.EOVERFLOW;
    const errno = space.check(range);
    return errno === Errno.OK ? iova : errno;
  }

  #areaFor(part: PagesPart, iova: bigint, prot: number): Area | number {
    const { pages, startByte } = part;
    const isWriting = (prot & 2) !== 0;
    if (isWriting && !pages.isWritable) return Errno.EPERM;
    const pageOffset = offsetOf(startByte);
    if (pageOffset % this.space.alignment !== 0) return Errno.EINVAL;
    const range = byteRange(iova, part.length);
    if (range === null) return Errno.EOVERFLOW;
    // Field by field: a spread would cost as much as all the rest of a map.
    return {
      startPfn: range.startPfn,
      startOffset: range.startOffset,
      lastPfn: range.lastPfn,
      lastOffset: range.lastOffset,
      pages,
      firstIndex: pfnOf(startByte),
      lastIndex: pfnOf(startByte + part.length - 1n),
      pageOffset,
      prot,
      storage: null,
      accesses: 0,
      preventsAccess: false,
      stopsRevocation: null,
    };
  }

  #fill(area: Area): number {
    const errno = fillDomains(area, this.domains, this.#hasLargePages);
    if (errno === Errno.OK && area.storage !== null) this.#watchRevocation(area);
    return errno;
  }

  #unfill(area: Area): void {
    this.#stopRevocation(area);
    unfillDomains(area, this.domains);
  }

  #watchRevocation(area: Area): void {
    if (!area.pages.isDevice) return;
    area.stopsRevocation = area.pages.onRevoke(() => {
      for (const domain of this.domains) unfillDomain(area, domain);
    });
  }

  #stopRevocation(area: Area): void {
    area.stopsRevocation?.();
    area.stopsRevocation = null;
  }

  #fillAll(domain: IommuDomain): number {
    const done: Area[] = [];
    let errno: number = Errno.OK;
    for (const area of this.space.areas) {
      const isFirst = area.storage === null;
      errno = isFirst
        ? fillDomains(area, [domain], this.#hasLargePages)
        : fillDomain(area, domain, this.#hasLargePages);
      if (errno !== Errno.OK) break;
      if (isFirst) this.#watchRevocation(area);
      done.push(area);
    }
    if (errno === Errno.OK) return errno;
    for (const area of done) {
      if (area.storage !== domain) {
        unfillDomain(area, domain);
        continue;
      }
      this.#stopRevocation(area);
      unfillDomains(area, [domain]);
    }
    return errno;
  }

  #unmapRange(range: ByteRange): UnmapReply {
    const { areas } = this.space;
    let unmapped = 0n;
    let tries = 0;
    for (let area = areas.firstIn(range); area !== null; area = areas.firstIn(range)) {
      if (!contains(range, area)) return { errno: Errno.ENOENT, length: unmapped };
      const length = lengthOf(area);
      if (area.accesses > 0) {
        area.preventsAccess = true;
        if (tries === UNMAP_TRIES) return { errno: Errno.EDEADLK, length: unmapped };
        tries += 1;
        const iova = addressOf(area.startPfn, area.startOffset);
        for (const user of [...this.users]) user.unmap(iova, length);
        continue;
      }
      tries = 0;
      this.#unfill(area);
      areas.remove(area);
      area.pages.put();
      unmapped += length;
    }
    return { errno: unmapped === 0n ? Errno.ENOENT : Errno.OK, length: unmapped };
  }

  #updateAlignment(): number {
    let alignment = this.#hasLargePages ? 1 : PAGE_BYTES;
    for (const domain of this.domains) {
      alignment = Math.max(alignment, 2 ** domain.driver!.pageShifts[0]!);
    }
    for (const user of this.users) alignment = Math.max(alignment, user.alignment);
    if (!this.space.suitsAlignment(alignment)) return Errno.EADDRINUSE;
    this.space.alignment = alignment;
    return Errno.OK;
  }
}
