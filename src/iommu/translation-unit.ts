/**
 * One IOMMU: it takes the DMA of the devices behind it through IOTLB, paging-structure cache and
 * page table, refuses what is not allowed, and forgets what it is told to forget.
 *
 *     rid, PASID ─▶ attachment ─┬─ blocked ──▶ fault
 *                               ├─ identity ─▶ the same frame
 *                               └─ paged ────▶ IOTLB ─▶ paging cache ─▶ walk ─▶ fill ─▶ rights
 *
 * Invalidations take effect at once; what makes them late is that nobody issues them. Source: Intel
 * VT-d specification, 3 "DMA Remapping", 6 "Caching Translation Information"; virtio 1.3, 5.13 for
 * bypass. Budget: 40 ns a translation that hits, 150 ns one that walks (bench/iotlb.bench.ts).
 */
import { assert, unreachable } from "../errors.ts";
import { type Meter, NULL_METER, Step } from "../meter.ts";
import { alignDown, PAGE_SHIFT, PFN_LAST } from "../units.ts";
import { AtsCache } from "./ats-cache.ts";
import {
  type AddressWindow,
  type DeviceEntry,
  DeviceTable,
  type PagedAttachment,
} from "./device-table.ts";
import { DomainIds } from "./domain-ids.ts";
import { FaultQueue, FaultReason } from "./fault-queue.ts";
import { blockMask, MASK_ALL, type SelectiveInvalidation } from "./invalidation.ts";
import { Iotlb, type IotlbGeometry } from "./iotlb.ts";
import { PagingCache } from "./paging-cache.ts";
import { PROT_RW, Prot } from "./prot.ts";
import { WalkFault, WalkResult } from "./table-walk.ts";
import { ANY_PASID, type CacheGeometry, FRAMES_OF_SHIFT, NO_PASID } from "./tag-array.ts";

/** What a unit is made of. */
export interface TranslationUnitOptions {
  readonly name: string;
  /** NUMA node the unit sits on; −1 when the firmware does not say. */
  readonly node: number;
  readonly iotlb: IotlbGeometry;
  /** Geometry of each level of the paging-structure cache; null for none. */
  readonly pagingCache: CacheGeometry | null;
  readonly selective: SelectiveInvalidation;
  readonly meter?: Meter;
  /** How many domains it can tell apart, 65536 without it. */
  readonly domainIds?: number;
  /** Fault records it can hold, 16 without it. */
  readonly faultRecords?: number;
  /** Whether it caches that a frame is not mapped (VT-d caching mode), so that a map has to sync. */
  readonly cachingMode?: boolean;
  /** Whether DMA of unattached devices passes untranslated. */
  readonly bypassUnattached?: boolean;
  /** Ranges that are not translated, for devices that bring none of their own. */
  readonly windows?: readonly AddressWindow[];
  /** Whether it can force DMA to be cache coherent (VT-d snoop control); it can without this. */
  readonly snoopControl?: boolean;
  /** Names of the page-table formats it can walk; all of them without it. */
  readonly formats?: readonly string[];
}

/** How a request ended. */
export const Outcome = { FAULT: 0, MEMORY: 1, INTERRUPT: 2 } as const;

/** What a translation gave; one record serves any number of them. */
export class Translation {
  physPfn = -1;
  /** log2 of the size of the page, or of the piece of it that is cached; 0 for untranslated DMA. */
  pageShift = 0;
  /** Bits of `Prot` that the page allows. */
  prot = 0;
  /** Why it was refused. */
  fault: FaultReason = FaultReason.NONE;
  /** Slot of the IOTLB entry that was used or filled; −1 when none was. */
  slot = -1;
}

/** An IOMMU. */
export class TranslationUnit {
  readonly name: string;
  readonly node: number;
  readonly cachingMode: boolean;
  readonly snoopControl: boolean;
  readonly selective: SelectiveInvalidation;
  readonly iotlb: Iotlb;
  readonly pagingCache: PagingCache | null;
  readonly faults: FaultQueue;
  readonly devices: DeviceTable;
  readonly domainIds: DomainIds;
  /** Whether DMA of unattached devices passes untranslated; a change takes effect at once. */
  bypassUnattached: boolean;
  readonly #formats: readonly string[] | null;
  readonly #meter: Meter;
  readonly #place: number;
  readonly #walk = new WalkResult();
  #commands = 0;

  constructor(options: TranslationUnitOptions) {
    const { meter = NULL_METER } = options;
    this.name = options.name;
    this.node = options.node;
    this.#place = Math.max(options.node, 0);
    this.cachingMode = options.cachingMode ?? false;
    this.snoopControl = options.snoopControl ?? true;
    this.selective = options.selective;
    this.bypassUnattached = options.bypassUnattached ?? false;
    this.iotlb = new Iotlb(options.iotlb, meter, this.#place);
    this.pagingCache =
      options.pagingCache === null
        ? null
        : new PagingCache(options.pagingCache, meter, this.#place);
    this.faults = new FaultQueue(options.faultRecords ?? 16);
    this.devices = new DeviceTable(options.windows ?? []);
    this.domainIds = new DomainIds(options.domainIds ?? 65536);
    this.#formats = options.formats ?? null;
    this.#meter = meter;
  }

  /** Whether the unit can walk tables of a format. */
  walks(formatName: string): boolean {
    return this.#formats === null || this.#formats.includes(formatName);
  }

  /** Switches a device's ATS on, with an empty cache of this geometry. */
  enableAts(rid: number, geometry: IotlbGeometry): AtsCache {
    const ats = new AtsCache(geometry, this.#meter, this.#place);
    this.devices.ensure(rid).ats = ats;
    return ats;
  }

  /** Switches a device's ATS off. */
  disableAts(rid: number): void {
    this.devices.ensure(rid).ats = null;
  }

  /**
   * Takes one access of a device to one frame.
   *
   * @param rid - requester: bus << 8 | devfn
   * @param pasid - or `NO_PASID`
   * @param access - bits of `Prot`: READ, WRITE or both
   * @returns one of {@link Outcome}; a fault is recorded, and its reason is in `out`
   */
  translate(rid: number, pasid: number, iovaPfn: number, access: number, out: Translation): number {
    const outcome = this.translateUnrecorded(rid, pasid, iovaPfn, access, out);
    if (outcome === Outcome.FAULT) {
      this.#meter.step(Step.fault, 1, this.#place);
      this.faults.put(out.fault, rid, pasid, iovaPfn, access);
    }
    return outcome;
  }

  /** As {@link translate}, but a fault is left to the caller, who may recover from it. */
  translateUnrecorded(
    rid: number,
    pasid: number,
    iovaPfn: number,
    access: number,
    out: Translation,
  ): number {
    return this.#request(this.devices.find(rid), pasid, iovaPfn, access, out);
  }

  /**
   * Takes an access of a device that speaks ATS: out of its own cache, or by a translation request.
   * A refused translation request is not a fault of the unit and is not recorded.
   */
  translateAts(
    rid: number,
    pasid: number,
    iovaPfn: number,
    access: number,
    out: Translation,
  ): number {
    const entry = this.devices.find(rid);
    const ats = entry === null ? null : entry.ats;
    if (ats === null) return this.translate(rid, pasid, iovaPfn, access, out);
    const slot = ats.lookup(pasid, iovaPfn);
    if (slot >= 0) {
      const { entries } = ats.cache;
      const prot = entries.rightsAt(slot);
      if ((prot & access) === access) {
        out.physPfn = ats.cache.physPfnAt(slot, iovaPfn);
        out.pageShift = entries.blockShiftAt(slot);
        out.prot = prot;
        out.fault = FaultReason.NONE;
        out.slot = -1;
        return Outcome.MEMORY;
      }
      this.#meter.step(Step.atsRequest, 1, this.#place);
    }
    const outcome = this.#request(entry, pasid, iovaPfn, access, out);
    if (outcome === Outcome.MEMORY && out.pageShift > 0) {
      ats.fill(pasid, iovaPfn, out.physPfn, out.pageShift, out.prot);
    }
    return outcome;
  }

  /**
   * Issues the invalidation of a range of a domain, as narrow as the unit can.
   *
   * @param leafOnly - whether no table was cut off, so that the paging-structure cache may stay
   */
  invalidateRange(
    domainId: number,
    pasidTag: number,
    firstPfn: number,
    lastPfn: number,
    leafOnly: boolean,
  ): void {
    const { selective } = this;
    switch (selective.kind) {
      case "range":
        this.#invalidateBlock(domainId, pasidTag, firstPfn, lastPfn, leafOnly);
        break;
      case "mask": {
        const mask = blockMask(firstPfn, lastPfn);
        const frames = FRAMES_OF_SHIFT[PAGE_SHIFT + mask]!;
        const start = alignDown(firstPfn, frames);
        if (mask > selective.maskMax) this.invalidateDomain(domainId, pasidTag);
        else this.#invalidateBlock(domainId, pasidTag, start, start + frames - 1, leafOnly);
        break;
      }
      case "pages": {
        const frames = FRAMES_OF_SHIFT[selective.pageShift]!;
        const start = alignDown(firstPfn, frames);
        if (Math.floor((lastPfn - start) / frames) >= selective.commandsMax) {
          this.invalidateDomain(domainId, pasidTag);
          break;
        }
        for (let page = start; page <= lastPfn; page += frames) {
          this.#invalidateBlock(domainId, pasidTag, page, page + frames - 1, leafOnly);
        }
        break;
      }
      case "none":
        this.invalidateDomain(domainId, pasidTag);
        break;
      default:
        unreachable(selective);
    }
  }

  /** Issues the invalidation of everything cached for a domain. */
  invalidateDomain(domainId: number, pasidTag: number = ANY_PASID): void {
    this.iotlb.invalidateDomain(domainId, pasidTag);
    this.pagingCache?.invalidateDomain(domainId, pasidTag);
    this.#commands += 1;
    this.#meter.step(Step.invalidateDomain, 1, this.#place);
  }

  /** Issues the invalidation of everything cached. ATS caches are not part of it. */
  invalidateGlobal(): void {
    this.iotlb.invalidateAll();
    this.pagingCache?.invalidateAll();
    this.#commands += 1;
    this.#meter.step(Step.invalidateGlobal, 1, this.#place);
  }

  /** Issues the invalidation of a range in a device's ATS cache, widened to a power of two. */
  invalidateDevice(rid: number, pasid: number, firstPfn: number, lastPfn: number): void {
    const ats = this.devices.find(rid)?.ats ?? null;
    if (ats === null) return;
    const mask = blockMask(firstPfn, lastPfn);
    if (mask >= MASK_ALL) {
      ats.invalidateAll(pasid);
    } else {
      const start = alignDown(firstPfn, 2 ** mask);
      ats.invalidateRange(pasid, start, start + 2 ** mask - 1);
    }
    this.#commands += 1;
    this.#meter.step(Step.invalidateDevice, 1, this.#place);
  }

  /** Waits until the invalidations issued so far are complete; does nothing when none is. */
  wait(): void {
    if (this.#commands === 0) return;
    this.#commands = 0;
    this.#meter.step(Step.invalidateWait, 1, this.#place);
  }

  #invalidateBlock(
    domainId: number,
    pasidTag: number,
    firstPfn: number,
    lastPfn: number,
    leafOnly: boolean,
  ): void {
    assert(firstPfn >= 0 && firstPfn <= lastPfn && lastPfn <= PFN_LAST, "a range is not empty");
    this.iotlb.invalidateRange(domainId, pasidTag, firstPfn, lastPfn);
    if (!leafOnly) this.pagingCache?.invalidateRange(domainId, pasidTag, firstPfn, lastPfn);
    this.#commands += 1;
    this.#meter.step(Step.invalidateRange, lastPfn - firstPfn + 1, this.#place);
  }

  #request(
    entry: DeviceEntry | null,
    pasid: number,
    iovaPfn: number,
    access: number,
    out: Translation,
  ): number {
    const attachment = entry === null ? null : this.devices.attachmentOf(entry, pasid);
    if (attachment === null) {
      return this.bypassUnattached ? untranslated(iovaPfn, out) : fail(FaultReason.NO_DOMAIN, out);
    }
    if (attachment.kind === "blocked") return fail(FaultReason.NO_DOMAIN, out);
    const { windows } = entry!;
    for (let index = 0; index < windows.length; index += 1) {
      const window = windows[index]!;
      if (iovaPfn < window.firstPfn || iovaPfn > window.lastPfn) continue;
      if (attachment.kind === "identity" && window.kind === "reserved") continue;
      return inWindow(window, pasid, access, out);
    }
    if (attachment.kind === "identity") return untranslated(iovaPfn, out);
    const slot = this.iotlb.lookup(attachment.domainId, attachment.pasidTag, iovaPfn);
    if (slot < 0) return this.#miss(attachment, iovaPfn, access, out);
    const { entries } = this.iotlb;
    out.physPfn = this.iotlb.physPfnAt(slot, iovaPfn);
    out.pageShift = entries.blockShiftAt(slot);
    out.slot = slot;
    return permit(entries.rightsAt(slot), access, out);
  }

  #miss(attachment: PagedAttachment, iovaPfn: number, access: number, out: Translation): number {
    const { table, domainId, pasidTag } = attachment;
    const { format } = table;
    const walk = this.#walk;
    const paging = this.pagingCache;
    const level =
      paging === null ? -1 : paging.lookup(format, table.topLevel, domainId, pasidTag, iovaPfn);
    const found =
      level >= 0
        ? table.walkFrom(level, paging!.tablePfn, iovaPfn, walk)
        : table.walk(iovaPfn, walk);
    if (found || walk.fault === WalkFault.NOT_PRESENT) {
      paging?.fill(format, domainId, pasidTag, iovaPfn, walk);
    }
    if (!found) {
      if (walk.fault === WalkFault.NOT_PRESENT && attachment.cachesAbsent) {
        this.iotlb.fill(domainId, pasidTag, iovaPfn, iovaPfn, format.granuleShift, 0);
      }
      return fail(reasonOf(walk.fault), out);
    }
    const { physPfn, pageShift, prot } = walk;
    out.slot = this.iotlb.fill(domainId, pasidTag, iovaPfn, physPfn, pageShift, prot);
    out.physPfn = physPfn;
    out.pageShift = pageShift;
    return permit(prot, access, out);
  }
}

function permit(prot: number, access: number, out: Translation): number {
  out.prot = prot;
  if ((prot & access) === access) {
    out.fault = FaultReason.NONE;
    return Outcome.MEMORY;
  }
  const missing = access & ~prot;
  if ((prot & PROT_RW) === 0) return fail(FaultReason.NOT_PRESENT, out);
  return fail((missing & Prot.WRITE) !== 0 ? FaultReason.NO_WRITE : FaultReason.NO_READ, out);
}

function fail(reason: FaultReason, out: Translation): number {
  out.physPfn = -1;
  out.pageShift = 0;
  out.prot = 0;
  out.slot = -1;
  out.fault = reason;
  return Outcome.FAULT;
}

function untranslated(iovaPfn: number, out: Translation): number {
  out.physPfn = iovaPfn;
  out.pageShift = 0;
  out.prot = PROT_RW;
  out.slot = -1;
  out.fault = FaultReason.NONE;
  return Outcome.MEMORY;
}

function inWindow(window: AddressWindow, pasid: number, access: number, out: Translation): number {
  const isInterrupt = window.kind === "msi" && access === Prot.WRITE && pasid === NO_PASID;
  if (!isInterrupt) return fail(FaultReason.RESERVED_RANGE, out);
  untranslated(window.firstPfn, out);
  out.physPfn = -1;
  return Outcome.INTERRUPT;
}

function reasonOf(fault: number): FaultReason {
  switch (fault) {
    case WalkFault.OUT_OF_RANGE:
      return FaultReason.ADDRESS_WIDTH;
    case WalkFault.NOT_PRESENT:
      return FaultReason.NOT_PRESENT;
    case WalkFault.RESERVED:
      return FaultReason.RESERVED_BITS;
    default:
      return FaultReason.TABLE_ACCESS;
  }
}
