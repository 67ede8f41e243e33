/**
 * An NVMe disk on a server with VT-d: does translation cost it anything?
 *
 * Published: github.com/zhzh2001/nvme-iommu, CloudLab c6620, Linux 7.0; fio with io_uring, 4 jobs of
 * depth 128.
 */
import { policyNamed } from "../../dma/policy.ts";
import { assert } from "../../errors.ts";
import { machineOf } from "../profiles/machine-profile.ts";
import { twoNodeServer } from "../profiles/two-node-server.ts";
import { fioJobs } from "../workload/fio-job.ts";
import { runFio } from "../workload/fio-run.ts";
import { compareTable, type TableRow } from "./summary.ts";
import type { Reproduction } from "./table.ts";

const SEED = 1;
const WINDOWS = 200;

interface Workload {
  readonly name: string;
  readonly job: string;
  readonly unit: string;
  /** What one request counts for in the unit. */
  readonly scale: number;
  readonly windowPs: number;
  /** Published: passthrough, lazy, strict. */
  readonly published: readonly [number, number, number];
  /** The largest of the deviations of ten runs that were published with them. */
  readonly deviation: number;
  readonly passthrough: TableRow["role"];
}

const MB = 131_072 / 1e6;

const workloads: readonly Workload[] = [
  {
    name: "4 KiB random reads",
    job: "rw=randread\nbs=4k",
    unit: "requests/s",
    scale: 1,
    windowPs: 2e8,
    published: [567_910, 568_638, 554_423],
    deviation: 782,
    passthrough: "fitted",
  },
  {
    name: "4 KiB random writes",
    job: "rw=randwrite\nbs=4k",
    unit: "requests/s",
    scale: 1,
    windowPs: 3e8,
    published: [348_138, 351_704, 349_570],
    deviation: 5474,
    passthrough: "fitted",
  },
  {
    name: "128 KiB sequential reads",
    job: "rw=read\nbs=128k",
    unit: "MB/s",
    scale: MB,
    windowPs: 2e9,
    published: [2200.2, 2185, 2188.9],
    deviation: 5.6,
    passthrough: "predicted",
  },
  {
    name: "128 KiB sequential writes",
    job: "rw=write\nbs=128k",
    unit: "MB/s",
    scale: MB,
    windowPs: 3e9,
    published: [1369.7, 1371.1, 1372.4],
    deviation: 14.9,
    passthrough: "predicted",
  },
];

const policies = ["passthrough", "lazy-mq", "strict"] as const;

function measure({ job, scale, windowPs }: Workload, name: string): number | null {
  const policy = policyNamed(name);
  assert(policy !== undefined, "the policy exists");
  const text = `[job]\nioengine=io_uring\ndirect=1\nnumjobs=4\niodepth=128\nsize=1g\n${job}\n`;
  const jobs = fioJobs(text, "job file").groups[0]!;
  const machine = machineOf(twoNodeServer);
  const { requests } = runFio({ jobs, machine, policy, seed: SEED, windows: WINDOWS, windowPs });
  return requests.kind === "steady" ? requests.mean * scale : null;
}

/** A table for each workload: their units differ. */
export const nvmeServerTables: readonly Reproduction[] = workloads.map((workload, index) => ({
  id: `nvme-server-${index + 1}`,
  title: `NVMe behind VT-d, 4 jobs of depth 128: ${workload.name}`,
  source: "github.com/zhzh2001/nvme-iommu, CloudLab c6620, Linux 7.0",
  run(progress) {
    const { name, unit, published, deviation, passthrough } = workload;
    const rows = policies.map((policy, at): TableRow => {
      const role = at === 0 ? passthrough : "predicted";
      return { name: policy, published: published[at]!, role };
    });
    const ours = policies.map((policy) => {
      progress(`NVMe behind VT-d, ${name}: ${policy}`);
      return measure(workload, policy);
    });
    return compareTable({ unit, resolution: 2 * deviation }, rows, ours);
  },
}));
