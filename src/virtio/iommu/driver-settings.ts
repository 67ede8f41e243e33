/**
 * Which virtio-iommu driver a simulated guest runs: as of Linux 7.2, as of the time of the
 * flush-queue proposal, or with its known flaws corrected.
 *
 * Source: drivers/iommu/virtio-iommu.c of Linux 7.2; "iommu/virtio: Use single flush queue", July
 * 2023, and the version of November 2023 that was merged.
 */

/** Flaws of the Linux driver that can be corrected one by one; each is off in every version. */
export interface DriverCorrections {
  /** A request that comes back with an unexpected used length fails with EIO (V23). */
  readonly usedLength: boolean;
  /** The status of a queued MAP is given by the next sync of its domain (V191). */
  readonly mapStatus: boolean;
  /** An ATTACH that fails leaves the old domain's endpoint count alone (V195). */
  readonly attachCount: boolean;
  /** A fault record shorter than 24 bytes is dropped (V121, V197). */
  readonly eventLength: boolean;
  /** A PROBE property with reserved type bits set is ignored (V102). */
  readonly propertyBits: boolean;
}

/** How the driver behaves. */
export interface DriverSettings {
  /** MAP is queued and paid for by `iotlb_sync_map`; else it is synchronous and gives its status. */
  readonly syncMap: boolean;
  /** IOMMU_CAP_DEFERRED_FLUSH and `flush_iotlb_all`: lazy mode is possible. */
  readonly deferredFlush: boolean;
  /** Asks for one large flush queue instead of one per CPU. */
  readonly shadowOnFlush: boolean;
  /** `iotlb_sync` does nothing for a domain without endpoints, as the two other hooks do. */
  readonly guardIotlbSync: boolean;
  /** How often the driver looks for a completion before it takes the device for dead. */
  readonly pollsMax: number;
  /** Largest properties area it allocates a buffer for, in bytes. */
  readonly probeBytesMax: number;
  /** Most reserved regions it takes from one endpoint. */
  readonly regionsMax: number;
  /** Reads the proposed PLACEMENT property of PROBE; no Linux does. */
  readonly readsPlacement: boolean;
  readonly corrections: DriverCorrections;
}

const NO_CORRECTIONS: DriverCorrections = {
  usedLength: false,
  mapStatus: false,
  attachCount: false,
  eventLength: false,
  propertyBits: false,
};

/** Every correction switched on. */
export const ALL_CORRECTIONS: DriverCorrections = {
  usedLength: true,
  mapStatus: true,
  attachCount: true,
  eventLength: true,
  propertyBits: true,
};

/** The driver of Linux 7.2. */
export const LINUX_7_2: DriverSettings = {
  syncMap: true,
  deferredFlush: true,
  shadowOnFlush: false,
  guardIotlbSync: false,
  pollsMax: 1_000_000,
  probeBytesMax: 65_536,
  regionsMax: 1024,
  readsPlacement: false,
  corrections: NO_CORRECTIONS,
};

/** The driver of Linux 6.4, before the flush-queue work: synchronous MAP, strict mode only. */
export const LINUX_6_4: DriverSettings = { ...LINUX_7_2, syncMap: false, deferredFlush: false };

/** The driver of the proposal of July 2023: a single flush queue, every hook guarded. */
export const PROPOSAL_2023: DriverSettings = {
  ...LINUX_7_2,
  shadowOnFlush: true,
  guardIotlbSync: true,
};
