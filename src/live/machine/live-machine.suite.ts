/** A machine with one of each, for tests. */
import type { LiveMachine } from "./live-machine.ts";

/** A virtio-iommu at 3, a disk at 4, an NVMe disk behind a root port at 6. */
export function exampleMachine(): LiveMachine {
  const memory = { kind: "memory", bytes: 2 ** 20 } as const;
  const common = { backing: memory, isReadOnly: false, queues: 1, isTranslated: true };
  return {
    name: "example",
    memoryBytes: 2 ** 30,
    cpus: 1,
    nodes: [],
    ram: "pin",
    ports: [{ name: "port0", device: 6 }],
    iommu: { name: "iommu0", slot: { device: 3, port: null }, bypass: true, doorbell: "message" },
    disks: [
      { ...common, kind: "virtio-blk", name: "blk0", slot: { device: 4, port: null } },
      { ...common, kind: "nvme", name: "nvme0", slot: { device: 0, port: "port0" } },
    ],
    metrics: null,
    qemu: {
      program: null,
      accelerator: "tcg",
      cpu: "max",
      kernel: null,
      initrd: null,
      append: "",
      boot: null,
      extra: [],
    },
  };
}
