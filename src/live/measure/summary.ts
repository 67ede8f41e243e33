/**
 * Makes samples into a result: medians, relations to identity, counts for each I/O, and what a sync
 * costs, fitted over all samples of a job.
 *
 * The model of the fit is time per I/O = base + cost × syncs per I/O; with identity, lazy and strict
 * as three points of syncs per I/O (least squares over all rounds).
 */
import { assert } from "../../errors.ts";
import type { FioFigures } from "./fio-result.ts";
import { type Mode, modes } from "./plan.ts";

/** What was counted on the device's side during a run. */
export interface Counts {
  readonly maps: number;
  readonly unmaps: number;
  /** Doorbells of the virtio-iommu's request queue: messages, or changes of its page. */
  readonly kicks: number;
  /** Batches of requests: the guest's processor spins until each is done. */
  readonly syncs: number;
  /** Messages from QEMU about all devices. */
  readonly messages: number;
  readonly interrupts: number;
}

/** One run. */
export interface Sample {
  readonly disk: string;
  readonly kind: "virtio-blk" | "nvme";
  readonly mode: Mode;
  readonly job: string;
  readonly round: number;
  readonly fio: FioFigures;
  readonly counts: Counts;
}

/** All runs of a disk, a job and a mode. */
export interface Row {
  readonly disk: string;
  readonly kind: "virtio-blk" | "nvme";
  readonly job: string;
  readonly mode: Mode;
  readonly rounds: number;
  /** Medians over the rounds. */
  readonly bytesPerSecond: number;
  readonly latencyNsMean: number;
  readonly latencyNsP99: number;
  /** Quotients to identity: medians over quotients within a round. */
  readonly bandwidthRelative: number;
  readonly latencyRelative: number;
  /** Smallest and largest of those quotients. */
  readonly bandwidthSpread: readonly [number, number];
  readonly latencySpread: readonly [number, number];
  /** Per I/O, over all rounds. */
  readonly perIo: Counts;
}

/** What a sync costs. */
export interface Fit {
  readonly disk: string;
  readonly job: string;
  /** Nanoseconds. */
  readonly baseNs: number;
  readonly syncNs: number;
  /** Share of the variance that the model explains. */
  readonly determination: number;
}

/** A whole measurement. */
export interface Measurement {
  readonly rows: readonly Row[];
  readonly fits: readonly Fit[];
}

/** The middle value; of an even number the mean of the two. */
export function median(values: readonly number[]): number {
  assert(values.length > 0, "a median is of something");
  const sorted = [...values].sort((a, b) => a - b);
  const half = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
}

/** Summarizes samples; disks and jobs in the order in which they first appear. */
export function summarize(samples: readonly Sample[]): Measurement {
  const keys = [...new Set(samples.map(({ disk, job }) => JSON.stringify([disk, job])))];
  const rows: Row[] = [];
  const fits: Fit[] = [];
  for (const key of keys) {
    const [disk, job] = JSON.parse(key) as [string, string];
    const mine = samples.filter((sample) => sample.disk === disk && sample.job === job);
    for (const mode of modes) {
      const some = mine.filter((sample) => sample.mode === mode);
      if (some.length > 0) rows.push(rowOf(some, mine));
    }
    const fit = fitOf(mine);
    if (fit !== null) fits.push({ disk, job, ...fit });
  }
  return { rows, fits };
}

function rowOf(some: readonly Sample[], all: readonly Sample[]): Row {
  const { disk, kind, job, mode } = some[0]!;
  const quotients = (value: (fio: FioFigures) => number) =>
    some.flatMap((sample) => {
      const base = all.find((one) => one.mode === "identity" && one.round === sample.round);
      return base === undefined ? [] : [value(sample.fio) / value(base.fio)];
    });
  const bandwidths = quotients(({ bytesPerSecond }) => bytesPerSecond);
  const latencies = quotients(({ latencyNsMean }) => latencyNsMean);
  const medianOf = (value: (fio: FioFigures) => number) =>
    median(some.map(({ fio }) => value(fio)));
  return {
    disk,
    kind,
    job,
    mode,
    rounds: some.length,
    bytesPerSecond: medianOf((fio) => fio.bytesPerSecond),
    latencyNsMean: medianOf((fio) => fio.latencyNsMean),
    latencyNsP99: medianOf((fio) => fio.latencyNsP99),
    bandwidthRelative: bandwidths.length === 0 ? Number.NaN : median(bandwidths),
    latencyRelative: latencies.length === 0 ? Number.NaN : median(latencies),
    bandwidthSpread: [Math.min(...bandwidths), Math.max(...bandwidths)],
    latencySpread: [Math.min(...latencies), Math.max(...latencies)],
    perIo: perIoOf(some),
  };
}

function perIoOf(some: readonly Sample[]): Counts {
  const ios = some.reduce((sum, { fio }) => sum + fio.ios, 0);
  const per = (key: keyof Counts) => some.reduce((sum, { counts }) => sum + counts[key], 0) / ios;
  return {
    maps: per("maps"),
    unmaps: per("unmaps"),
    kicks: per("kicks"),
    syncs: per("syncs"),
    messages: per("messages"),
    interrupts: per("interrupts"),
  };
}

function fitOf(samples: readonly Sample[]): Omit<Fit, "disk" | "job"> | null {
  const points = samples.map(({ fio, counts }) => ({
    syncs: counts.syncs / fio.ios,
    ns: 1e9 / fio.iops,
  }));
  const mean = (value: (point: (typeof points)[number]) => number) =>
    points.reduce((sum, point) => sum + value(point), 0) / points.length;
  const syncsMean = mean(({ syncs }) => syncs);
  const nsMean = mean(({ ns }) => ns);
  const variance = mean(({ syncs }) => (syncs - syncsMean) ** 2);
  // Nothing to fit when no mode syncs more than another.
  if (points.length < 3 || variance < 1e-6) return null;
  const covariance = mean(({ syncs, ns }) => (syncs - syncsMean) * (ns - nsMean));
  const syncNs = covariance / variance;
  const spread = mean(({ ns }) => (ns - nsMean) ** 2);
  return {
    baseNs: nsMean - syncNs * syncsMean,
    syncNs,
    determination: spread === 0 ? 1 : (covariance * covariance) / (variance * spread),
  };
}
