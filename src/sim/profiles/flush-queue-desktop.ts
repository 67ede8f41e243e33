/**
 * The Intel desktop on which strict and lazy virtio-iommu were compared in August 2023: a guest with
 * an NVMe disk passed through, and the same machine without a guest.
 *
 * Source of what was fitted: linux-iommu list, "[RFC] iommu/virtio: Use single flush queue",
 * J.-P. Brucker's tables; the disk reaches 2.5 GiB/s there. Of pinning: Li Zhe, message
 * 20250630072518.31846-1, 16 GiB of populated 4 KiB pages in 0.280 s and out in 0.312 s.
 */
import { OWN_CPU, PriceList } from "../price-list.ts";
import type { FioMachine } from "../workload/fio-run.ts";
import { iovaPrices } from "./iova-prices.ts";

/** The request queue of the driver is under one spinlock, and whoever waits holds it. */
const LOCK = "virtio-iommu request lock";

const PAGES = 16 * 2 ** 18;

const thread = "linux-iommu, RFC iommu/virtio: Use single flush queue, 2023-08-02";

const prices = new PriceList([
  {
    step: "virtqueueKick",
    eachNs: 3600,
    unitNs: 0,
    remoteUnitNs: 0,
    on: LOCK,
    source: `${thread}: exit to the VMM and the wait for it, per sync`,
    fittedOn: "bandwidth: strict, strict+map, lazy sq",
  },
  {
    step: "userCall",
    eachNs: 4150,
    unitNs: 0,
    remoteUnitNs: 0,
    on: LOCK,
    source: `${thread}: one VFIO call of the VMM, pinning apart`,
    fittedOn: "bandwidth: strict",
  },
  {
    step: "virtqueueAdd",
    eachNs: 100,
    unitNs: 0,
    remoteUnitNs: 0,
    on: LOCK,
    source: "kmalloc, copy and two descriptors of a request; of the order of the driver's own work",
    fittedOn: null,
  },
  {
    step: "pagePin",
    eachNs: 0,
    unitNs: 0.28e9 / PAGES,
    remoteUnitNs: 0,
    on: LOCK,
    source: "20250630072518.31846-1: map of 16 GiB in 4 KiB pages, by page",
    fittedOn: null,
  },
  {
    step: "pageUnpin",
    eachNs: 0,
    unitNs: 0.312e9 / PAGES,
    remoteUnitNs: 0,
    on: LOCK,
    source: "20250630072518.31846-1: unmap of 16 GiB in 4 KiB pages, by page",
    fittedOn: null,
  },
  // Buffers of 64 KiB at most: the tree is not asked.
  ...iovaPrices.filter(({ on }) => on === OWN_CPU),
]);

/** Software spends this on a 4 KiB request without a guest: fitted on latency, host : lazy sq. */
const HOST_REQUEST_NS = 2090;
/** And this in a guest: fitted on latency, noviommu. */
const GUEST_REQUEST_NS = 2570;

function machine(requestNs: number): FioMachine {
  return {
    cpus: 16,
    // More channels than requests in flight, and quick ones: the link and the CPUs decide.
    disk: { channels: 64, readNs: 128_000, writeNs: 128_000, bytesPerSecond: 2.5 * 2 ** 30 },
    prices,
    submitNs: requestNs / 2,
    completeNs: requestNs / 2,
    // Fitted on bandwidth, strict+map: how many runs a buffer of 64 KiB falls into.
    scatter: { breaksPerMille: 42 },
    host: { guestPages: 2 ** 22, blockPages: 1 },
  };
}

/** The machine without a guest. */
export const flushQueueHost = machine(HOST_REQUEST_NS);
/** Its guest. */
export const flushQueueGuest = machine(GUEST_REQUEST_NS);
