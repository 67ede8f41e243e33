/** The virtio-iommu nodes of the drafts of 2019, which stand in an IORT that a VIOT wraps. */
import { pciName } from "../../iommu/pci-function.ts";
import type { Iommu } from "../../topology/machine.ts";
import { addressOfRid } from "../../topology/pci-address.ts";
import { hex } from "../../units.ts";
import { isA, type Structure } from "../table-item.ts";
import { DraftParavirt, DraftVirtioMmio, DraftVirtioPci } from "./iort.ts";

/** Whether a node is one of the drafts'. */
export function isDraft(node: Structure): boolean {
  return isA(node, DraftVirtioPci) || isA(node, DraftVirtioMmio) || isA(node, DraftParavirt);
}

/** A virtio-iommu of the drafts. */
export function draftIommu(
  node: Structure,
  common: Omit<Iommu, "kind" | "name" | "registers">,
): Iommu {
  if (isA(node, DraftVirtioMmio)) {
    const { base, span, gsiv } = node.values;
    return {
      ...common,
      kind: "virtio-mmio",
      name: `virtio-mmio.${hex(base)}`,
      registers: { start: base, last: base + (span === 0n ? 0n : span - 1n) },
      interrupts: [gsiv],
    };
  }
  const devid = Number(node.values.devid);
  const segment = Math.floor(devid / 0x1_0000);
  const rid = devid % 0x1_0000;
  const name = pciName(addressOfRid(segment, rid));
  return { ...common, kind: "virtio-pci", name, segment, rid };
}
