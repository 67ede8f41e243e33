/**
 * Seed 5's figures: BARs of device memory mapped for DMA, by the page and without lookups.
 *
 * Published: 50.79 s and 1.57 s for the BARs of eight GPUs ("vfio: avoid unnecessary pin memory when
 * dma map io address space", October 2024); about 1 s for 32 GiB and 0.4 s for 16 GiB by the page
 * with the series that were merged.
 *
 * That the eight BARs have leaves of 4 KiB is our assumption: nothing that was published says so,
 * and nothing else of what both kernels do accounts for 3.9 ns a page.
 */
import { followRules } from "../../vfio/process/mappable-device.ts";
import { barHost } from "../profiles/vm-start-hosts.ts";
import { runVmStart } from "../workload/vm-start.ts";
import { compareRow, type PublishedRow, type Reproduction } from "./table.ts";

const GIB = 2 ** 18;
const PS_PER_S = 1e12;

interface Row extends Pick<PublishedRow, "name" | "published" | "role" | "target"> {
  readonly count: number;
  readonly gib: number;
  readonly way: "follow" | "dont-pin";
  readonly deviceOffset: number;
}

const gpus = { count: 8, gib: 192, deviceOffset: 1 };
const one = { count: 1, way: "follow", deviceOffset: 0, role: "predicted", target: 0.25 } as const;

const rows: readonly Row[] = [
  { ...gpus, name: "8 x 192 GiB", way: "follow", published: 50.79, role: "fitted", target: null },
  {
    ...gpus,
    name: "8 x 192 GiB, MMIO_DONT_PIN",
    way: "dont-pin",
    published: 1.57,
    role: "predicted",
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
      return rows.map(({ name, published, role, target, count, gib, way, deviceOffset }) => {
        progress(`BARs: ${name}`);
        const rules = followRules["linux-6.12"];
        const bar = { count, pages: gib * GIB, way, rules, processOffset: 0, deviceOffset };
        const { mapTime } = runVmStart({ machine: barHost, bars: [bar], unmapMode: "extents" });
        const row = { name, unit: "s", published, role, errorKind: "relative", target } as const;
        return compareRow(row, mapTime / PS_PER_S);
      });
    },
  },
];
