/**
 * PCI functions as plain data: as much of a machine's PCI topology as decides who shares a group.
 *
 * Bridges are named by their position in the list of all functions, so that the list can stand in
 * a file. Source: PCI Express Base specification, 7.5.3.2 (port types), 7.7.11 (ACS capability);
 * drivers/pci/search.c, drivers/pci/quirks.c for aliases.
 */
import { hex } from "../units.ts";

/** What a function is, out of its PCI Express capability. */
export type PciPortType =
  /** No PCI Express capability. */
  | "conventional"
  | "endpoint"
  | "legacy-endpoint"
  | "root-port"
  | "upstream"
  | "downstream"
  | "pcie-to-pci-bridge"
  | "pci-to-pcie-bridge"
  | "rc-endpoint"
  | "rc-event-collector";

/** Registers of an ACS capability. */
export interface AcsRegisters {
  readonly capability: number;
  readonly control: number;
}

/** One function. */
export interface PciFunction {
  readonly segment: number;
  readonly bus: number;
  /** Device number << 3 | function number. */
  readonly devfn: number;
  readonly portType: PciPortType;
  readonly isMultifunction: boolean;
  /** Null when the function has no ACS capability. */
  readonly acs: AcsRegisters | null;
  /** Position of the bridge above, −1 on a root bus. */
  readonly bridge: number;
  /** Number of the bus below a bridge, −1 otherwise. */
  readonly secondaryBus: number;
  readonly quirks?: PciQuirks;
}

/** What is known about a function beyond what it says itself. */
export interface PciQuirks {
  /** Whether it is isolated, whatever its ACS capability says. */
  readonly isolated?: boolean;
  /** Further devfns of its bus that its DMA may carry. */
  readonly aliasDevfns?: readonly number[];
  /** Position of the function whose requester id its DMA carries. */
  readonly realDmaFunction?: number;
  /** A bridge at which translation happens, so that what is above it does not matter. */
  readonly isTranslationRoot?: boolean;
  /** A conventional bridge that takes over its secondary bus's requester id. */
  readonly aliasesSecondaryBus?: boolean;
}

/** Requester id: bus << 8 | devfn. */
export function ridOf(pci: PciFunction): number {
  return pci.bus * 256 + pci.devfn;
}

/**
 * A function's name.
 *
 * @example
 * pciName({ segment: 0, bus: 0x3b, devfn: 9, … }); // "0000:3b:01.1"
 */
export function pciName(pci: Pick<PciFunction, "segment" | "bus" | "devfn">): string {
  const segment = hex(pci.segment, 4).slice(2);
  return `${segment}:${twoDigits[pci.bus]}:${twoDigits[pci.devfn >> 3]}.${pci.devfn & 7}`;
}

const twoDigits = Array.from({ length: 256 }, (_, value) => hex(value, 2).slice(2));
