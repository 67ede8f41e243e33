/**
 * What `inspect` found, as plain data: the `result` of schema `iommukit/inspect@1`.
 *
 * Addresses are hexadecimal text (`0xfee00000`), sizes are numbers of bytes, ids of PCI are
 * hexadecimal text as `lspci -n` prints them. `null` is: not known, or not there.
 */
import type { GroupType, IommuKind } from "../topology/machine.ts";
import type { Finding } from "./findings.ts";

/** Version of the form. */
export const INSPECT_SCHEMA = "iommukit/inspect@1";

/** The whole answer. */
export interface InspectResult {
  readonly nodes: readonly InspectedNode[];
  readonly iommus: readonly InspectedIommu[];
  readonly devices: readonly InspectedDevice[];
  readonly groups: readonly InspectedGroup[];
  readonly findings: readonly Finding[];
}

export interface InspectedNode {
  readonly id: number;
  readonly proximityDomain: number | null;
  readonly memoryBytes: number;
  /** In the kernel's form of a list: `0-3,8`. */
  readonly cpus: string;
  /** To every node, in the order of the list of nodes. */
  readonly distances: readonly number[];
}

export interface InspectedIommu {
  readonly name: string;
  readonly kind: IommuKind;
  readonly node: number | null;
  /** Whether the node follows from the devices behind it and firmware does not state it. */
  readonly nodeIsInferred: boolean;
  readonly registers: string | null;
  /** Of the PCI function that it is. */
  readonly bdf: string | null;
  /** Devices behind it. */
  readonly deviceCount: number;
}

export interface InspectedDevice {
  /** `0000:81:00.0`; null for a platform device. */
  readonly bdf: string | null;
  readonly name: string;
  readonly kind: "function" | "bridge" | "platform";
  readonly node: number | null;
  readonly iommu: string | null;
  readonly group: number | null;
  readonly driver: string | null;
  /** The bridge above; null on a root bus. */
  readonly parent: string | null;
  readonly classCode: string | null;
  readonly className: string;
  readonly vendor: string | null;
  readonly device: string | null;
  /** By the system's `pci.ids`, where it is installed. */
  readonly description: string | null;
  readonly portType: string | null;
  /** Whether its traffic to its peers goes through the IOMMU. */
  readonly acs: "effective" | "missing" | null;
  readonly ats: "enabled" | "off" | null;
  readonly pri: "enabled" | "off" | null;
  readonly pasid: "enabled" | "off" | null;
  readonly physicalFunction: string | null;
  readonly virtualFunctions: number;
  readonly bars: readonly InspectedBar[];
}

export interface InspectedBar {
  readonly index: number;
  readonly kind: "memory32" | "memory64" | "io";
  readonly prefetchable: boolean;
  readonly start: string;
  readonly bytes: number;
}

export interface InspectedGroup {
  readonly id: number;
  /** Type of its default domain. */
  readonly type: GroupType | null;
  readonly devices: readonly string[];
  /** Members as the kernel recorded them; null where it recorded none. */
  readonly recorded: readonly string[] | null;
  /** Members as the rules derive them; null where what they need could not be read. */
  readonly derived: readonly string[] | null;
  readonly agrees: boolean | null;
  readonly iommu: string | null;
  readonly node: number | null;
  readonly regions: readonly InspectedRegion[];
  /** Whether the recorded regions are those that follow from tables and rules. */
  readonly regionsAgree: boolean | null;
  /** Where the page tables of its default domain live, and who walks them. */
  readonly pageTables: InspectedTables;
}

export interface InspectedRegion {
  readonly start: string;
  readonly last: string;
  readonly type: string;
}

export interface InspectedTables {
  readonly home: "node" | "mapping-cpu" | "none" | "unknown";
  readonly node: number | null;
  /** In one sentence, why there. */
  readonly why: string;
  readonly walker: string | null;
  readonly walkerNode: number | null;
  readonly distance: number | null;
  readonly isRemote: boolean | null;
}
