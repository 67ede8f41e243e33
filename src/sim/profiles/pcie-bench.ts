/**
 * The two machines of pcie-bench whose IOMMU was measured: Broadwell (BDW) and Ivy Bridge (IVB), with
 * a Netronome NFP-6000 on PCIe gen3 x8.
 *
 * Source: R. Neugebauer and others, "Understanding PCIe performance for end host networking",
 * SIGCOMM 2018, and its data (github.com/pcie-bench/data).
 */
import { PriceList } from "../price-list.ts";
import type { WindowMachine } from "../workload/random-window.ts";

const paper = "pcie-bench, SIGCOMM 2018";
const PS = 1000;

/** Gen3 x8 after 128b/130b encoding. */
const BYTES_PER_SECOND = (8e9 * 8 * 128) / 130 / 8;
/** One way, with the device's and the root complex's queues; only the sum of a round trip counts. */
const WAY = 100 * PS;

/** A local read of memory by a walk. Source: Intel memory latency blog, 2014: 135 to 136 ns. */
const ENTRY_NS = 135;

/** Fitted on payload, BDW, writes of 128 bytes: 42.4 Gb/s are 24.15 ns, headers and bytes 19.3. */
const OVERHEAD = 38;
/** As roots of that time have it. */
const PAYLOAD = 256;

interface Fitted {
  readonly name: string;
  /** Round trip of a 64-byte read, of memory and of the last-level cache. */
  readonly roundTripNs: number;
  readonly warmNs: number;
  readonly missNs: number;
  readonly entries: number;
}

function machine({ name, roundTripNs, warmNs, missNs, entries }: Fitted): WindowMachine {
  const wires = Math.ceil((24 + 84 + OVERHEAD) * (1e12 / BYTES_PER_SECOND)) + 2 * WAY;
  return {
    prices: new PriceList([
      {
        step: "iotlbMiss",
        eachNs: missNs - ENTRY_NS,
        unitNs: 0,
        remoteUnitNs: 0,
        on: "walker",
        source: `${paper}: what a miss adds to a read, less the entry read`,
        fittedOn: `latency, ${name} 4K cold: windows of 1 MiB and 64 MiB`,
      },
      {
        step: "entryRead",
        eachNs: 0,
        unitNs: ENTRY_NS,
        // 194 to 202 ns from a node one hop away.
        remoteUnitNs: 63,
        on: "walker",
        source: "Intel memory latency blog, 2014: local 135-136 ns, one hop 194-202 ns",
        fittedOn: null,
      },
    ]),
    // One entry more than one access at a time leaves to the pages.
    iotlbEntries: entries + 1,
    // Enough for the 32 tables of 64 MiB; nothing in the data asks for less.
    pagingCache: { sets: 1, ways: 64, replacement: "lru" },
    // Read off the throughput of the windows of 64 MiB: 5 miss it by up to 22 %, 7 by 24 %.
    walkers: 6,
    up: { latency: WAY, bytesPerSecond: BYTES_PER_SECOND },
    down: { latency: WAY, bytesPerSecond: BYTES_PER_SECOND },
    // 63.5 M/s of reads that take 557 ns without an IOMMU (host-warm, 32.5 Gb/s): 35.4 in flight.
    reads: { inFlight: 36, gap: Math.round(1e6 / 54.5) },
    // Posted writes in the root complex; from 24 on their number does not matter.
    writes: { inFlight: 32, gap: Math.round(1e6 / 47.4) },
    memoryTime: roundTripNs * PS - wires,
    cacheTime: warmNs * PS - wires,
    // Fitted on latency, BDW none, host-warm, 64 MiB; the processor has 25 MiB.
    cacheBytes: 24.5 * 2 ** 20,
    packet: { payload: PAYLOAD, overhead: OVERHEAD },
  };
}

/** Xeon E5-2630v4. */
export const broadwell = machine({
  name: "BDW",
  roundTripNs: 610,
  warmNs: 557,
  missNs: 293,
  entries: 116,
});

/** Xeon E5-2620v2. */
export const ivyBridge = machine({
  name: "IVB",
  roundTripNs: 617,
  warmNs: 617,
  missNs: 300,
  entries: 126,
});
