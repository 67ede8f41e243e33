/** A virtual machine: the machine that its guest sees, and what stands behind each of its devices. */
import type { Machine } from "../topology/machine.ts";
import type { BarMapping } from "./bar-mappings.ts";
import type { IgnoredArgument } from "./qemu-command.ts";

/** A virtual machine as its configuration describes it. */
export interface VirtualMachine {
  readonly name: string;
  /** `q35`, `pc`, `virt`, or the type that was asked for. */
  readonly board: string;
  /** What the guest sees, as far as the configuration decides it. */
  readonly machine: Machine;
  /** Everything that the configuration names and that is, or makes, a PCI function. */
  readonly devices: readonly VmDevice[];
  readonly memoryBytes: bigint;
  readonly nodes: readonly VmNode[];
  readonly viommu: Viommu | null;
  /** Bytes that it may lock; null when nothing says so. */
  readonly memlockBytes: bigint | null;
  /** BARs as a running process has mapped them; null where none was looked at. */
  readonly barMappings: readonly BarMapping[] | null;
  /** Arguments that are not understood, or that QEMU would refuse. */
  readonly ignored: readonly IgnoredArgument[];
  /** What only libvirt knows; null for a command line. */
  readonly libvirt: LibvirtFacts | null;
}

/** What a domain says beyond what becomes of it in QEMU. */
export interface LibvirtFacts {
  readonly domain: string;
  /** Devices of the host that libvirt takes from their drivers itself. */
  readonly managed: readonly string[];
}

/** How a host's device reaches its guest. */
export type HostPath = "type1" | "iommufd" | "vfio-user";

/** Why no IOMMU of the guest translates a device. */
export type Exemption =
  | "no-iommu"
  | "is-the-iommu"
  | "bypassed-bus"
  | "not-covered"
  /** A virtio device that was not offered VIRTIO_F_ACCESS_PLATFORM uses addresses of memory. */
  | "no-access-platform";

/** A device of the configuration. */
export interface VmDevice {
  readonly id: string | null;
  readonly driver: string;
  /** Position in `machine.functions`; −1 when it has no place. */
  readonly index: number;
  /** Name of the function in the guest. */
  readonly bdf: string | null;
  /** Why it has no place. */
  readonly problem: string | null;
  /** The host's device: `0000:03:00.0`, or a path. */
  readonly host: string | null;
  readonly path: HostPath | null;
  /** Whether a virtio device offers VIRTIO_F_ACCESS_PLATFORM; null for others. */
  readonly accessPlatform: boolean | null;
  readonly ats: boolean;
  /** Name of the IOMMU that translates it. */
  readonly iommu: string | null;
  readonly exemption: Exemption | null;
  readonly argument: string;
}

/** Memory of a guest's node, and where on the host it comes from. */
export interface VmNode {
  readonly id: number;
  readonly bytes: bigint;
  /** Nodes of the host, by `host-nodes` of its backend; empty where none are named. */
  readonly hostNodes: readonly number[];
  readonly policy: "default" | "preferred" | "bind" | "interleave";
  readonly isPreallocated: boolean;
  readonly isShared: boolean;
}

/** The IOMMU of a guest. */
export interface Viommu {
  readonly name: string;
  readonly kind: "virtio" | "vtd" | "amd" | "smmuv3";
  /** virtio-iommu: whether devices reach all memory until a driver takes over. */
  readonly bootBypass: boolean | null;
  /** VT-d: caching mode; AMD: entries that are not present are cached, too. */
  readonly cachingMode: boolean | null;
  readonly interruptRemapping: boolean | null;
  readonly deviceIotlb: boolean | null;
  /** First-level tables by default, with which caching mode does not matter. */
  readonly firstLevel: boolean;
  readonly addressBits: number | null;
  /** Bytes of the smallest page. */
  readonly granuleBytes: number;
  readonly argument: string;
}

/** What is known around a virtual machine. */
export interface VmLimits {
  readonly host: Machine | null;
  /** Bytes that the process may lock; null when nothing says so. */
  readonly memlockBytes: bigint | null;
  /** `dma_entry_limit` of vfio_iommu_type1; null where it is not known. */
  readonly entryLimit: number | null;
}
