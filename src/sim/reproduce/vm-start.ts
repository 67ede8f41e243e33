/**
 * Seed 5's figures: BARs of device memory mapped for DMA, by the page and without lookups.
 *
 * Published: 50.79 s and 1.57 s for the BARs of eight GPUs ("vfio: avoid unnecessary pin memory when
 * dma map io address space", October 2024); about 1 s for 32 GiB and 0.4 s for 16 GiB by the page
 * with the series that were merged.
 *
 * That the eight BARs have leaves of 4 KiB is our assumption: nothing that was published says so,
 * and nothing else of what both kernels do accounts for 3.9 ns a page. The row with MMIO_DONT_PIN
 * chose it, so it is no prediction, though its prices are of other machines. By the page, a kernel before
 * 6.12 also fills in the process's own table, an entry for each page, at the first lookup.
 */
import { followRules } from "../../vfio/process/mappable-device.ts";
import { barHost } from "../profiles/vm-start-hosts.ts";
import { runVmStart } from "../workload/vm-start.ts";
import { compareRow, type PublishedRow, type Reproduction } from "./table.ts";

const GIB = 2 ** 18;
const PS_PER_S = 1e12;

type Kernel = "linux-6.11" | "linux-6.12";

interface Row extends Pick<PublishedRow, "name" | "published" | "role" | "target"> {
  readonly kernel: Kernel;
  readonly count: number;
  readonly gib: number;
  readonly way: "follow" | "dont-pin";
  readonly deviceOffset: number;
}

// The letter knows nothing of huge_fault, which is of 6.12: its kernel is older.
const gpus = { kernel: "linux-6.11", count: 8, gib: 192, deviceOffset: 1 } as const;
// Here the process's table costs nothing: one has huge entries, and the other, of 2017, was filled
// by mmap.
const filled = { kernel: "linux-6.12", count: 1, way: "follow", deviceOffset: 0 } as const;
const one = { ...filled, role: "predicted", target: 0.25 } as const;

const rows: readonly Row[] = [
  { ...gpus, name: "8 x 192 GiB", way: "follow", published: 50.79, role: "fitted", target: null },
  {
    ...gpus,
    name: "8 x 192 GiB, MMIO_DONT_PIN",
    way: "dont-pin",
    published: 1.57,
    role: "fitted",
    target: 0.15,
  },
  { ...one, name: "32 GiB", gib: 32, published: 1 },
  { ...one, name: "16 GiB", gib: 16, published: 0.4 },
];

/** The table. */
export const vmStartTables: readonly Reproduction[] = [
  {
    id: "5-bars",
    title: "Device BARs mapped for DMA by type1",
    source: "vfio: avoid unnecessary pin memory when dma map io address space, 24 October 2024",
    run(progress) {
      return rows.map((each) => {
        const { name, published, role, target, count, gib, way, deviceOffset, kernel } = each;
        progress(`BARs: ${name}`);
        const rules = followRules[kernel];
        const bar = { count, pages: gib * GIB, way, rules, processOffset: 0, deviceOffset };
        const { mapTime } = runVmStart({ machine: barHost, bars: [bar], unmapMode: "extents" });
        const row = { name, unit: "s", published, role, errorKind: "relative", target } as const;
        return compareRow(row, mapTime / PS_PER_S);
      });
    },
  },
];
