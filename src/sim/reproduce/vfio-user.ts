/**
 * An NVMe device served over vfio-user: how requests grow with the CPUs that serve them.
 *
 * Published: spdk issue 3097, August 2023: NVMe over vfio-user, queue depth 128, two VMs to a CPU.
 */
import { runPolledDevice } from "../workload/polled-device.ts";
import { compareTable, type TableRow } from "./summary.ts";
import type { Reproduction } from "./table.ts";

const DEPTH = 128;

/** Millions of requests a second by CPUs. */
const published: readonly (readonly [cpus: number, millions: number])[] = [
  [1, 2.08],
  [2, 4.37],
  [6, 12.06],
  [10, 17.78],
];

/** What a CPU spends on a request: fitted on one CPU, which is busy all the time. */
const REQUEST_NS = 1000 / 2.08;

/** The table. */
export const vfioUserTables: readonly Reproduction[] = [
  {
    id: "vfio-user",
    title: "NVMe over vfio-user, two VMs to a CPU",
    source: "spdk issue 3097, August 2023",
    run(progress) {
      const rows = published.map(([cpus, millions]): TableRow => {
        const name = cpus === 1 ? "1 CPU, 2 VMs" : `${cpus} CPUs, ${2 * cpus} VMs`;
        return { name, published: millions, role: cpus === 1 ? "fitted" : "predicted" };
      });
      const ours = published.map(([cpus]) => {
        progress(`vfio-user: ${cpus} CPUs`);
        const run = { cpus, vms: 2 * cpus, depth: DEPTH, requestNs: REQUEST_NS };
        return runPolledDevice(run) / 1e6;
      });
      return compareTable({ unit: "M/s", resolution: 0.01 }, rows, ours);
    },
  },
];
