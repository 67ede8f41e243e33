/**
 * The host of the RFC "vfio: add attach_group_by_node": A100 GPUs and ConnectX-6 NICs on two
 * sockets, four of each on a socket, behind two IOMMUs a socket.
 *
 * Source of what was fitted: linux-kernel, 14 November 2023, "[PATCH V1] vfio: add
 * attach_group_by_node to control behavior of attaching group to domain", its first table.
 */
import { PriceList } from "../price-list.ts";
import type { AllReduceMachine } from "../workload/all-reduce.ts";

const thread = "linux-kernel, PATCH V1 vfio: add attach_group_by_node, 2023-11-14";
const PS = 1000;

/** The host. */
export const allReduceMachine: AllReduceMachine = {
  prices: new PriceList([
    {
      step: "iotlbMiss",
      eachNs: 145,
      unitNs: 0,
      remoteUnitNs: 0,
      on: "walker",
      source: `${thread}: what a walk takes besides its reads (158 ns on pcie-bench's Broadwell)`,
      fittedOn: "case 2 before",
    },
    {
      step: "entryRead",
      eachNs: 0,
      unitNs: 135,
      remoteUnitNs: 0,
      on: "walker",
      source: "Intel memory latency blog, 2014: local 135-136 ns",
      fittedOn: null,
    },
  ]),
  // As on pcie-bench's Broadwell.
  walkers: 6,
  // Large enough for what is in flight; against buffers of a GiB its size does not matter.
  iotlbEntries: 256,
  // Fitted on case 1 before; that machine of 2014 takes 58 to 67 ns. Three links of 10.4 GT/s.
  interconnect: { latency: 71 * PS, bytesPerSecond: 62.4e9 },
  nic: {
    // Enough for the wire at the latency of a walk in a full unit.
    inFlight: 32,
    // A page at a time, which needs a translation of its own: buffers are larger than any cache.
    bytes: 4096,
    bytesPerSecond: 25e9,
    link: { latency: 150 * PS, bytesPerSecond: 31.5e9 },
    memoryTime: 600 * PS,
  },
  // How many VMs took part is not said; from three on it makes little difference.
  hosts: 4,
  pages: 2 ** 18,
};
