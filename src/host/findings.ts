/**
 * Findings: what is remarkable about a machine, as data with a stable code.
 *
 * A code is public interface: it stays, and means the same, once it has been released. The register
 * below says what each one means; whoever finds something adds the evidence.
 */
import { checkKinds } from "./check-kinds.ts";
import type { FindingKind, Severity } from "./finding-kind.ts";

export type { FindingKind, Severity };

/** One finding about one machine. */
export interface Finding {
  readonly code: FindingCode;
  readonly severity: Severity;
  /** One sentence with the particulars. */
  readonly message: string;
  /** What it was seen by: a path, a value, a rule. */
  readonly evidence: readonly string[];
  /** Names of the devices concerned. */
  readonly devices: readonly string[];
  /** The next command, or null where there is none. */
  readonly next: string | null;
}

/** The register. */
export const findingKinds = {
  ...checkKinds,
  "no-iommu": {
    severity: "warning",
    title: "no IOMMU is in use",
    cause:
      "The kernel has formed no IOMMU group: the IOMMU is off in firmware setup or on the kernel's " +
      "command line, or no table describes it. Devices reach all memory, and VFIO has nothing to " +
      "work with.",
    remedy:
      "Switch VT-d, AMD-Vi or SMMU on in firmware setup; on Intel boot with intel_iommu=on where " +
      "the kernel's configuration does not switch it on.",
  },
  "iommu-off": {
    severity: "warning",
    title: "an IOMMU that the firmware describes is not in use",
    cause:
      "A table describes this unit, and no driver of the kernel has taken it: it is switched off on " +
      "the command line, by configuration, or the driver gave up.",
    remedy: "Look for its messages at boot; on Intel boot with intel_iommu=on.",
  },
  "firmware-table": {
    severity: "note",
    title: "a table of the firmware is not in order",
    cause: "Something in an ACPI table would make a kernel ignore a part of it, or stumble.",
    remedy: "`iommukit tables check` says where and what the kernel does about it.",
  },
  "iommu-without-devices": {
    severity: "note",
    title: "an IOMMU translates nothing",
    cause:
      "The kernel has a driver for this IOMMU and put no device behind it: no device is there, or " +
      "the tables do not name those that are.",
    remedy: "Compare with what the firmware's tables say: `iommukit tables dump`.",
  },
  "device-without-group": {
    severity: "warning",
    title: "a device is in no group",
    cause:
      "An IOMMU is in use, and this device is not behind it: no table names it, its bus bypasses " +
      "the IOMMU, or the IOMMU's driver came after the device's own. Its DMA is not translated.",
    remedy:
      "Look for it in the tables (`iommukit tables dump`), and load the IOMMU's driver before the " +
      "device's.",
  },
  "groups-differ": {
    severity: "warning",
    title: "a group is not what the rules make of its devices",
    cause:
      "The kernel knows a quirk of the hardware that is not in its configuration space, and only the " +
      "common ones are known here (docs/inspect.md); it runs with an override of ACS; or one of the " +
      "two sides is wrong.",
    remedy:
      "Look for pcie_acs_override= and pci=config_acs= on the kernel's command line, and for the " +
      "device in drivers/pci/quirks.c. Otherwise report it with a capture.",
  },
  "groups-uncertain": {
    severity: "note",
    title: "the groups cannot be derived",
    cause:
      "An ordinary user may read 64 bytes of configuration space; what a port is and whether it " +
      "isolates stands behind them.",
    remedy: "Run it as root.",
  },
  "regions-differ": {
    severity: "note",
    title: "reserved regions are not what tables and rules make of them",
    cause:
      "The kernel reserves other ranges than the firmware's tables and the IOMMU driver's rules " +
      "give: a table was overridden, or the device's own regions are not in this reading.",
    remedy: "Compare with the tables: `iommukit tables dump`.",
  },
  "group-shared": {
    severity: "note",
    title: "several devices share a group",
    cause:
      "The IOMMU cannot keep these devices apart, or a port on the way does not isolate (ACS). They " +
      "are assigned to a VM together or not at all.",
    remedy: "Use another slot, behind a root port with ACS; or assign all of them to the same VM.",
  },
  "direct-region": {
    severity: "warning",
    title: "firmware owns memory of this device",
    cause:
      "The firmware wants this memory mapped for the device at all times (RMRR, unity map). Linux " +
      "refuses to hand such a device to a user.",
    remedy: "Update the firmware or switch the feature off that needs it (often a remote console).",
  },
  "page-tables-remote": {
    severity: "warning",
    title: "page tables are walked from another node",
    cause:
      "The domain's page tables live on another node than the IOMMU that walks them, so that each " +
      "miss of the IOTLB crosses the link between nodes.",
    remedy: "Put devices of different nodes into domains of their own.",
  },
  "device-without-node": {
    severity: "warning",
    title: "a device has no NUMA node",
    cause:
      "The machine has several nodes and firmware does not say which one the device's bus is on " +
      "(no _PXM, no numa-node-id). Its page tables and buffers end up wherever the CPU runs that " +
      "makes them.",
    remedy: "In a VM, put it behind a pxb-pcie with numa_node=; on a host, update the firmware.",
  },
  "permission-denied": {
    severity: "note",
    title: "files could not be read",
    cause: "The user may not read everything that this report is made of.",
    remedy: "Run it as root, or capture as root and inspect the archive as anybody.",
  },
} as const satisfies Record<string, FindingKind>;

/** A code of the register. */
export type FindingCode = keyof typeof findingKinds;

/** What a finder has to say. */
export interface FindingParts {
  readonly message: string;
  readonly evidence?: readonly string[];
  readonly devices?: readonly string[];
  readonly next?: string | null;
}

/** Makes a finding. */
export function finding(code: FindingCode, parts: FindingParts): Finding {
  const { message, evidence = [], devices = [], next = null } = parts;
  return { code, severity: findingKinds[code].severity, message, evidence, devices, next };
}

const order: Record<Severity, number> = { error: 0, warning: 1, note: 2 };

/** Sorts by severity; what was found first stays first. */
export function bySeverity(findings: readonly Finding[]): Finding[] {
  return [...findings].sort((a, b) => order[a.severity] - order[b.severity]);
}
