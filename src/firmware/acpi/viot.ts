/**
 * VIOT, the Virtual I/O Translation table, in its final form and in the draft of 2019 that wraps
 * one vendor's table. Source: ACPI specification 6.5, 5.2.34; Linux include/acpi/actbl3.h; for the
 * draft, "ACPI: Add VIOT definitions" of the series "virtio-iommu on non-devicetree platforms".
 */
import { address, bdf, records, structure, u8, u16, u32 } from "../table-format.ts";
import { headerFields } from "./header.ts";

const head = {
  type: u8(0, "kind of node"),
  length: u16(2, "bytes of the node", { as: "count" }),
};
/** A node of any type. */
export const ViotNode = structure("viot-node", null, "VIOT node of unknown type", 4, head);

/** Type 1: PCI functions of a range, on one or several segments. */
export const PciRange = structure("pci-range", 1, "PCI range", 24, {
  ...head,
  endpointStart: u32(4, "endpoint ID of bdfStart on segmentStart"),
  segmentStart: u16(8, "first PCI segment"),
  segmentEnd: u16(10, "last PCI segment, inclusive"),
  bdfStart: bdf(12, "first function"),
  bdfEnd: bdf(14, "last function, inclusive"),
  outputNode: u16(16, "offset of the IOMMU's node from the start of the table"),
});

/** Type 2: a device known by the address of its registers. */
export const MmioEndpoint = structure("mmio-endpoint", 2, "MMIO endpoint", 24, {
  ...head,
  endpoint: u32(4, "endpoint ID"),
  base: address(8, "start of its first memory resource"),
  outputNode: u16(16, "offset of the IOMMU's node from the start of the table"),
});

/** Type 3: a virtio-iommu that is a PCI function. */
export const VirtioPci = structure("virtio-iommu-pci", 3, "virtio-iommu, PCI", 16, {
  ...head,
  segment: u16(4, "PCI segment"),
  bdf: bdf(6, "the IOMMU's function"),
});

/** Type 4: a virtio-iommu with registers in memory. */
export const VirtioMmio = structure("virtio-iommu-mmio", 4, "virtio-iommu, MMIO", 16, {
  ...head,
  base: address(8, "an address inside its registers"),
});

/** The final form. */
export const Viot = structure(
  "VIOT",
  null,
  "Virtual I/O Translation table",
  48,
  {
    ...headerFields,
    nodeCount: u16(36, "nodes of all types", { as: "count" }),
    nodeOffset: u16(38, "where the first node starts"),
  },
  [
    {
      part: "records",
      list: records("VIOT nodes", ViotNode, [PciRange, MmioEndpoint, VirtioPci, VirtioMmio]),
      at: "nodeOffset",
    },
  ],
);

/** The draft of 2019: an envelope around a complete table of another kind. */
export const ViotDraft = structure(
  "VIOT-draft",
  null,
  "Virtual I/O Translation table, draft that wraps another table",
  48,
  headerFields,
  [{ part: "table", at: 48 }],
);

/** Signatures that a draft may wrap. */
export const wrappedSignatures: readonly string[] = ["IORT", "DMAR", "IVRS"];
