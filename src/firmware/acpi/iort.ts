/**
 * IORT, the I/O Remapping Table: all node types, with the virtio-iommu nodes that drafts of 2019
 * added to it. Source: Arm DEN0049 issue E.f; Linux include/acpi/actbl2.h; for types 0x80 and 0x81
 * "ACPI/IORT: Support VIOT virtio-pci node" and "… virtio-mmio node" of the series "virtio-iommu on
 * non-devicetree platforms", and cloud-hypervisor's tables of its time.
 */
import {
  address,
  type PartFormat,
  records,
  structure,
  u8,
  u16,
  u32,
  u64,
} from "../table-format.ts";
import { headerFields } from "./header.ts";

const head = {
  type: u8(0, "kind of node"),
  length: u16(1, "bytes of the node", { as: "count" }),
  revision: u8(3, "revision of the node's layout", { as: "count" }),
  identifier: u32(4, "number of the node"),
  mappingCount: u32(8, "ID mappings", { as: "count" }),
  mappingOffset: u32(12, "where they start, from the start of the node"),
};

/** How input IDs become output IDs. */
export const IdMapping = structure("id-mapping", null, "ID mapping", 20, {
  inputBase: u32(0, "first input ID"),
  idCount: u32(4, "number of IDs, minus one"),
  outputBase: u32(8, "output ID of the first"),
  outputReference: u32(12, "offset of the node that gets them, from the start of the table"),
  flags: u32(16, "how to map", { bits: { singleMapping: 0 } }),
});

const mappings: PartFormat = {
  part: "array",
  of: IdMapping,
  at: "mappingOffset",
  count: "mappingCount",
};

/** Memory access properties: eight bytes, the flags in the last of them. */
const memoryAccess = (at: number) => ({
  cacheCoherent: u32(at, "1: accesses are coherent"),
  allocationHints: u8(at + 4, "hints for caches", {
    bits: { transient: 0, writeAllocate: 1, readAllocate: 2, override: 3 },
  }),
  memoryFlags: u8(at + 7, "memory access flags", {
    bits: { coherentPathToMemory: 0, deviceAttributesCoherent: 1, canonicalWriteBack: 2 },
  }),
});
const interruptBits = { bits: { edgeTriggered: 0 } };

/** A node of any type. */
export const IortNode = structure("iort-node", null, "IORT node of unknown type", 16, head, [
  mappings,
]);

const ItsId = structure("its-id", null, "ITS identifier", 4, { id: u32(0, "as in the MADT") });

/** Type 0. */
export const ItsGroup = structure(
  "its-group",
  0,
  "ITS group",
  20,
  { ...head, itsCount: u32(16, "translation services", { as: "count" }) },
  [{ part: "array", of: ItsId, at: 20, count: "itsCount" }, mappings],
);

/** Type 1: a device of the ACPI namespace. */
export const NamedComponent = structure(
  "named-component",
  1,
  "Named component",
  29,
  {
    ...head,
    ...memoryAccess(20),
    flags: u32(16, "what the device can do", { bits: { stall: 0, pasidBits: [1, 5] } }),
    addressBits: u8(28, "width of addresses that it emits", { as: "count" }),
  },
  [mappings, { part: "text", name: "path", at: 29 }],
);

const RootComplexFlags = structure("root-complex-flags", null, "Root complex flags", 4, {
  flags: u32(0, "since node revision 4", { bits: { pasidDescriptors: 0 } }),
});

/** Type 2. */
export const RootComplex = structure(
  "root-complex",
  2,
  "PCI root complex",
  36,
  {
    ...head,
    ...memoryAccess(16),
    ats: u32(24, "what it supports", { bits: { ats: 0, pri: 1, pasid: 2 } }),
    segment: u32(28, "PCI segment"),
    addressBits: u8(32, "width of addresses that it emits", { as: "count" }),
    pasid: u16(33, "PASID capabilities", { bits: { maximumWidth: [0, 4] } }),
  },
  [
    mappings,
    {
      part: "array",
      of: RootComplexFlags,
      at: 36,
      count: 1,
      since: ["revision", 4],
      isOptional: true,
    },
  ],
);

const GlobalInterrupt = structure("global-interrupt", null, "Global interrupt", 8, {
  gsiv: u32(0, "interrupt number"),
  flags: u32(4, "trigger", interruptBits),
});
/** An interrupt of a context or of the performance counters. */
export const SmmuInterrupt = structure("smmu-interrupt", null, "Interrupt", 8, {
  gsiv: u32(0, "interrupt number"),
  flags: u32(4, "trigger", interruptBits),
});

/** Type 3: SMMUv1 or SMMUv2. */
export const SmmuV2 = structure(
  "smmu",
  3,
  "SMMUv1 or SMMUv2",
  60,
  {
    ...head,
    base: address(16, "registers"),
    span: u64(24, "bytes of registers"),
    model: u32(32, "implementation", {
      names: { 0: "SMMUv1", 1: "SMMUv2", 2: "MMU-400", 3: "MMU-500", 4: "MMU-401", 5: "ThunderX" },
    }),
    flags: u32(36, "properties", { bits: { dvm: 0, coherentWalk: 1 } }),
    globalOffset: u32(40, "where the global interrupts stand in the node"),
    contextCount: u32(44, "context interrupts", { as: "count" }),
    contextOffset: u32(48, "where they stand"),
    pmuCount: u32(52, "interrupts of performance counters", { as: "count" }),
    pmuOffset: u32(56, "where they stand"),
  },
  [
    { part: "array", of: GlobalInterrupt, at: "globalOffset", count: 2 },
    { part: "array", of: SmmuInterrupt, at: "contextOffset", count: "contextCount" },
    { part: "array", of: SmmuInterrupt, at: "pmuOffset", count: "pmuCount" },
    mappings,
  ],
);

/** What later revisions of the SMMUv3 node add. */
export const SmmuV3Placement = structure("smmu-v3-placement", null, "SMMUv3 placement", 8, {
  proximityDomain: u32(0, "NUMA node, where flags say that it is valid"),
  deviceIdMapping: u32(4, "index of the mapping for its own interrupts"),
});

/** Type 4. */
export const SmmuV3 = structure(
  "smmu-v3",
  4,
  "SMMUv3",
  60,
  {
    ...head,
    base: address(16, "registers"),
    flags: u32(24, "properties", {
      bits: { coherentAccess: 0, httu: [1, 2], proximityValid: 3, deviceIdValid: 4 },
    }),
    vatos: address(32, "address of the VATOS registers"),
    model: u32(40, "implementation", { names: { 0: "generic", 1: "Hi161x", 2: "CN99xx" } }),
    eventGsiv: u32(44, "interrupt of the event queue"),
    priGsiv: u32(48, "interrupt of the page request queue"),
    errorGsiv: u32(52, "interrupt of global errors"),
    syncGsiv: u32(56, "interrupt of command synchronization"),
  },
  [mappings, { part: "array", of: SmmuV3Placement, at: 60, count: 1, isOptional: true }],
);

const PmcgPage1 = structure("pmcg-page-1", null, "PMCG page 1", 8, {
  base: address(0, "second page of registers"),
});

/** Type 5: performance monitors. */
export const Pmcg = structure(
  "pmcg",
  5,
  "Performance monitoring counter group",
  32,
  {
    ...head,
    base: address(16, "first page of registers"),
    overflowGsiv: u32(24, "interrupt of overflows"),
    nodeReference: u32(28, "offset of the node that it counts for"),
  },
  [
    mappings,
    { part: "array", of: PmcgPage1, at: 32, count: 1, since: ["revision", 1], isOptional: true },
  ],
);

/** Memory that a device goes on using. */
export const RmrDescriptor = structure("rmr-descriptor", null, "RMR descriptor", 20, {
  base: address(0, "start"),
  bytes: u64(8, "length"),
});

/** Type 6: reserved memory ranges. */
export const Rmr = structure(
  "rmr",
  6,
  "Reserved memory ranges",
  28,
  {
    ...head,
    flags: u32(16, "how it may be mapped", {
      bits: { remappable: 0, privileged: 1, attributes: [2, 9] },
    }),
    descriptorCount: u32(20, "ranges", { as: "count" }),
    descriptorOffset: u32(24, "where they start, from the start of the node"),
  },
  [
    { part: "array", of: RmrDescriptor, at: "descriptorOffset", count: "descriptorCount" },
    mappings,
  ],
);

/** Type 7: interrupt wire bridge of GICv5. */
const Iwb = structure(
  "iwb",
  7,
  "Interrupt wire bridge",
  26,
  { ...head, base: address(16, "registers"), index: u16(24, "number of the bridge") },
  [mappings, { part: "text", name: "path", at: 26 }],
);

/** Type 0x80 of the series of November 2019. */
export const DraftVirtioPci = structure("draft-virtio-iommu-pci", 0x80, "virtio-iommu, PCI", 20, {
  ...head,
  devid: u32(16, "segment, bus, device and function", {
    bits: { function: [0, 2], device: [3, 7], bus: [8, 15], segment: [16, 31] },
  }),
});

/** Type 0x80 as cloud-hypervisor wrote it from October 2019 to January 2020. */
export const DraftParavirt = structure("draft-paravirt-iommu", 0x80, "Paravirtual IOMMU", 56, {
  ...head,
  devid: u32(16, "device id"),
  model: u32(32, "kind", { names: { 1: "virtio-iommu, PCI" } }),
  flags: u32(36, "properties"),
});

/** Type 0x81 of the series of November 2019. */
export const DraftVirtioMmio = structure(
  "draft-virtio-iommu-mmio",
  0x81,
  "virtio-iommu, MMIO",
  48,
  {
    ...head,
    base: address(16, "registers"),
    span: u64(24, "bytes of registers"),
    flags: u64(32, "bit 0: walks are coherent"),
    gsiv: u32(40, "interrupt number"),
    trigger: u32(44, "how it triggers", { names: { 0: "level", 1: "edge" } }),
  },
);

/** The table. */
export const Iort = structure(
  "IORT",
  null,
  "I/O Remapping Table",
  48,
  {
    ...headerFields,
    nodeCount: u32(36, "nodes of all types", { as: "count" }),
    nodeOffset: u32(40, "where the first node starts"),
  },
  [
    {
      part: "records",
      list: records("IORT nodes", IortNode, [
        ItsGroup,
        NamedComponent,
        RootComplex,
        SmmuV2,
        SmmuV3,
        Pmcg,
        Rmr,
        Iwb,
        DraftVirtioPci,
        DraftParavirt,
        DraftVirtioMmio,
      ]),
      at: "nodeOffset",
    },
  ],
);
