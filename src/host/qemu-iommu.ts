/**
 * The IOMMU that a virtual machine's configuration gives to its guest, and what it translates.
 *
 * Source: QEMU hw/acpi/viot.c (one range for each root bus that does not bypass), hw/i386/
 * acpi-build.c:build_dmar_q35 (functions of root buses, bridges with what is below), hw/arm/
 * virt-acpi-build.c (IORT), hw/virtio/virtio-iommu.c, hw/i386/intel_iommu.c, hw/arm/virt.c.
 */
import type { Iommu, RidRange } from "../topology/machine.ts";
import { hex } from "../units.ts";
import type { VmFunction, VmHostBridge } from "./qemu-bus.ts";
import { isOn, type QemuOption, wholeNumber } from "./qemu-options.ts";
import type { Viommu } from "./vm.ts";

const GRANULE = 4096;
const VTD_BASE = 0xfed9_0000n;
const AMD_BASE = 0xfed8_0000n;
const SMMU_BASE = 0x0905_0000n;

const granules = new Map([
  ["4k", GRANULE],
  ["8k", 2 * GRANULE],
  ["16k", 4 * GRANULE],
  ["64k", 16 * GRANULE],
]);

type Values = ReadonlyMap<string, string>;

/** Which IOMMU an option asks for; null for none. */
export function iommuKindOf(option: QemuOption): Viommu["kind"] | null {
  const { name, values } = option;
  if (name === "machine") return values.get("iommu") === "smmuv3" ? "smmuv3" : null;
  if (name !== "device") return null;
  const driver = values.get("driver") ?? "";
  if (/^virtio-iommu(-pci|$)/.test(driver)) return "virtio";
  if (driver === "intel-iommu") return "vtd";
  if (driver === "amd-iommu") return "amd";
  return driver === "arm-smmuv3" ? "smmuv3" : null;
}

/**
 * Why QEMU would not make an IOMMU; null when it would, or the option is none.
 *
 * Source: QEMU hw/virtio/virtio-iommu.c, virtio-iommu-pci.c, hw/i386/pc.c:
 * pc_machine_device_pre_plug_cb, hw/arm/virt.c.
 *
 * @param earlier - the option of the one that there is
 * @param root - name of the first root bus
 * @param board - `q35`, `pc`, `virt` or another machine type
 */
export function refusedIommu(
  { values }: QemuOption,
  kind: Viommu["kind"] | null,
  earlier: QemuOption | null,
  { root, board }: { readonly root: string; readonly board: string },
): string | null {
  if (values.get("driver") === "virtio-iommu-device") {
    return "QEMU has no virtio-iommu on virtio-mmio; one of another process needs force-legacy=false";
  }
  if (kind === null) return null;
  if ((kind === "vtd" || kind === "amd") && /^(pc|isapc|microvm|virt)$/.test(board)) {
    return `machine type ${board} takes no such IOMMU; q35 does`;
  }
  // Of Arm's there may be one for each root bus.
  if (earlier !== null && (kind !== "smmuv3" || iommuKindOf(earlier) !== "smmuv3")) {
    return "there is an IOMMU already, and QEMU takes one";
  }
  const name = values.get("bus")?.replace(/^.*\//, "");
  const isOnRoot = name === undefined || name === root;
  return kind === "virtio" && !isOnRoot ? "virtio-iommu-pci goes on the root bus only" : null;
}

/** Width of input addresses where `aw-bits=` is not given: q35 and virt set it, others leave 64. */
const virtioBits = new Map([
  ["q35", 39],
  ["virt", 48],
]);

/** What its properties say. @param name - as `/sys/class/iommu` of the guest will have it */
export function viommuOf(
  option: QemuOption,
  kind: Viommu["kind"],
  name: string,
  board: string,
): Viommu {
  const { values, text: argument } = option;
  const on = (key: string, byItself: boolean) => isOn(values, key, byItself);
  const bits = wholeNumber(values.get("aw-bits") ?? values.get("aw_bits"));
  const isRegister = kind === "vtd" || kind === "amd";
  return {
    name,
    kind,
    bootBypass: kind === "virtio" ? on("boot-bypass", true) : null,
    cachingMode: kind === "vtd" ? on("caching-mode", false) : kind === "amd" ? true : null,
    interruptRemapping: isRegister ? on("intremap", true) : null,
    deviceIotlb: isRegister ? on("device-iotlb", false) : null,
    firstLevel: kind === "vtd" && on("x-scalable-mode", false) && on("x-flts", false),
    addressBits: bits ?? (kind === "virtio" ? (virtioBits.get(board) ?? 64) : 48),
    granuleBytes: granules.get(values.get("granule") ?? "") ?? GRANULE,
    argument,
  };
}

/** What the tables of QEMU will say about it. */
export function iommuOf(
  viommu: Viommu,
  own: VmFunction | null,
  roots: readonly VmHostBridge[],
  values: Values,
): Iommu {
  const primary = values.get("primary-bus");
  const covered = roots.filter(
    ({ bus, bypassesIommu }) => !bypassesIommu && (primary === undefined || bus.name === primary),
  );
  const common = {
    name: viommu.name,
    node: null,
    includesRest: false,
    translates: covered.flatMap((root) =>
      viommu.kind === "vtd" ? scopesOf(root) : [rangeOf(root.firstBus, root.lastBus)],
    ),
    endpoints: [],
    interruptSources: [],
  };
  const rid = own === null ? 0 : own.bus.number * 256 + own.devfn;
  const registers = (start: bigint, bytes: bigint) => ({ start, last: start + bytes - 1n });
  switch (viommu.kind) {
    case "virtio":
      return { ...common, kind: "virtio-pci", segment: 0, rid };
    case "vtd":
      return {
        ...common,
        kind: "vtd",
        segment: 0,
        registers: registers(VTD_BASE, 0x1000n),
        version: null,
        capability: null,
        extendedCapability: null,
      };
    case "amd":
      return {
        ...common,
        kind: "amd",
        segment: 0,
        rid,
        capabilityOffset: 0x40,
        registers: registers(AMD_BASE, 0x4000n),
        features: null,
        features2: null,
      };
    case "smmuv3":
      return {
        ...common,
        kind: "smmuv3",
        registers: registers(SMMU_BASE, 0x2_0000n),
        isCoherent: true,
        interrupts: [],
      };
  }
}

function rangeOf(firstBus: number, lastBus: number): RidRange {
  const firstRid = firstBus * 256;
  const lastRid = lastBus * 256 + 255;
  return { segment: 0, firstRid, lastRid, firstId: firstRid, includesBelow: false };
}

function scopesOf(root: VmHostBridge): RidRange[] {
  return [...root.bus.functions.values()]
    .sort((a, b) => a.devfn - b.devfn)
    .map(({ devfn, secondary }) => {
      const rid = root.firstBus * 256 + devfn;
      const includesBelow = secondary !== null;
      return { segment: 0, firstRid: rid, lastRid: rid, firstId: rid, includesBelow };
    });
}

/** Name of an IOMMU that is no PCI function. */
export function unitName(kind: Viommu["kind"], at: number): string {
  if (kind === "vtd") return `dmar${at}`;
  return kind === "amd" ? `ivhd${at}` : `smmu3.${hex(SMMU_BASE, 16)}`;
}
