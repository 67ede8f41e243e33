/** The machines that are built in, by name. */
import { flushQueueGuest, flushQueueHost } from "./flush-queue-desktop.ts";
import type { MachineProfile } from "./machine-profile.ts";
import { thisQemu } from "./this-qemu.ts";
import { twoNodeServer } from "./two-node-server.ts";

const thread = "linux-iommu, RFC iommu/virtio: Use single flush queue, 2023-08-02";

function desktop(name: string, about: string, machine: typeof flushQueueGuest): MachineProfile {
  const { cpus, disk, submitNs, completeNs, scatter, host, prices } = machine;
  return {
    name,
    about,
    iommu: "virtio",
    cpusByNode: [cpus],
    software: { submitNs, completeNs, source: `${thread}: latency of host and noviommu` },
    disk: { ...disk, source: `${thread}: the disk reaches 2.5 GiB/s` },
    buffers: { ...scatter, source: `${thread}: bandwidth of strict+map` },
    host,
    prices: prices.prices,
  };
}

/** Every built-in machine. */
export const profiles: readonly MachineProfile[] = [
  desktop(
    "flush-queue-desktop",
    "desktop of August 2023: a guest with an NVMe disk passed through, virtio-iommu",
    flushQueueGuest,
  ),
  desktop(
    "flush-queue-desktop-host",
    "the same desktop without a guest; what is translated is a what-if",
    flushQueueHost,
  ),
  twoNodeServer,
  thisQemu,
];

/** The names of all of them. */
export const profileNames: readonly string[] = profiles.map(({ name }) => name);

/** The machine of that name, or `undefined`. */
export function profileNamed(name: string): MachineProfile | undefined {
  return profiles.find((profile) => profile.name === name);
}
