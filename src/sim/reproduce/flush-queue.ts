/**
 * Seed 2's tables: what strict, lazy and batched syncs cost a disk behind a virtio-iommu.
 *
 * Published: linux-iommu list, "[RFC] iommu/virtio: Use single flush queue", answer of 2 August
 * 2023, with the job file below.
 */
import { policyNamed } from "../../dma/policy.ts";
import { assert } from "../../errors.ts";
import { flushQueueGuest, flushQueueHost } from "../profiles/flush-queue-desktop.ts";
import { fioJobs } from "../workload/fio-job.ts";
import { type FioResult, runFio } from "../workload/fio-run.ts";
import { compareRow, type PublishedRow, type ReproducedRow, type Reproduction } from "./table.ts";

/** The job file of the comparison, as posted. */
export const FLUSH_QUEUE_JOBS = `[global]
filename=/dev/nvme0n1
runtime=10
ioengine=libaio
direct=1
time_based

[randwrite_multi]
group_reporting
rw=randwrite
numjobs=16
iodepth=16
bs=64k
size=1G

[randrw_page]
rw=randrw
rwmixread=50
rwmixwrite=50
iodepth=128
bs=4k
size=1G
`;

const WINDOWS = 200;
const SEED = 1;

interface Row {
  readonly name: string;
  readonly policy: string;
  readonly published: number;
  readonly role: PublishedRow["role"];
}

export const publishedBandwidth: readonly Row[] = [
  { name: "host", policy: "host", published: 100, role: "fitted" },
  { name: "noviommu", policy: "passthrough", published: 99.9, role: "predicted" },
  { name: "lazy sq +map", policy: "lazy-sq+map", published: 99.9, role: "predicted" },
  { name: "lazy mq +map", policy: "lazy-mq+map", published: 99.9, role: "predicted" },
  { name: "lazy sq", policy: "lazy-sq", published: 92.2, role: "fitted" },
  { name: "lazy mq", policy: "lazy-mq", published: 91.5, role: "predicted" },
  { name: "strict +map", policy: "strict+map", published: 92.7, role: "fitted" },
  { name: "strict", policy: "strict", published: 81.3, role: "fitted" },
];

export const publishedLatency: readonly Row[] = [
  { name: "host", policy: "host", published: 1, role: "fitted" },
  { name: "noviommu", policy: "passthrough", published: 1.23, role: "fitted" },
  { name: "lazy sq +map", policy: "lazy-sq+map", published: 7.09, role: "predicted" },
  { name: "lazy mq +map", policy: "lazy-mq+map", published: 7.07, role: "predicted" },
  { name: "lazy sq", policy: "lazy-sq", published: 7.15, role: "fitted" },
  { name: "lazy mq", policy: "lazy-mq", published: 7.11, role: "predicted" },
  { name: "strict +map", policy: "strict+map", published: 8.82, role: "predicted" },
  { name: "strict", policy: "strict", published: 8.82, role: "fitted" },
];

function simulate(job: string, policy: string, windowPs: number): FioResult {
  const jobs = fioJobs(FLUSH_QUEUE_JOBS, "job file", [job]).groups[0]!;
  const isHost = policy === "host";
  const named = policyNamed(isHost ? "passthrough" : policy);
  assert(named !== undefined, "the policy exists");
  return runFio({
    jobs,
    machine: isHost ? flushQueueHost : flushQueueGuest,
    policy: named,
    seed: SEED,
    windows: WINDOWS,
    windowPs,
  });
}

function reproduction(parts: {
  id: string;
  title: string;
  job: string;
  unit: string;
  rows: readonly Row[];
  windowPs: number;
  errorKind: PublishedRow["errorKind"];
  target: number;
  measure: (result: FioResult) => number | null;
  scale: number;
}): Reproduction {
  const { id, title, job, unit, rows, windowPs, errorKind, target, measure, scale } = parts;
  return {
    id,
    title,
    source: "linux-iommu, RFC iommu/virtio: Use single flush queue, 2 August 2023",
    run(progress): ReproducedRow[] {
      let base: number | null = null;
      return rows.map(({ name, policy, published, role }) => {
        progress(`${title}: ${name}`);
        const value = measure(simulate(job, policy, windowPs));
        base ??= value;
        const ours = value === null || base === null ? null : (value / base) * scale;
        const goal = role === "fitted" ? null : target;
        return compareRow({ name, unit, published, role, errorKind, target: goal }, ours);
      });
    },
  };
}

/** Both tables. */
export const flushQueueTables: readonly Reproduction[] = [
  reproduction({
    id: "2-bandwidth",
    title: "virtio-iommu, 16 jobs writing 64 KiB at depth 16: bandwidth",
    job: "randwrite_multi",
    unit: "% of host",
    rows: publishedBandwidth,
    windowPs: 5e9,
    errorKind: "points",
    target: 1.5,
    measure: ({ requests }) => (requests.kind === "steady" ? requests.mean : null),
    scale: 100,
  }),
  reproduction({
    id: "2-latency",
    title: "virtio-iommu, one job of 4 KiB reads and writes at depth 128: latency",
    job: "randrw_page",
    unit: "x host",
    rows: publishedLatency,
    windowPs: 4e9,
    errorKind: "relative",
    target: 0.03,
    measure: ({ requests, latency: histogram }) =>
      requests.kind === "steady" ? histogram.mean : null,
    scale: 1,
  }),
];
