/**
 * Seed 3's table: what I/O page faults cost an accelerator in a VM and on a process's address space.
 *
 * Published: S. Lu, "Add IOPF support for VFIO passthrough", RFC v3, 9 April 2021; speeds in v2, 9
 * March 2021 (20210309062207.505-1).
 */
import { passedAccelerator, sharedAccelerator } from "../profiles/kunpeng-accelerator.ts";
import { type AcceleratorMachine, runAccelerator } from "../workload/accelerator-run.ts";
import { compareTable, type TableRow } from "./summary.ts";
import { compareRow, type PublishedRow, type Reproduction } from "./table.ts";

interface Row {
  readonly machine: AcceleratorMachine;
  readonly megabytes: number;
  readonly premap: number;
  readonly times: number;
  readonly slowdown: number;
  readonly faults: number;
  /** The slow-down of the row set a price, or chose a whole number and is still held to. */
  readonly use: "price" | "choice" | "none";
  /** Largest error of its count, as a share. */
  readonly countTarget: number;
}

const MIB = 2 ** 20;

function row(
  machine: AcceleratorMachine,
  message: readonly [megabytes: number, premap: number],
  times: number,
  published: readonly [slowdown: number, faults: number],
  countTarget = 0,
  use: Row["use"] = "none",
): Row {
  const [megabytes, premap] = message;
  const [slowdown, faults] = published;
  return { machine, megabytes, premap, times, slowdown, faults, countTarget, use };
}

const rows: readonly Row[] = [
  row(sharedAccelerator, [1, 1], 1, [82.8, 512], 0, "price"),
  row(sharedAccelerator, [1, 1], 100, [47.9, 1024]),
  row(sharedAccelerator, [1, 1], 1000, [8.5, 1024]),
  row(passedAccelerator, [1, 1], 1, [63.4, 518], 0.04, "price"),
  // How many of its faults are side by side.
  row(passedAccelerator, [1, 1], 100, [22.9, 1058], 0.04, "choice"),
  row(passedAccelerator, [1, 1], 1000, [2.6, 1071], 0.04),
  row(passedAccelerator, [10, 512], 1, [32.6, 13]),
  row(passedAccelerator, [10, 512], 100, [3.5, 26]),
  row(passedAccelerator, [10, 512], 1000, [1.6, 26]),
];

function nameOf({ machine, megabytes, times }: Row): string {
  const path = machine.kind === "sva" ? "host SVA" : "VFIO";
  return `${path}, ${megabytes} MB x${times}`;
}

function run(each: Row, isFaulting: boolean) {
  const { machine, megabytes, premap, times } = each;
  return runAccelerator({ machine, messageBytes: megabytes * MIB, times, premap, isFaulting });
}

const source = "S. Lu, RFC v3 Add IOPF support for VFIO passthrough, 9 April 2021";

/** KB/s without and with faults, and the count, of the second version of the series. */
const speeds: readonly (readonly [times: number, vfio: Speeds, shared: Speeds])[] = [
  [1, [325_596, 119_152, 518], [951_672, 163_866, 512]],
  [100, [7_524_985, 5_804_659, 1058], [8_691_961, 4_529_971, 1024]],
  [1000, [8_661_817, 8_440_209, 1071], [9_158_721, 8_376_346, 1024]],
];

type Speeds = readonly [without: number, withFaults: number, faults: number];

/**
 * Speed and start-up of the host, and its report, are those of these rows; so is the VM's start, and
 * how many of its faults are side by side.
 */
function isFittedSpeed({ kind }: AcceleratorMachine, times: number, isFaulting: boolean): boolean {
  if (kind === "vfio" && isFaulting && times === 100) return true;
  return times === 1 || (kind === "sva" && !isFaulting && times === 1000);
}

const speedTable: Reproduction = {
  id: "3-speed",
  title: "I/O page faults of an accelerator: speed, one page mapped by a fault",
  source: "S. Lu, v2 Add IOPF support for VFIO passthrough, 9 March 2021",
  run(progress) {
    const table: TableRow[] = [];
    const ours: number[] = [];
    for (const [times, ...published] of speeds) {
      for (const [at, machine] of [passedAccelerator, sharedAccelerator].entries()) {
        const each = row(machine, [1, 1], times, [0, 0]);
        for (const isFaulting of [false, true]) {
          const name = `${nameOf(each)}, ${isFaulting ? "with" : "without"} faults`;
          progress(`I/O page faults, speed: ${name}`);
          const role = isFittedSpeed(machine, times, isFaulting) ? "fitted" : "predicted";
          table.push({ name, published: published[at]![isFaulting ? 1 : 0], role });
          ours.push((times * 1024 * 1e12) / run(each, isFaulting).time);
        }
      }
    }
    return compareTable({ unit: "KB/s", resolution: 1 }, table, ours);
  },
};

/** The slow-downs and the counts. */
export const ioPageFaultTables: readonly Reproduction[] = [
  {
    id: "3-slowdown",
    title: "I/O page faults of an accelerator: loss of speed",
    source,
    run: (progress) =>
      rows.map((each) => {
        const name = nameOf(each);
        progress(`I/O page faults: ${name}`);
        const without = run(each, false).time;
        const withFaults = run(each, true).time;
        const role: PublishedRow["role"] = each.use === "none" ? "predicted" : "fitted";
        const target = each.use === "price" ? null : 2;
        const published = each.slowdown;
        const ours = 100 * (1 - without / withFaults);
        return compareRow({ name, unit: "%", published, role, errorKind: "points", target }, ours);
      }),
  },
  {
    id: "3-faults",
    title: "I/O page faults of an accelerator: faults",
    source,
    run: (progress) =>
      rows.map((each) => {
        const name = nameOf(each);
        progress(`I/O page faults, counted: ${name}`);
        // The buffers are geometry; the first rows of the VM set that of its queue.
        const isGeometry = each.machine === passedAccelerator && each.times === 1;
        const role: PublishedRow["role"] = isGeometry ? "fitted" : "predicted";
        const { faults: published, countTarget: target } = each;
        const { faults } = run({ ...each, times: Math.min(each.times, 4) }, true);
        const base = { name, unit: "faults", published, role, target } as const;
        return compareRow({ ...base, errorKind: "relative" }, faults);
      }),
  },
];

/** The speeds of the second version, of which the slow-downs of the third are quotients. */
export const faultSpeedTables: readonly Reproduction[] = [speedTable];
