/**
 * A Kunpeng 920 server with 96 CPUs in two packages and one SMMUv3 on the first.
 *
 * Source of what was fitted: B. Song, 25 May 2020, B926444035E5E2439431908E3842AFD24B86DB, the row of
 * one thread: 1956 ns for an unmap, of which 1328 issue its commands, of which 883 wait for
 * CMD_SYNC. Distances are from his later messages.
 */
import { OWN_CPU, type Price, PriceList } from "../price-list.ts";
import type { MappingMachine } from "../workload/mapping-threads.ts";
import { iovaPrices } from "./iova-prices.ts";
import { tablesThread } from "./kernel-tables.ts";

const thread = "B. Song, 25 May 2020";
const QUEUE = "command queue";

const UNMAP_NS = 1956;
const ISSUE_NS = 1328;
const SYNC_NS = 883;
/** CMD_SYNC on an empty queue, for a CPU of its package and of another. */
const NEAR_SYNC_NS = 300;
const FAR_SYNC_NS = 800;

const IOVA_NS = iovaPrices.find(({ step }) => step === "iovaCacheFree")!.eachNs;
/** A call of iommu_map as measured on x86. */
const MAP_NS = 55;

function price(step: Price["step"], on: string, eachNs: number, source: string): Price {
  const fittedOn = on === OWN_CPU && step === "domainUnmap" ? "1 thread" : null;
  return { step, on, eachNs, unitNs: 0, remoteUnitNs: 0, source, fittedOn };
}

export const kunpengServer: MappingMachine = {
  prices: new PriceList([
    ...iovaPrices,
    price("domainMap", OWN_CPU, MAP_NS, `${tablesThread}: VT-d, map, 2^12, new`),
    {
      ...price(
        "domainUnmap",
        OWN_CPU,
        UNMAP_NS - ISSUE_NS + (SYNC_NS - NEAR_SYNC_NS) - IOVA_NS,
        `${thread}: an unmap less its commands, and of the wait what is not the queue's`,
      ),
    },
    {
      ...price("invalidateRange", QUEUE, ISSUE_NS - SYNC_NS, `${thread}: commands less CMD_SYNC`),
      fittedOn: "1 thread",
    },
    {
      ...price(
        "invalidateWait",
        QUEUE,
        NEAR_SYNC_NS,
        "B. Song, 20200531-0731: caller on its package 300 ns, on another 800 ns",
      ),
      remoteUnitNs: FAR_SYNC_NS - NEAR_SYNC_NS,
    },
  ]),
  // Two packages of 48.
  nodeOfCpu: Array.from({ length: 96 }, (_, cpu) => Math.floor(cpu / 48)),
  // M. Lei, YOgK8fdv7dOQtkET@T590: memcpy on an Arm server, 11.5 GB/s.
  copyNs: 4096 / 11.5,
};
