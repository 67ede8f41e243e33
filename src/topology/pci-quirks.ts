/**
 * What Linux knows of single devices that their configuration space does not say: isolation without
 * an ACS capability, requester ids that are not their own.
 *
 * Source: drivers/pci/quirks.c: pci_quirk_intel_pch_acs_ids, pci_quirk_intel_spt_pch_acs_match,
 * pci_quirk_mf_endpoint_acs, pci_quirk_amd_sb_acs and the table pci_dev_acs_enabled;
 * quirk_dma_func0_alias, quirk_dma_func1_alias, quirk_use_pcie_bridge_dma_alias,
 * quirk_bridge_cavm_thrx2_pcie_root. Devices that few people have are left out; a group that differs
 * from the recorded one for that is a finding.
 */
import type { PciPortType, PciQuirks } from "../iommu/pci-function.ts";

/** What decides about quirks. */
export interface QuirkSubject {
  readonly vendor: number;
  readonly device: number;
  readonly portType: PciPortType;
  readonly header: "endpoint" | "bridge" | "cardbus";
  readonly devfn: number;
  readonly isMultifunction: boolean;
  /** Port type of the bridge above; null on a root bus. */
  readonly above: PciPortType | null;
  /** Whether the machine has an AMD IOMMU. */
  readonly hasIvrs: boolean;
}

/** Ids as the lists of the kernel group them: `9120 9128-912a`, of one vendor. */
function ids(vendor: number, text: string): number[] {
  return text.split(" ").flatMap((part) => {
    const [first, last = first] = part.split("-").map((digits) => Number.parseInt(digits, 16));
    return Array.from({ length: last! - first! + 1 }, (_, at) => key(vendor, first! + at));
  });
}

function key(vendor: number, device: number): number {
  return vendor * 0x1_0000 + device;
}

/** Root ports that isolate without saying so: on Intel's once a register outside of PCI is set. */
const isolatingPorts = new Set([
  ...ids(0x8086, "3b42-3b51 1c10-1c1f 1e10-1e1f 8c10-8c1f 9c10-9c1b 9c90-9c9b"),
  ...ids(0x8086, "1d10 1d12 1d14 1d16 1d18 1d1a 1d1c 1d1e 8d10-8d1e"),
  ...ids(0x8086, "8c90 8c92 8c94 8c96 8c98 8c9a 8c9c 8c9e"),
  // Zhaoxin; Cavium ThunderX, X2 and X3.
  ...ids(0x1d17, "0710-071e 0721 0723-0732"),
  ...ids(0x177d, "a000-a7ff af84 b884"),
]);

/** Root ports whose ACS registers are 32 bits wide: the control register stands 8 bytes in. */
const wideAcsPorts = new Set(ids(0x8086, "a110-a11f a167-a16a a290-a29f a2e7-a2ee 9d10-9d1b"));

/** Functions whose makers say that they send nothing to each other. */
const isolatedFunctions = new Set([
  ...ids(0x1924, "0903 0923 0a03"),
  ...ids(0x8086, "10c9 10e6-10e8 150a 150d 1518 1526"),
  ...ids(0x8086, "1509 150e-1511 1516 1527 10a7 10a9 10d6 1521-1524 105e-1060 10d9"),
  ...ids(0x8086, "10f8-10fc 1507 1514 151c 1529 152a 154d 154f 1551 1558"),
  ...ids(0x14e4, "16d7 1750-1752"),
  // Ports of X-Gene and Ampere, network functions of Wangxun.
  ...ids(0x10e8, "e004"),
  ...ids(0x1def, "e005-e00c"),
  ...ids(0x8088, "0100-010f 1001 2001"),
]);

/** Functions of AMD's south bridges, which send everything up where the IOMMU is on. */
const southBridges = new Set([
  ...ids(0x1002, "4383 4385 4399 439c 439d"),
  ...ids(0x1022, "7809 780f"),
]);

/** Devices whose DMA carries the id of their function 0, or of a function 1 that may not exist. */
const aliasOfFunction0 = new Set(ids(0x1180, "e832 e476"));
const aliasOfFunction1 = new Set([
  ...ids(0x1b4b, "9120 9123 9125 9128 9130 9170 9172 917a 9182 9183 91a0 9215 9220 9230 9235"),
  ...ids(0x1103, "0642 0645"),
  ...ids(0x197b, "2388"),
  ...ids(0x1c28, "0122"),
]);

/** Bridges to PCI that take over their secondary bus's id, and do not say that they are Express. */
const hiddenExpressBridges = new Set([
  ...ids(0x1b21, "1080"),
  ...ids(0x10e3, "8113"),
  ...ids(0x1283, "8892 8893"),
  ...ids(0x8086, "244e"),
]);

/** Bridges at which translation happens. */
const translationRoots = new Set(ids(0x14e4, "9000 9084"));

/** Whether a port's ACS control register stands 8 bytes into the capability instead of 6. */
export function hasWideAcs(one: Pick<QuirkSubject, "vendor" | "device" | "portType">): boolean {
  return one.portType === "root-port" && wideAcsPorts.has(key(one.vendor, one.device));
}

/** The quirks of a function; null when it has none. */
export function quirksOf(one: QuirkSubject): PciQuirks | null {
  const id = key(one.vendor, one.device);
  const isPort = one.portType === "root-port" && isolatingPorts.has(id);
  const isSouth = one.hasIvrs && one.isMultifunction && one.above === null && southBridges.has(id);
  if (isPort || isSouth || isolatedFunctions.has(id)) return { isolated: true };
  if (aliasOfFunction0.has(id) && (one.devfn & 7) !== 0) {
    return { aliasDevfns: [one.devfn & 0xf8] };
  }
  if (aliasOfFunction1.has(id) && (one.devfn & 7) !== 1) {
    return { aliasDevfns: [(one.devfn & 0xf8) | 1] };
  }
  const isHidden =
    hiddenExpressBridges.has(id) &&
    one.header === "bridge" &&
    one.portType === "conventional" &&
    one.above !== null &&
    one.above !== "conventional" &&
    one.above !== "pcie-to-pci-bridge";
  if (isHidden) return { aliasesSecondaryBus: true };
  return translationRoots.has(id) ? { isTranslationRoot: true } : null;
}
