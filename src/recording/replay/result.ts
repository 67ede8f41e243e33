/** What a replay says: plain data, one object a policy. `null` is what a recording cannot tell. */

/** The kinds of IOMMU that a replay can run on. */
export const iommuKinds = ["virtio", "hardware"] as const;
export type IommuKind = (typeof iommuKinds)[number];

/** Whole numbers seen often, summed up. */
export interface Spread {
  readonly mean: number | null;
  readonly p50: number | null;
  readonly p90: number | null;
  readonly p99: number | null;
  readonly max: number | null;
}

/** Commands that the driver sent. virtio: requests; hardware: map and unmap calls. */
export interface RequestCounts {
  readonly map: number;
  readonly unmap: number;
  /** Notifications of the device: virtqueue kicks; `null` where there is no virtqueue. */
  readonly kicks: number | null;
  /** Times that a CPU waited for completion: of requests, or of invalidations. */
  readonly syncs: number;
  readonly syncsPerUnmap: number | null;
  readonly kicksPerUnmap: number | null;
  /** Requests that one sync waited for. */
  readonly batch: Spread;
}

/** Invalidations of the IOTLB. */
export interface InvalidationCounts {
  readonly range: number;
  readonly domain: number;
  readonly global: number;
}

/** What the flush queues did. */
export interface FlushCounts {
  readonly queued: number;
  /** Flushes because a queue was full; unknown without time, as the timer would empty it earlier. */
  readonly full: number | null;
  /** Flushes because the timer expired; unknown without time. */
  readonly timer: number | null;
}

/** What the IOVA allocator did. */
export interface IovaCounts {
  readonly allocations: number;
  readonly cacheHits: number;
  readonly cacheHitShare: number | null;
  readonly treeSearches: number;
  /** Gaps looked at in all searches. */
  readonly treeSteps: number;
  /** Most bytes below 4 GiB that were mapped, cached or waiting in a flush queue at once. */
  readonly below4GiBPeakBytes: number;
  /** Allocations that had to leave the 32-bit space. */
  readonly above4GiB: number;
  /** Allocations or mappings that failed. */
  readonly failed: number;
}

/** Page-table memory; level 1 maps 4 KiB pages. */
export interface TableCounts {
  /** Most pages in use at once, by level from 1. */
  readonly pagesByLevel: readonly number[];
  readonly peakBytes: number;
  /** Entries written. */
  readonly entryWrites: number;
}

/** Memory that was unmapped and that the device could still reach: see exposure.ts. */
export interface ExposureCounts {
  /** Unmaps that left memory reachable. */
  readonly unmaps: number;
  readonly peakBytes: number;
  /** Mean over the recording's time; unknown without time. */
  readonly meanBytes: number | null;
  /** Mean and longest time, over the unmaps that left memory reachable. */
  readonly meanNs: number | null;
  readonly longestNs: number | null;
}

/** One policy's outcome. `null` groups do not apply: nothing is mapped, or there are no tables. */
export interface PolicyResult {
  readonly policy: string;
  readonly requests: RequestCounts;
  readonly invalidations: InvalidationCounts | null;
  readonly flushes: FlushCounts | null;
  readonly iova: IovaCounts | null;
  readonly tables: TableCounts | null;
  /** `null` for passthrough: all memory is reachable always. */
  readonly exposure: ExposureCounts | null;
  /** What the policy buys and risks for this recording. */
  readonly verdict: string;
}

/** What was taken out of the recording. */
export interface WorkloadFacts {
  readonly lines: number;
  readonly events: number;
  /** First to last event; unknown when the recording has no time. */
  readonly durationNs: number | null;
  /** CPUs that the events name; unknown when the recording names none. */
  readonly cpus: number | null;
  readonly mapEvents: number;
  readonly unmapEvents: number;
  readonly allocations: number;
  readonly frees: number;
  /** Mappings from before the recording, seen when they were unmapped. */
  readonly inferred: number;
  readonly liveAtEnd: number;
  readonly peakLiveBytes: number;
  readonly bytesMean: number | null;
  /** Allocations made of more than one physically contiguous piece. */
  readonly scattered: number;
  readonly lostEvents: number;
  readonly lostMarkers: number;
}

/** One recording, replayed. */
export interface RecordingReplay {
  readonly file: string;
  readonly kind: string;
  readonly iommu: IommuKind;
  readonly workload: WorkloadFacts;
  readonly policies: readonly PolicyResult[];
}
