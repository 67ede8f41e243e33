/**
 * A virtual machine that is served: memory, devices and the way they are reached, as plain data.
 * `config/read-live.ts` makes it of a file; the supervisor hands it to its worker as it is.
 */

/** Where a function sits: on bus 0, or alone behind a root port. */
export interface Slot {
  /** Device number, 0 … 31. */
  readonly device: number;
  /** Name of the root port that it is behind; null on bus 0. */
  readonly port: string | null;
}

/** A PCI Express root port on bus 0. */
export interface RootPort {
  readonly name: string;
  /** Device number on bus 0. */
  readonly device: number;
}

/** How the driver's kicks of the virtio-iommu arrive. */
export type Doorbell = "message" | "page";

/** The virtio-iommu. It sits on bus 0: behind a port, its own number would depend on firmware. */
export interface LiveIommu {
  readonly name: string;
  readonly slot: Slot;
  /** Whether endpoints reach guest memory before a driver attaches them, as firmware needs. */
  readonly bypass: boolean;
  readonly doorbell: Doorbell;
}

/** What a disk's bytes are in. */
export type Backing =
  | { readonly kind: "file"; readonly path: string }
  | { readonly kind: "memory"; readonly bytes: number };

/** A disk. */
export interface LiveDisk {
  readonly kind: "virtio-blk" | "nvme";
  readonly name: string;
  readonly slot: Slot;
  readonly backing: Backing;
  readonly isReadOnly: boolean;
  /** Request queues (virtio-blk) or I/O queue pairs (nvme). */
  readonly queues: number;
  /** Whether the virtio-iommu translates its DMA. */
  readonly isTranslated: boolean;
}

/** A NUMA node of the guest. */
export interface GuestNode {
  readonly bytes: number;
  readonly cpus: readonly number[];
  /** Node of the host that its memory comes from; null leaves it to the host. */
  readonly hostNode: number | null;
}

/** How guest RAM gets into the second stage: all of it pinned at once, or as devices touch it. */
export type RamPolicy = "pin" | "fault";

/** Where metrics are read. */
export type MetricsEndpoint =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "loopback"; readonly port: number };

/** What is said to QEMU beside the devices. */
export interface QemuSettings {
  /** Program to start; null finds one. */
  readonly program: string | null;
  readonly accelerator: "tcg" | "kvm";
  readonly cpu: string;
  readonly kernel: string | null;
  readonly initrd: string | null;
  /** Kernel command line. */
  readonly append: string;
  /** Name of the disk to boot from. */
  readonly boot: string | null;
  /** Further arguments, word by word. */
  readonly extra: readonly string[];
}

/** A virtual machine. */
export interface LiveMachine {
  readonly name: string;
  readonly memoryBytes: number;
  readonly cpus: number;
  /** Empty: one node, of which nothing is said to the guest. */
  readonly nodes: readonly GuestNode[];
  readonly ram: RamPolicy;
  readonly ports: readonly RootPort[];
  readonly iommu: LiveIommu | null;
  readonly disks: readonly LiveDisk[];
  /** Null: the socket `metrics.sock` of the runtime folder. */
  readonly metrics: MetricsEndpoint | null;
  readonly qemu: QemuSettings;
}

/** Bus behind each root port: firmware and kernel number them by the ports' device numbers. */
export function busBehind(ports: readonly RootPort[], name: string): number {
  const inOrder = [...ports].sort((a, b) => a.device - b.device);
  return 1 + inOrder.findIndex((port) => port.name === name);
}

/** Requester id of a function: bus << 8 | device << 3. */
export function ridOf({ ports }: Pick<LiveMachine, "ports">, slot: Slot): number {
  const bus = slot.port === null ? 0 : busBehind(ports, slot.port);
  return bus * 256 + slot.device * 8;
}
