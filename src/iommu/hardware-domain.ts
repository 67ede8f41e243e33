/**
 * The paging domain of a hardware IOMMU's driver: a page table, and the caches that have to forget
 * when it changes.
 *
 * What is cached is known as cache tags: one for each unit that the domain is attached to, with the
 * domain's number there, and one for each attached device that speaks ATS. Every flush goes over
 * all tags and waits once for each unit.
 *
 * Source: drivers/iommu/intel/cache.c: cache_tag_assign_domain, cache_tag_flush_range;
 * drivers/iommu/intel/iommu.c: dmar_domain_attach_device, device_block_translation,
 * intel_iommu_tlb_sync, intel_iommu_iotlb_sync_map; drivers/iommu/generic_pt/iommu_pt.h:
 * gather_range_pending; drivers/iommu/io-pgtable-arm.c:__arm_lpae_unmap.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { PFN_LAST } from "../units.ts";
import { DomainNode } from "./domain-node.ts";
import type { DriverDomain } from "./driver-domain.ts";
import { IotlbGather, type TableList } from "./gather.ts";
import type { PageTable } from "./page-table.ts";
import { FRAMES_OF_SHIFT, NO_PASID } from "./tag-array.ts";
import type { TranslationUnit } from "./translation-unit.ts";

/**
 * What becomes of the node of a domain. `none`: tables stay on the node they were made for, and the
 * core's copy of it reads 0. `report`: the core is told the node of the unit attached last. `follow`
 * takes new tables from there, too (6.6 with the by-node RFC). `devices`: new tables come from the
 * node of a device, once {@link DomainNode} falls back to one (6.6 without it).
 */
export type UnitNodes = "none" | "report" | "follow" | "devices";

/** How a domain of a hardware IOMMU behaves. */
export interface HardwareDomainOptions {
  readonly table: PageTable;
  /**
   * What one invalidation may cover: with `range` it is widened over gaps (VT-d, AMD), with
   * `no-gaps` a range apart from the gathered one is synced for itself (AMD in a guest). Domains of
   * the pages style always gather adjacent pages of one size.
   */
  readonly gathering?: "range" | "no-gaps";
  /**
   * Whether the tables are first-stage ones: units then tag what they cache with the PASID too, and
   * do not cache what is absent.
   */
  readonly firstStage?: boolean;
  readonly deferredFlush?: boolean;
  /** Name of the driver's operations for such domains, that of the format without it. */
  readonly operations?: string;
  /** What the driver does about NUMA nodes after the domain was made. */
  readonly unitNodes?: UnitNodes;
}

interface CacheTag {
  readonly unit: TranslationUnit;
  /** The domain's number in the unit. */
  readonly domainId: number;
  /** Requester id of an ATS device, or −1 for the unit's own caches. */
  readonly rid: number;
  /** PASID tag, or of an ATS cache the PASID. */
  readonly pasid: number;
  users: number;
}

/** A paging domain in front of hardware. */
export class HardwareDomain implements DriverDomain {
  readonly style: "range" | "pages";
  readonly table: PageTable;
  readonly deferredFlush: boolean;
  readonly shadowOnFlush = false;
  readonly forceAperture = true;
  readonly gathersLeaves = true;
  readonly firstStage: boolean;
  readonly #noGaps: boolean;
  readonly #unitNodes: UnitNodes;
  readonly #node: DomainNode;
  readonly #cut = new IotlbGather();
  readonly #tags: CacheTag[] = [];
  #coherencyEnforced = false;
  #hasCachingMode = false;

  constructor(options: HardwareDomainOptions) {
    this.table = options.table;
    this.style = options.table.format.style;
    this.deferredFlush = options.deferredFlush ?? true;
    this.firstStage = options.firstStage ?? false;
    this.#noGaps = options.gathering === "no-gaps";
    this.#unitNodes = options.unitNodes ?? "report";
    this.#node = new DomainNode(this.#unitNodes !== "devices");
  }

  get pageShifts(): readonly number[] {
    return this.table.pageShifts;
  }

  get apertureStartPfn(): number {
    return this.table.apertureStartPfn;
  }

  get apertureLastPfn(): number {
    return this.table.apertureLastPfn;
  }

  get mappedPages(): number {
    return this.table.mappedPages;
  }

  /** Whether all DMA through the domain is forced to be cache coherent. */
  get coherencyEnforced(): boolean {
    return this.#coherencyEnforced;
  }

  /** NUMA node of the unit attached last; see {@link DomainNode} for when it is unset. */
  get unitNode(): number {
    return this.#node.node;
  }

  get nid(): number {
    const isCopied = this.#unitNodes === "report" || this.#unitNodes === "follow";
    return isCopied ? this.#node.node : 0;
  }

  /** How many places have to be told of an invalidation. */
  get tagCount(): number {
    return this.#tags.length;
  }

  /** Whether a unit can do what the domain needs. */
  suits(unit: TranslationUnit): boolean {
    if (!unit.walks(this.table.format.name)) return false;
    return unit.snoopControl || !this.#coherencyEnforced;
  }

  /**
   * Sends a device's DMA, or that of one of its PASIDs, through the domain.
   *
   * @param rid - requester: bus << 8 | devfn
   * @returns EINVAL when the unit cannot do what the domain needs, ENOSPC when it has no number
   *   left for the domain
   */
  attach(unit: TranslationUnit, rid: number, pasid: number = NO_PASID): number {
    const { table } = this;
    if (!this.suits(unit)) return Errno.EINVAL;
    const domainId = unit.domainIds.acquire(this);
    if (domainId < 0) return Errno.ENOSPC;
    const pasidTag = this.firstStage ? pasid : NO_PASID;
    const cachesAbsent = unit.cachingMode && !this.firstStage;
    const entry = unit.devices.ensure(rid);
    const before = unit.devices.attachmentOf(entry, pasid);
    assert(before?.kind !== "paged", "a device leaves its domain before it goes to another");
    this.#addTag(unit, domainId, -1, pasidTag);
    const attachment = { kind: "paged", table, domainId, pasidTag, cachesAbsent } as const;
    unit.devices.attach(rid, pasid, attachment);
    if (entry.ats !== null) this.#addTag(unit, domainId, rid, pasid);
    this.#node.attach(unit, rid, pasid === NO_PASID ? entry.node : null);
    this.#placeTables();
    return Errno.OK;
  }

  /** Ends {@link attach}: the device is blocked, and nothing stays cached. */
  detach(unit: TranslationUnit, rid: number, pasid: number = NO_PASID): void {
    unit.devices.attach(rid, pasid, pasid === NO_PASID ? { kind: "blocked" } : null);
    const pasidTag = this.firstStage ? pasid : NO_PASID;
    const tag = this.#tagOf(unit, -1, pasidTag);
    assert(tag !== null, "a device detached was attached");
    unit.invalidateDomain(tag.domainId, pasidTag);
    unit.invalidateDevice(rid, pasid, 0, PFN_LAST);
    unit.wait();
    this.#dropTag(tag);
    const deviceTag = this.#tagOf(unit, rid, pasid);
    if (deviceTag !== null) this.#dropTag(deviceTag);
    unit.domainIds.release(this);
    this.#node.detach(unit, rid, pasid !== NO_PASID);
    this.#placeTables();
  }

  /** Forces coherency from now on. @returns whether all units attached can do that */
  enforceCacheCoherency(): boolean {
    if (this.#tags.some((tag) => !tag.unit.snoopControl)) return false;
    this.#coherencyEnforced = true;
    return true;
  }

  map(iovaPfn: number, physPfn: number, pageShift: number, count: number, prot: number): number {
    const { table } = this;
    const errno =
      this.style === "range"
        ? table.map(iovaPfn, physPfn, count, prot)
        : table.mapPages(iovaPfn, physPfn, pageShift, count, prot);
    const { replaced } = table;
    if (!replaced.isEmpty) {
      this.#flush(replaced.startPfn, replaced.lastPfn, false);
      replaced.reset();
      table.freeTables(replaced.takeTables() ?? []);
    }
    return errno;
  }

  mapEach(iovaPfn: number, pfns: Float64Array, count: number, prot: number): number {
    const errno = this.table.mapEach(iovaPfn, pfns, count, prot);
    if (!this.#hasCachingMode) return errno;
    for (let done = 0; done < this.table.mappedPages; done += 1)
      this.iotlbSyncMap(iovaPfn + done, 1);
    return errno;
  }

  unmap(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    return this.style === "range"
      ? this.#unmapRange(iovaPfn, count, gather)
      : this.#unmapPages(iovaPfn, pageShift, count, gather);
  }

  iovaToPhys(iovaPfn: number): number {
    return this.table.iovaToPhys(iovaPfn);
  }

  get foundPages(): number {
    return this.table.foundPages;
  }

  iotlbSync(gather: IotlbGather): void {
    this.#flush(gather.startPfn, gather.lastPfn, gather.freelist === null);
  }

  iotlbSyncMap(iovaPfn: number, pages: number): number {
    if (!this.#hasCachingMode || this.firstStage || pages === 0) return Errno.OK;
    const lastPfn = iovaPfn + pages - 1;
    for (const tag of this.#tags) {
      if (tag.rid >= 0 || !tag.unit.cachingMode) continue;
      tag.unit.invalidateRange(tag.domainId, tag.pasid, iovaPfn, lastPfn, false);
      tag.unit.wait();
    }
    return Errno.OK;
  }

  flushIotlbAll(): void {
    this.#flush(0, PFN_LAST, false);
  }

  readDirty(
    iovaPfn: number,
    pages: number,
    isCleaning: boolean,
    report: (iovaPfn: number, pages: number) => void,
  ): number {
    return this.table.readDirty(iovaPfn, pages, isCleaning, report);
  }

  freeTables(tables: TableList): void {
    this.table.freeTables(tables);
  }

  /** Gives the page table back. Nothing may be attached. */
  destroy(): void {
    assert(this.#tags.length === 0, "nothing is attached to a domain destroyed");
    this.table.destroy();
  }

  #placeTables(): void {
    const moves = this.#unitNodes === "follow" || this.#unitNodes === "devices";
    if (moves) this.table.preferNode(this.#node.node);
  }

  #unmapRange(iovaPfn: number, pages: number, gather: IotlbGather): number {
    const cut = this.#cut;
    const unmapped = this.table.unmap(iovaPfn, pages, cut);
    if (unmapped > 0 && !gather.queued) {
      if (this.#noGaps && gather.isDisjoint(iovaPfn, unmapped)) this.#syncEarly(gather);
      gather.addRange(iovaPfn, unmapped);
    }
    // Tables join after an early sync, which frees what it finds and does not cover these.
    const tables = cut.takeTables();
    if (tables !== null) for (const pfn of tables) gather.addTable(pfn);
    return unmapped;
  }

  #unmapPages(iovaPfn: number, pageShift: number, count: number, gather: IotlbGather): number {
    const cut = this.#cut;
    const unmapped = this.table.unmapPages(iovaPfn, pageShift, count, cut);
    const tables = cut.takeTables();
    if (tables !== null) {
      // Arm's tables are flushed out of partial walks and freed at once, queued or not.
      const frames = count * FRAMES_OF_SHIFT[pageShift]!;
      this.#flush(iovaPfn, iovaPfn + frames - 1, false);
      this.table.freeTables(tables);
    }
    // What is gathered are leaves: a range of nothing but tables has been flushed.
    const cutFrames = this.table.cutBlocks * FRAMES_OF_SHIFT[pageShift]!;
    if (unmapped === cutFrames || gather.queued) return unmapped;
    const isOtherSize = gather.pageShift !== 0 && gather.pageShift !== pageShift;
    if (isOtherSize || gather.isDisjoint(iovaPfn, unmapped)) this.#syncEarly(gather);
    gather.pageShift = pageShift;
    gather.addRange(iovaPfn, unmapped);
    return unmapped;
  }

  #syncEarly(gather: IotlbGather): void {
    if (!gather.isEmpty) this.iotlbSync(gather);
    gather.reset();
    const tables = gather.takeTables();
    if (tables !== null) this.table.freeTables(tables);
  }

  /** Invalidates a range behind every tag and waits for each unit. */
  #flush(firstPfn: number, lastPfn: number, leafOnly: boolean): void {
    let unit: TranslationUnit | null = null;
    for (const tag of this.#tags) {
      if (unit !== null && tag.unit !== unit) unit.wait();
      unit = tag.unit;
      if (tag.rid >= 0) unit.invalidateDevice(tag.rid, tag.pasid, firstPfn, lastPfn);
      else unit.invalidateRange(tag.domainId, tag.pasid, firstPfn, lastPfn, leafOnly);
    }
    unit?.wait();
  }

  #tagOf(unit: TranslationUnit, rid: number, pasid: number): CacheTag | null {
    for (const tag of this.#tags) {
      if (tag.unit === unit && tag.rid === rid && tag.pasid === pasid) return tag;
    }
    return null;
  }

  #addTag(unit: TranslationUnit, domainId: number, rid: number, pasid: number): void {
    const known = this.#tagOf(unit, rid, pasid);
    if (known !== null) {
      known.users += 1;
      return;
    }
    // Tags of one unit stay together, so that a flush waits for it once.
    const after = this.#tags.findLastIndex((tag) => tag.unit === unit);
    const tag = { unit, domainId, rid, pasid, users: 1 };
    this.#tags.splice(after < 0 ? this.#tags.length : after + 1, 0, tag);
    this.#hasCachingMode = this.#tags.some((each) => each.unit.cachingMode);
  }

  #dropTag(tag: CacheTag): void {
    tag.users -= 1;
    if (tag.users > 0) return;
    this.#tags.splice(this.#tags.indexOf(tag), 1);
    this.#hasCachingMode = this.#tags.some((each) => each.unit.cachingMode);
  }
}
