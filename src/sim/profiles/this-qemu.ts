/**
 * A stock guest under QEMU's software emulation whose virtio-iommu and NVMe disk are served by a
 * process over vfio-user.
 *
 * Source of what was fitted: medians of interleaved rounds of one guest (Linux 7.2, QEMU 11.1, NVMe
 * over vfio-user, RAM disk), endpoint switched between identity, DMA-FQ and DMA. 4 KiB at depth 16:
 * identity 22 669 and 23 388 requests a second, lazy 9 969 and 9 859, strict 6 839 and 6 031.
 */
import type { Price } from "../price-list.ts";
import type { MachineProfile } from "./machine-profile.ts";

/** Whoever kicks waits in the exit, under the driver's spinlock. */
const LOCK = "virtio-iommu request lock";
const RUNS = "NVMe over vfio-user under TCG, medians of five interleaved rounds";

function price(step: Price["step"], on: string, eachNs: number, source: string): Price {
  return { step, on, eachNs, unitNs: 0, remoteUnitNs: 0, source, fittedOn: null };
}

export const thisQemu: MachineProfile = {
  name: "this-qemu",
  about: "stock guest under software emulation, virtio-iommu and NVMe served over vfio-user",
  iommu: "virtio",
  cpusByNode: [1],
  software: {
    submitNs: 21_700,
    completeNs: 21_700,
    source: `${RUNS}: 4 KiB at depth 16, identity, is bound by the guest's CPU`,
  },
  disk: {
    channels: 16,
    readNs: 315_000,
    writeNs: 315_000,
    bytesPerSecond: 544e6,
    source: `${RUNS}: 4 KiB reads at depth 1 and 64 KiB writes at depth 16, identity`,
  },
  buffers: {
    breaksPerMille: 1000,
    source: "16 MAP requests for each 64 KiB, as recorded: no two pages lie side by side",
  },
  host: null,
  prices: [
    {
      ...price("virtqueueKick", LOCK, 29_000, `${RUNS}: exit, socket message, and the wait for it`),
      fittedOn: "4 KiB at depth 16: lazy",
    },
    {
      ...price("virtqueueAdd", LOCK, 14_300, `${RUNS}: one request in guest and server`),
      fittedOn: "64 KiB writes at depth 16: lazy",
    },
    price("iovaCacheHit", "cpu", 300, "as on real CPUs, ten times slower under TCG"),
    price("iovaCacheFree", "cpu", 300, "as iovaCacheHit"),
  ],
};
