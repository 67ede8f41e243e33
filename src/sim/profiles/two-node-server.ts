/**
 * A server of two nodes with 16 CPUs each, an NVMe disk and a VT-d unit on node 0, without a guest.
 *
 * Nobody's machine: each figure is from a published measurement of some server, named beside it.
 */
import type { Price } from "../price-list.ts";
import { iovaPrices } from "./iova-prices.ts";
import type { MachineProfile } from "./machine-profile.ts";

/** Descriptors are taken one after the other, whoever sent them. */
const QUEUE = "invalidation queue";

function price(parts: Partial<Price> & Pick<Price, "step" | "on" | "source">): Price {
  return { eachNs: 0, unitNs: 0, remoteUnitNs: 0, fittedOn: null, ...parts };
}

export const twoNodeServer: MachineProfile = {
  name: "two-node-server",
  about: "generic server of two nodes, VT-d and an NVMe disk on node 0, no guest",
  iommu: "vtd",
  cpusByNode: [16, 16],
  software: {
    submitNs: 735,
    completeNs: 735,
    source: "M. Lei, YOgK8fdv7dOQtkET@T590: 680 K requests a second of one polled job on x86",
  },
  disk: {
    channels: 64,
    readNs: 80_000,
    writeNs: 20_000,
    bytesPerSecond: 2.327e9,
    writeBytesPerSecond: 1.426e9,
    source:
      "github.com/zhzh2001/nvme-iommu, passthrough, 4 KiB at 4 x 128: 567 910 reads, 348 138 writes a second; latencies are guesses",
  },
  buffers: { breaksPerMille: 1000, source: "a guess: memory of a process that runs for long" },
  host: null,
  prices: [
    price({
      step: "entryWrite",
      on: "cpu",
      eachNs: 54,
      unitNs: 1.3,
      source: "J. Gunthorpe, Consolidate iommu page table implementations, 2025: VT-d map 2^12",
    }),
    price({
      step: "invalidateRange",
      on: QUEUE,
      eachNs: 445,
      source: "B. Song, 25 May 2020: issuing the commands less CMD_SYNC, one thread, Kunpeng 920",
    }),
    price({
      step: "invalidateWait",
      on: QUEUE,
      eachNs: 300,
      remoteUnitNs: 500,
      source: "B. Song, 20200531-0731: CMD_SYNC, caller on its package 300 ns, on another 800 ns",
    }),
    ...iovaPrices,
  ],
};
