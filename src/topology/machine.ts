/**
 * One machine as plain data: the model that firmware tables, hosts, virtual machines and simulated
 * machines are all turned into.
 *
 * Everything is read-only data without methods. Addresses and sizes are bytes as `bigint`, as
 * firmware and devices give them; `machine-json.ts` prints them as hexadecimal text. Things refer
 * to each other by id (`node`, `iommu`) or by position in the machine's lists (`bridge`), so that a
 * machine can stand in a file. What is not known is `null`, never a guess.
 *
 * A requester id (RID) is bus << 8 | device << 3 | function. Source: ACPI specification 6.5, 5.2.16
 * (SRAT), 5.2.17 (SLIT); VT-d specification 8; AMD I/O virtualization specification 5.2; Arm
 * DEN0049 (IORT); ACPI VIOT; Linux Documentation/ABI/testing/sysfs-bus-pci.
 */
import type { PciFunction } from "../iommu/pci-function.ts";

/** A range of addresses; both ends belong to it. */
export interface AddressRange {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/** A machine. */
export interface Machine {
  /** Processor architecture in the kernel's spelling: `x86_64`, `aarch64`, `riscv64`. */
  readonly architecture: string | null;
  /** What described the hardware to the kernel. */
  readonly firmware: FirmwareKind;
  /** By node id. */
  readonly nodes: readonly NumaNode[];
  /** By segment and first bus. */
  readonly hostBridges: readonly HostBridge[];
  /** All PCI functions, bridges among them, by segment and RID. */
  readonly functions: readonly MachineFunction[];
  /** Devices that are not PCI functions and can be endpoints of an IOMMU. */
  readonly platformDevices: readonly PlatformDevice[];
  readonly iommus: readonly Iommu[];
  /** Memory that firmware wants mapped for, or kept from, devices. */
  readonly firmwareRegions: readonly FirmwareRegion[];
  /** Which functions may use ATS; empty where firmware says nothing. */
  readonly atsScopes: readonly AtsScope[];
  /** Groups as the kernel formed them, by id; empty where none were recorded. */
  readonly groups: readonly RecordedGroup[];
  readonly kernel: KernelFacts | null;
}

/** `none` is a machine whose devices stand on the kernel's command line. */
export type FirmwareKind = "acpi" | "devicetree" | "none";

/** A NUMA node. */
export interface NumaNode {
  /** The kernel's number of the node. */
  readonly id: number;
  /** Firmware's number of it: `_PXM`, SRAT; equal to `id` in a devicetree. */
  readonly proximityDomain: number | null;
  readonly memory: readonly MemoryRange[];
  /** Size of its memory where only that is known; else the sum of `memory`. */
  readonly memoryBytes: bigint;
  /** The kernel's numbers of its CPUs, ascending. */
  readonly cpus: readonly number[];
  /** Local APIC ids (x86) or ACPI processor UIDs (Arm) of `cpus`, in their order; null: the same. */
  readonly firmwareCpuIds: readonly number[] | null;
  /** To every node of the machine, in the order of the machine's list; 10 is local. */
  readonly distances: readonly number[];
}

/** Memory of a node. */
export interface MemoryRange extends AddressRange {
  readonly hotPluggable: boolean;
  readonly nonVolatile: boolean;
}

/** Where a tree of PCI buses hangs off the machine. */
export interface HostBridge {
  readonly segment: number;
  readonly firstBus: number;
  readonly lastBus: number;
  /** Id of a NUMA node, from `_PXM` or `numa-node-id`. */
  readonly node: number | null;
  /** Address of the configuration space of bus 0 (not of `firstBus`) of the segment. */
  readonly ecamBase: bigint | null;
  readonly windows: readonly BridgeWindow[];
  /** Whether no IOMMU translates what is below, whatever the tables say (`bypass_iommu`). */
  readonly bypassesIommu: boolean;
  /** IORT ATS attribute, `ats-supported`; null where nothing says so. */
  readonly atsSupported: boolean | null;
}

export type WindowKind = "memory" | "prefetchable" | "io";

/** Addresses that a bridge passes down. */
export interface BridgeWindow extends AddressRange {
  readonly kind: WindowKind;
}

/** A PCI function: what decides its group ({@link PciFunction}), and all else of interest. */
export interface MachineFunction extends PciFunction {
  readonly vendor: number;
  readonly device: number;
  readonly subsystemVendor: number;
  readonly subsystemDevice: number;
  readonly revision: number;
  /** Class, subclass, interface: 24 bits. */
  readonly classCode: number;
  readonly header: "endpoint" | "bridge" | "cardbus";
  /** Last bus below a bridge, −1 otherwise. */
  readonly subordinateBus: number;
  /** Windows of a bridge. */
  readonly windows: readonly BridgeWindow[];
  /** Id of its NUMA node. */
  readonly node: number | null;
  readonly bars: readonly Bar[];
  readonly ats: AtsRegisters | null;
  readonly pri: PriRegisters | null;
  readonly pasid: PasidRegisters | null;
  /** Of a physical function with virtual functions. */
  readonly sriov: SriovRegisters | null;
  /** Position of the physical function of a virtual one, −1 otherwise. */
  readonly physicalFunction: number;
  /**
   * How much of its configuration space is known: 64, 256 or 4096 bytes. Port type and capabilities
   * need more than the header, which is all that an ordinary user may read.
   */
  readonly configRead: "none" | "header" | "conventional" | "extended";
  /** Whether it sits outside of the machine (a port open to strangers), so that it is not trusted. */
  readonly isUntrusted: boolean;
  readonly driver: string | null;
  /** Name of the IOMMU that the kernel put it behind. */
  readonly iommu: string | null;
  /** Id of the group that the kernel put it in. */
  readonly group: number | null;
}

/** Where a resource lies. */
export type BarKind = "memory32" | "memory64" | "io";

/** A base address register that is in use, or the ROM's (`index` 6), or a VF BAR (7 … 12). */
export interface Bar {
  readonly index: number;
  readonly kind: BarKind;
  readonly prefetchable: boolean;
  readonly start: bigint;
  readonly bytes: bigint;
}

/** Address translation service. */
export interface AtsRegisters {
  readonly enabled: boolean;
  /** Invalidations it can hold, 1 … 32. */
  readonly queueDepth: number;
  readonly pageAligned: boolean;
  /** log2 of the smallest translation unit in bytes; 12 is 4 KiB. */
  readonly unitShift: number;
}

/** Page request interface. */
export interface PriRegisters {
  readonly enabled: boolean;
  readonly requestsMax: number;
  readonly requestsAllocated: number;
  readonly pasidRequired: boolean;
}

/** Process address space ids. */
export interface PasidRegisters {
  readonly enabled: boolean;
  readonly bits: number;
  readonly execute: boolean;
  readonly privileged: boolean;
}

/** Single root I/O virtualization. */
export interface SriovRegisters {
  readonly totalVfs: number;
  readonly vfs: number;
  readonly firstVfOffset: number;
  readonly vfStride: number;
  readonly vfDevice: number;
}

/** A device that is no PCI function. */
export interface PlatformDevice {
  /** The kernel's name of it: `LNRO0005:01`, `a003e00.virtio_mmio`. */
  readonly name: string;
  /** Full path in the ACPI namespace or the devicetree. */
  readonly path: string | null;
  /** `_HID`, or the first `compatible`. */
  readonly identity: string | null;
  /** Memory resources, the first is what VIOT matches by. */
  readonly registers: readonly AddressRange[];
  readonly interrupts: readonly number[];
  readonly node: number | null;
  readonly driver: string | null;
  readonly iommu: string | null;
  readonly group: number | null;
}

/** Requester ids and the ids that an IOMMU knows them by. */
export interface RidRange {
  readonly segment: number;
  readonly firstRid: number;
  /** Inclusive. */
  readonly lastRid: number;
  /** The IOMMU's id (endpoint, stream or device id) of `firstRid`; the others follow. */
  readonly firstId: number;
  /** Whether all that lies below a bridge in this range belongs to it, too (VT-d bridge scope). */
  readonly includesBelow: boolean;
}

/** A device with registers and the id that an IOMMU knows it by. */
export interface MmioEndpoint {
  /** Start of its first memory resource. */
  readonly base: bigint;
  readonly id: number;
  /** Path in the ACPI namespace or devicetree, where the description names it by that. */
  readonly path: string | null;
}

/** An interrupt source whose writes an IOMMU remaps. */
export interface InterruptSource {
  readonly kind: "ioapic" | "hpet";
  /** IOAPIC id or HPET number. */
  readonly id: number;
  readonly segment: number;
  readonly rid: number;
}

/** What all IOMMUs have. */
export interface IommuCommon {
  /** As `/sys/class/iommu` names it: `dmar0`, `ivhd0`, `smmu3.0x9050000`, `0000:00:04.0`. */
  readonly name: string;
  /** Id of its NUMA node. */
  readonly node: number | null;
  /** Whether it also translates what no other IOMMU of its segment does (VT-d INCLUDE_PCI_ALL). */
  readonly includesRest: boolean;
  readonly translates: readonly RidRange[];
  readonly endpoints: readonly MmioEndpoint[];
  readonly interruptSources: readonly InterruptSource[];
}

/** Intel VT-d. */
export interface VtdIommu extends IommuCommon {
  readonly kind: "vtd";
  readonly segment: number;
  readonly registers: AddressRange;
  /** Version, capability and extended capability registers; null where not recorded. */
  readonly version: string | null;
  readonly capability: bigint | null;
  readonly extendedCapability: bigint | null;
}

/** AMD-Vi. */
export interface AmdIommu extends IommuCommon {
  readonly kind: "amd";
  readonly segment: number;
  /** Of the PCI function that it is. */
  readonly rid: number;
  readonly capabilityOffset: number;
  readonly registers: AddressRange;
  /** Extended feature registers; null where not recorded. */
  readonly features: bigint | null;
  readonly features2: bigint | null;
}

/** Arm SMMU. */
export interface SmmuIommu extends IommuCommon {
  readonly kind: "smmuv2" | "smmuv3";
  readonly registers: AddressRange;
  /** Whether its walks are coherent with the caches of CPUs. */
  readonly isCoherent: boolean;
  /** SMMUv3: event, PRI, GERROR, sync; SMMUv2: global, then contexts. */
  readonly interrupts: readonly number[];
}

/** virtio-iommu as a PCI function. */
export interface VirtioPciIommu extends IommuCommon {
  readonly kind: "virtio-pci";
  readonly segment: number;
  readonly rid: number;
}

/** virtio-iommu as a virtio-mmio device. */
export interface VirtioMmioIommu extends IommuCommon {
  readonly kind: "virtio-mmio";
  readonly registers: AddressRange;
  readonly interrupts: readonly number[];
}

/** An IOMMU that only the kernel's name tells of. */
export interface OtherIommu extends IommuCommon {
  readonly kind: "other";
}

export type Iommu = VtdIommu | AmdIommu | SmmuIommu | VirtioPciIommu | VirtioMmioIommu | OtherIommu;
export type IommuKind = Iommu["kind"];

/** Memory that firmware wants devices to reach, or not to. */
export interface FirmwareRegion extends AddressRange {
  /** DMAR RMRR, IVRS IVMD, IORT RMR, devicetree reserved-memory, virtio-iommu PROBE. */
  readonly source: "rmrr" | "ivmd" | "rmr" | "devicetree" | "probe";
  /** `mapped` to itself, `excluded` from translation, or the window of `msi` writes. */
  readonly treatment: "mapped" | "excluded" | "msi";
  readonly canRead: boolean;
  readonly canWrite: boolean;
  /** Functions that it is for; `null` is all. `firstId` has no meaning here. */
  readonly functions: readonly RidRange[] | null;
}

/** Where ATS may be used (DMAR ATSR) or must be (SATC). */
export interface AtsScope {
  readonly segment: number;
  readonly kind: "all-ports" | "ports" | "integrated";
  /** RIDs of root ports or of integrated functions. */
  readonly rids: readonly number[];
  /** SATC: the function does not work without. */
  readonly isRequired: boolean;
}

/** The text of a group's `type` file. */
export type GroupType = "identity" | "DMA" | "DMA-FQ" | "blocked" | "unmanaged" | "unknown";

/** A reserved region as `reserved_regions` has it. */
export interface RecordedRegion extends AddressRange {
  readonly type: "direct" | "direct-relaxable" | "reserved" | "msi";
}

/** A group as the kernel formed it. */
export interface RecordedGroup {
  readonly id: number;
  /** Null where the kernel would not say. */
  readonly type: GroupType | null;
  /** `vfio-noiommu` and the like. */
  readonly name: string | null;
  /** Names of functions (`0000:81:00.0`) and platform devices. */
  readonly devices: readonly string[];
  readonly regions: readonly RecordedRegion[];
}

/** What is known of the running kernel. */
export interface KernelFacts {
  readonly release: string | null;
  readonly commandLine: string | null;
  /** `DMA domain TLB invalidation policy`; null when no message says so. */
  readonly isStrict: boolean | null;
  /** `Default domain type`; null when no message says so. */
  readonly isPassthrough: boolean | null;
}

/** A machine with nothing in it, to build on. */
export const EMPTY_MACHINE: Machine = {
  architecture: null,
  firmware: "none",
  nodes: [],
  hostBridges: [],
  functions: [],
  platformDevices: [],
  iommus: [],
  firmwareRegions: [],
  atsScopes: [],
  groups: [],
  kernel: null,
};
