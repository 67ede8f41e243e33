/**
 * From a device to what the descriptions say of it, and whether that leads to an IOMMU that exists.
 *
 * Source: Linux 7.2 drivers/acpi/viot.c: viot_dev_iommu_init, viot_get_pci_iommu_fwnode,
 * viot_get_mmio_iommu_fwnode; drivers/iommu/of_iommu.c; drivers/acpi/scan.c:
 * acpi_iommu_configure_id (IORT, then RIMT, then VIOT).
 */
import { eachDmaAlias } from "../../iommu/group-rules.ts";
import { ridOf } from "../../iommu/pci-function.ts";
import type { Iommu, Machine, PlatformDevice } from "../../topology/machine.ts";
import { type Translation, TranslationMap } from "../../topology/translation.ts";
import type { DescriptionName, GuestDescription, Rule } from "./platform.ts";

/** What was found for a device. */
export interface Found {
  /**
   * `present`: the IOMMU is there. `absent`: the kernel knows a firmware node under which nothing
   * will ever register. `broken`: the entry leads nowhere. `itself`: the device is the IOMMU.
   */
  readonly state: "present" | "absent" | "broken" | "itself";
  /** The machine's IOMMU. */
  readonly iommu: Iommu | null;
  readonly ids: readonly number[];
  readonly holes: readonly number[];
  readonly isSilent: boolean;
  readonly rules: readonly Rule[];
}

/** VT-d and AMD-Vi own what nobody claimed before; then the order of ACPI's lookup. */
const order: readonly DescriptionName[] = [
  "dmar",
  "ivrs",
  "iort",
  "viot-draft",
  "viot",
  "devicetree",
  "builtin",
];

const functionNames: Readonly<Record<DescriptionName, string>> = {
  dmar: "drivers/iommu/intel/iommu.c: device_lookup_iommu",
  ivrs: "drivers/iommu/amd/iommu.c: amd_iommu_probe_device",
  iort: "drivers/acpi/arm64/iort.c: iort_iommu_configure_id",
  viot: "drivers/acpi/viot.c: viot_iommu_configure",
  "viot-draft": "RFC: drivers/acpi/viot.c",
  devicetree: "drivers/iommu/of_iommu.c: of_iommu_configure",
  builtin: "RFC: virtio-iommu-topology.c",
  cmdline: "drivers/virtio/virtio_mmio.c",
};

interface Source {
  readonly kind: DescriptionName;
  readonly said: Machine;
  readonly map: TranslationMap;
}

/** Answers for one guest. */
export class Lookup {
  readonly #machine: Machine;
  readonly #sources: readonly Source[];

  /** @param read - the descriptions that the guest's kernel reads */
  constructor(machine: Machine, read: readonly GuestDescription[]) {
    const { functions, hostBridges } = machine;
    this.#machine = machine;
    this.#sources = read
      .map(({ kind, machine: said }) => {
        const map = new TranslationMap({ ...said, functions, hostBridges });
        return { kind, said, map };
      })
      .sort((a, b) => order.indexOf(a.kind) - order.indexOf(b.kind));
  }

  /** Whether some description gives an IOMMU of the machine a firmware node. */
  describes(iommu: Iommu): boolean {
    return this.#sources.some(({ said }) => said.iommus.some((one) => isSame(one, iommu)));
  }

  /** What is said of a function; null when nothing is. */
  ofFunction(index: number): Found | null {
    const pci = this.#machine.functions[index]!;
    for (const source of this.#sources) {
      // A config space belongs to the IOMMU that it is read from.
      const { iommus } = source.kind === "builtin" ? this.#machine : source.said;
      const own = iommus.find((one) => isAt(one, pci.segment, ridOf(pci)));
      if (own !== undefined && source.kind !== "dmar") {
        const text = "the IOMMU is not put behind itself";
        const rules = [{ text, source: "drivers/acpi/viot.c: viot_dev_iommu_init" }];
        return { state: "itself", iommu: null, ids: [], holes: [], isSilent: false, rules };
      }
      const all = source.map.ofAliases(index);
      const first = all.find((one) => one !== null);
      if (first === undefined || first === null) continue;
      const holes: number[] = [];
      let at = 0;
      eachDmaAlias(this.#machine.functions, index, (_, rid) => {
        if (all[at] === null) holes.push(rid);
        at += 1;
        return false;
      });
      if (all[0] === null) {
        const text = "only an alias of its requester id is covered, not its own";
        const rules = [{ text, source: functionNames[source.kind] }];
        return { state: "broken", iommu: null, ids: [], holes, isSilent: true, rules };
      }
      return this.#resolve(
        source,
        all.filter((one) => one !== null),
        holes,
      );
    }
    return null;
  }

  /** What is said of a platform device. */
  ofDevice(device: PlatformDevice): Found | null {
    const base = device.registers[0]?.start;
    if (base === undefined) return null;
    for (const source of this.#sources) {
      const own = source.said.iommus.find(
        (one) => "registers" in one && one.registers.start === base,
      );
      if (own !== undefined) {
        const rules = [{ text: "the device is the IOMMU", source: functionNames[source.kind] }];
        return { state: "itself", iommu: null, ids: [], holes: [], isSilent: false, rules };
      }
      const found = source.map.ofMmio(base);
      if (found !== null) return this.#resolve(source, [found], []);
    }
    return null;
  }

  /** From the IOMMU that a description names to the one that is there. */
  #resolve({ kind, said }: Source, found: readonly Translation[], holes: readonly number[]): Found {
    const named = said.iommus[found[0]!.iommu]!;
    const ids = [...new Set(found.map(({ id }) => id))];
    const text =
      holes.length > 0
        ? "the device is covered, but not every requester id of its DMA"
        : "the description names its IOMMU and id";
    const rules: Rule[] = [{ text, source: functionNames[kind] }];
    const parts = { ids, holes, isSilent: false };
    const iommu = this.#actual(kind, named);
    if (iommu !== null) return { ...parts, state: "present", iommu, rules };
    // VIOT looks for the device when it is parsed; all others for who registers under the node.
    if (kind !== "viot" || this.#isThere(named)) {
      const known = this.#isThere(named) ? "is there but no IOMMU" : "is not there";
      rules.push({
        text: `what it names ${known}: nothing registers`,
        source: functionNames[kind],
      });
      return { ...parts, state: "absent", iommu: null, rules };
    }
    const what =
      named.kind === "virtio-mmio" ? "Could not find MMIO IOMMU" : "Could not find PCI IOMMU";
    rules.push({
      text: `\`${what}\` at boot: the range is dropped`,
      source: "viot.c: viot_get_iommu",
    });
    return { ...parts, state: "broken", iommu: null, rules };
  }

  #actual(kind: DescriptionName, named: Iommu): Iommu | null {
    const { iommus } = this.#machine;
    // A config space does not say whose it is.
    if (kind === "builtin") return iommus.find((one) => one.kind === "virtio-pci") ?? null;
    return iommus.find((one) => isSame(named, one)) ?? null;
  }

  /** Whether there is any device at all where the description has its IOMMU. */
  #isThere(named: Iommu): boolean {
    if (named.kind === "virtio-pci") {
      const { segment, rid } = named;
      return this.#machine.functions.some((one) => one.segment === segment && ridOf(one) === rid);
    }
    if (named.kind !== "virtio-mmio") return true;
    const { start } = named.registers;
    return this.#machine.platformDevices.some(({ registers }) =>
      registers.some((one) => one.start <= start && start <= one.last),
    );
  }
}

function isAt(iommu: Iommu, segment: number, rid: number): boolean {
  if (iommu.kind !== "virtio-pci" && iommu.kind !== "amd") return false;
  return iommu.segment === segment && iommu.rid === rid;
}

/** Whether what a description names is an IOMMU of the machine; MMIO by containment (F16). */
function isSame(named: Iommu, actual: Iommu): boolean {
  if (actual.kind === "virtio-pci" || actual.kind === "amd") {
    return named.kind === actual.kind && isAt(named, actual.segment, actual.rid);
  }
  if (!("registers" in named) || !("registers" in actual)) return false;
  const { start } = named.registers;
  const isInside = actual.registers.start <= start && start <= actual.registers.last;
  return named.kind === actual.kind && isInside;
}
