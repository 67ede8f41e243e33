/**
 * Guests and the descriptions that their kernels read: what firmware they have, which driver, and
 * what happens to each kind of description there.
 *
 * Source: Linux 7.2 drivers/acpi/{viot.c,scan.c,bus.c}, drivers/acpi/arm64/iort.c,
 * drivers/iommu/of_iommu.c, drivers/iommu/Kconfig; the RFC series of November 2019.
 */
import type { Machine } from "../../topology/machine.ts";
import { RFC_FIXUP_DEVICE } from "../builtin/formats.ts";

/** One thing that a kernel does, and where. */
export interface Rule {
  /** In sentence form without a full stop. */
  readonly text: string;
  /** Source file and function. */
  readonly source: string;
}

/** How hardware is described to a guest. */
export type DescriptionName =
  | "viot"
  | "viot-draft"
  | "iort"
  | "dmar"
  | "ivrs"
  | "devicetree"
  | "builtin"
  | "cmdline";

/** A description that a guest is given. */
export interface GuestDescription {
  readonly kind: DescriptionName;
  /** What it says, out of its reader. */
  readonly machine: Machine;
}

/** `microvm` has neither ACPI nor a devicetree. */
export type PlatformName = "x86-acpi" | "arm-acpi" | "devicetree" | "microvm";

/** A guest. */
export interface GuestPlatform {
  readonly name: PlatformName;
  /** Linux 7.2, or the kernel of the RFC. */
  readonly kernel: "linux-7.2" | "rfc-2019";
  /** The virtio-iommu driver: a late module comes when the wait for it is over. */
  readonly driver: "built-in" | "module" | "late-module" | "none";
  /** Whether the kernel can load modules; without, nobody waits for a driver. */
  readonly hasModules: boolean;
  /** `deferred_probe_timeout=`; −1 waits for ever. */
  readonly deferSeconds: number;
  /** Whether ACPI has an object for each PCI function (q35 yes, QEMU's microvm no). */
  readonly namesFunctions: boolean;
}

const common = {
  kernel: "linux-7.2",
  driver: "module",
  hasModules: true,
  deferSeconds: 10,
  namesFunctions: true,
} as const;

/** Guests as distributions make them. */
export const platforms: Readonly<Record<PlatformName, GuestPlatform>> = {
  "x86-acpi": { ...common, name: "x86-acpi" },
  "arm-acpi": { ...common, name: "arm-acpi" },
  devicetree: { ...common, name: "devicetree", namesFunctions: false },
  microvm: { ...common, name: "microvm", namesFunctions: false },
};

/** What becomes of a description on a platform. */
export interface DescriptionUse {
  readonly isRead: boolean;
  readonly rule: Rule;
}

const rule = (text: string, source: string): Rule => ({ text, source });

/** Whether a kernel reads a description at all. @param machine - what there is */
export function useOf(
  kind: DescriptionName,
  platform: GuestPlatform,
  { functions }: Pick<Machine, "functions">,
): DescriptionUse {
  const no = (text: string, source: string) => ({ isRead: false, rule: rule(text, source) });
  const yes = (text: string, source: string) => ({ isRead: true, rule: rule(text, source) });
  const isAcpi = platform.name === "x86-acpi" || platform.name === "arm-acpi";
  const isRfc = platform.kernel === "rfc-2019";
  if (kind === "devicetree") {
    return platform.name === "devicetree"
      ? yes(
          "`iommus` and `iommu-map` are looked up for each device",
          "of_iommu.c: of_iommu_configure",
        )
      : no("this platform boots without a devicetree", "drivers/of/fdt.c: early_init_dt_scan");
  }
  if (kind === "builtin") {
    if (!isRfc) return no("no released Linux reads topology in config space", "virtio-iommu.c");
    if (!functions.some((one) => one.vendor === 0x1af4 && one.device === RFC_FIXUP_DEVICE)) {
      const text = "its fixup knows device 1af4:1014 alone, and none is there";
      return no(text, "RFC: virtio-iommu-topology.c");
    }
    return platform.name === "microvm"
      ? yes("an early PCI fixup reads it, before any driver", "RFC: virtio-iommu-topology.c")
      : no("firmware describes the host bridge and goes first", "RFC: virtio-iommu-topology.c");
  }
  if (kind === "cmdline") {
    const text = "the parameter creates devices and says nothing of what an IOMMU translates";
    return no(text, "drivers/virtio/virtio_mmio.c: vm_cmdline_set");
  }
  if (!isAcpi) return no("this platform has no ACPI tables", "drivers/acpi/bus.c: acpi_init");
  return acpiUse(kind, platform, yes, no);
}

type Answer = (text: string, source: string) => DescriptionUse;

function acpiUse(
  kind: "viot" | "viot-draft" | "iort" | "dmar" | "ivrs",
  { name, kernel, driver }: GuestPlatform,
  yes: Answer,
  no: Answer,
): DescriptionUse {
  const isRfc = kernel === "rfc-2019";
  switch (kind) {
    case "viot":
      if (isRfc) return no("this kernel knows the draft alone", "RFC: drivers/acpi/viot.c");
      // CONFIG_ACPI_VIOT is no choice of its own: VIRTIO_IOMMU selects it.
      return driver === "none"
        ? no("a kernel without virtio-iommu is built without VIOT", "drivers/iommu/Kconfig")
        : yes("VIOT is read at the end of ACPI init, after the PCI scan", "viot.c: acpi_viot_init");
    case "viot-draft":
      return isRfc
        ? yes("the IORT inside is read as one of its own", "RFC: drivers/acpi/viot.c")
        : no("the draft reads as node count 0; it still asks for ACS", "viot.c: acpi_viot_init");
    case "iort":
      return name === "arm-acpi" || isRfc
        ? yes("IORT is read before the namespace scan", "iort.c: acpi_iort_init")
        : no("IORT is read on Arm alone", "drivers/acpi/arm64/Kconfig");
    case "dmar":
    case "ivrs":
      return name === "x86-acpi"
        ? yes(`${kind.toUpperCase()} is read at pci_iommu_init`, "arch/x86/kernel/pci-dma.c")
        : no(`${kind.toUpperCase()} is read on x86 alone`, "drivers/iommu/Kconfig");
  }
}

/** The order in which a kernel comes to know of IOMMUs and endpoints. */
export function bootOrder({ name, kernel }: GuestPlatform): readonly Rule[] {
  const probe = rule(
    "endpoints bind; those whose IOMMU is not there wait",
    "base/dd.c: really_probe",
  );
  const driver = rule(
    "virtio-iommu registers and takes the groups in",
    "virtio-iommu.c: viommu_probe",
  );
  switch (name) {
    case "x86-acpi":
      return [
        rule("SRAT and SLIT give the nodes", "drivers/acpi/numa/srat.c"),
        rule("the presence of VIOT asks for ACS", "viot.c: acpi_viot_early_init"),
        rule("PCI is scanned, ACS is turned on", "drivers/pci/pci.c: pci_acs_init"),
        rule("VIOT is parsed; an IOMMU must be at its final BDF", "viot.c: acpi_viot_init"),
        rule("VT-d and AMD-Vi take every device that nobody claims", "pci-dma.c: pci_iommu_init"),
        ...[probe, driver],
      ];
    case "arm-acpi":
      return [
        rule("SRAT and SLIT give the nodes", "drivers/acpi/numa/srat.c"),
        rule("IORT makes platform devices of SMMUs", "iort.c: acpi_iort_init"),
        rule("PCI is scanned, ACS is turned on", "drivers/pci/pci.c: pci_acs_init"),
        rule("VIOT is parsed", "viot.c: acpi_viot_init"),
        rule("for a device: IORT, then RIMT, then VIOT", "scan.c: acpi_iommu_configure_id"),
        ...[probe, driver],
      ];
    case "devicetree":
      return [
        rule("numa-node-id and distance-map give the nodes", "drivers/of/of_numa.c: of_numa_init"),
        rule(
          "nodes become platform devices",
          "drivers/of/platform.c: of_platform_default_populate",
        ),
        rule(
          "for a device: iommus, or the host bridge's iommu-map",
          "of_iommu.c: of_iommu_configure",
        ),
        ...[probe, driver],
      ];
    case "microvm":
      return [
        ...(kernel === "rfc-2019"
          ? [rule("an early PCI fixup reads the config space", "RFC: virtio-iommu-topology.c")]
          : []),
        rule("the command line makes virtio-mmio devices", "virtio_mmio.c: vm_cmdline_set"),
        ...[probe, driver],
      ];
  }
}
