/**
 * The state of a type1 container: its mappings, its domains, and what it accounts for.
 *
 * The calls are functions over it, one file each: map.ts, unmap.ts, external-pins.ts, dirty.ts,
 * dma-access.ts, info.ts, and ioctl.ts for raw structures. Every call is made under one lock in the
 * kernel, so each runs to its end here.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: struct vfio_iommu, vfio_domain, vfio_iommu_group.
 */
import type { IommuDomain } from "../../iommu/domain.ts";
import { IotlbGather } from "../../iommu/gather.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import { type Meter, NULL_METER } from "../../meter.ts";
import { PAGE_SHIFT } from "../../units.ts";
import { createPinRun } from "../process/process-memory.ts";
import type { UserProcess } from "../process/user-process.ts";
import { AllowedRanges } from "./allowed-ranges.ts";
import type { DmaMapping } from "./mapping.ts";
import { MappingIndex } from "./mapping-index.ts";

/** Parameters of the module. */
export interface Type1Parameters {
  /** Most mappings of a container (dma_entry_limit). */
  readonly dmaEntryLimit: number;
  /** Whether pages are pinned and mapped one by one (disable_hugepages). */
  readonly disableHugepages: boolean;
  /** Whether groups whose interrupts can be forged are let in (allow_unsafe_interrupts). */
  readonly allowUnsafeInterrupts: boolean;
  /**
   * The proposal of 2021 for domains by NUMA node (attach_group_by_node), with the values that its
   * module parameter took; null for a kernel without it.
   */
  readonly attachGroupByNode: number | null;
}

/** What the parameters are when nobody sets them. */
export const TYPE1_DEFAULTS: Type1Parameters = {
  dmaEntryLimit: 65535,
  disableHugepages: false,
  allowUnsafeInterrupts: false,
  attachGroupByNode: null,
};

/** A group of the container. */
export interface Type1Group {
  readonly group: IommuGroup;
  /** Whether its devices only reach pages that were pinned for them (pinned_page_dirty_scope). */
  isPinnedScope: boolean;
}

/** A domain of the container, and the groups attached to it. */
export interface Type1Domain {
  readonly domain: IommuDomain;
  readonly groups: Type1Group[];
  /** Whether all DMA is forced to be cache coherent (enforce_cache_coherency). */
  readonly coherencyEnforced: boolean;
}

/** A mediated device that is told when memory it may have pinned is unmapped. */
export interface PinningDevice {
  /** Has to unpin all pages between, before it returns. */
  dmaUnmap(iovaPfn: number, pages: number): void;
}

/**
 * Who takes the place of static pinning once a container has been switched to I/O page faults.
 *
 * Source: "Add IOPF support for VFIO passthrough", RFC v3 of 2021, patches 5 and 6 of 8.
 */
export interface FaultingService {
  /** Whether ENABLE_IOPF has succeeded: from then on MAP_DMA pins nothing. */
  readonly isEnabled: boolean;

  /** VFIO_IOMMU_ENABLE_IOPF. @returns an errno, 0 on success; a failure changes nothing */
  enable(type1: Type1, process: UserProcess): number;

  /** A mapping was recorded; nothing of it is pinned. @returns ENOMEM to refuse it */
  mappingAdded(mapping: DmaMapping): number;

  /** A mapping goes away: unmaps from every domain what faults mapped of it. */
  mappingRemoved(mapping: DmaMapping): void;

  /** The memory behind a mapping is known again, perhaps elsewhere and of another process. */
  vaddrUpdated(mapping: DmaMapping): void;

  /** A group was attached to a domain. @returns an errno; a failure undoes the attach */
  groupAttached(domain: Type1Domain, group: Type1Group): number;

  /** A group is about to leave a domain. */
  groupDetached(domain: Type1Domain, group: Type1Group): void;
}

/**
 * How UNMAP_DMA learns which pages to unpin: from the runs kept (`extents`), or as the kernel does
 * by asking the first domain for each 4 KiB (`kernel`). The outcome is the same, the steps differ.
 */
export type UnmapMode = "extents" | "kernel";

/** What a container is made of. */
export interface Type1Options {
  /** Whether it is VFIO_TYPE1v2_IOMMU. */
  readonly isV2: boolean;
  readonly parameters?: Partial<Type1Parameters>;
  readonly meter?: Meter;
  readonly unmapMode?: UnmapMode;
  /** Whether the proposal of 2021 for MMIO without pinning is in the kernel. */
  readonly hasMmioDontPin?: boolean;
  readonly faulting?: FaultingService;
  /** Asked before memory for bookkeeping is taken; false is ENOMEM. */
  readonly allow?: (bytes: number) => boolean;
}

/** Runs that are unmapped before an invalidation has to complete (VFIO_IOMMU_TLB_SYNC_MAX). */
export const SYNC_RUNS_MAX = 512;

/** Every multiple of 4 KiB: what a container without a domain can map. */
export const ANY_PAGE_SIZE = 0xffff_ffff_ffff_f000n;

/** The state. */
export class Type1 {
  readonly isV2: boolean;
  readonly parameters: Type1Parameters;
  readonly meter: Meter;
  readonly unmapMode: UnmapMode;
  readonly hasMmioDontPin: boolean;
  readonly faulting: FaultingService | null;
  /** Asks for memory for bookkeeping. */
  readonly allow: (bytes: number) => boolean;
  readonly mappings: MappingIndex;
  /** The one made last in front; the first one is the record of what is mapped. */
  readonly domains: Type1Domain[] = [];
  /** Groups of mediated devices, which have no IOMMU domain. */
  readonly emulatedGroups: Type1Group[] = [];
  /** Mediated devices that may pin (device_list). */
  readonly devices: PinningDevice[] = [];
  allowed = new AllowedRanges();
  /** Mappings that may still be made. */
  dmaAvail: number;
  /** Mappings whose memory is moving. */
  vaddrInvalidCount = 0;
  /** Groups that may write anywhere in the mappings. */
  nonPinnedGroups = 0;
  isTrackingDirty = false;
  /** Reused by the calls. */
  readonly run = createPinRun();
  readonly gather = new IotlbGather();
  /** Frames of pages that lie apart, as many as a batch of GUP has; reused. */
  readonly frames = new Float64Array(512);
  /** Runs unmapped and not unpinned yet: first page, first frame and page count in turn. */
  readonly pendingRuns = new Float64Array(3 * SYNC_RUNS_MAX);
  #pageSizes = ANY_PAGE_SIZE;
  #pageFrames = 1;

  constructor(options: Type1Options) {
    this.isV2 = options.isV2;
    this.parameters = { ...TYPE1_DEFAULTS, ...options.parameters };
    this.meter = options.meter ?? NULL_METER;
    this.unmapMode = options.unmapMode ?? "extents";
    this.hasMmioDontPin = options.hasMmioDontPin ?? false;
    this.faulting = options.faulting ?? null;
    this.allow = options.allow ?? (() => true);
    this.mappings = new MappingIndex(this.allow);
    this.dmaAvail = this.parameters.dmaEntryLimit;
  }

  /** Bit for each page size that all domains can map; never below 4 KiB (pgsize_bitmap). */
  get pageSizes(): bigint {
    return this.#pageSizes;
  }

  set pageSizes(bitmap: bigint) {
    this.#pageSizes = bitmap;
    this.#pageFrames = Number((bitmap & -bitmap) >> BigInt(PAGE_SHIFT));
  }

  /** Frames of the smallest page size. */
  get pageFrames(): number {
    return this.#pageFrames;
  }

  /** Whether faults take the place of pinning. */
  get isFaulting(): boolean {
    return this.faulting?.isEnabled ?? false;
  }
}
