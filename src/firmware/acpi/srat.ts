/**
 * SRAT, the System Resource Affinity Table: which CPUs, memory and initiators belong to which
 * proximity domain. Source: ACPI specification 6.5, 5.2.16; Linux include/acpi/actbl3.h.
 */
import { address, records, structure, u8, u16, u32, u64 } from "../table-format.ts";
import { headerFields } from "./header.ts";

const head = {
  type: u8(0, "kind of entry"),
  length: u8(1, "bytes of the entry", { as: "count" }),
};
const enabled = { bits: { enabled: 0 } };
const domain = (at: number) => u32(at, "proximity domain", { as: "count" });

/** An entry of any type. */
export const SratEntry = structure("srat-entry", null, "SRAT entry of unknown type", 2, head);

/** Type 0. */
export const ApicAffinity = structure("apic", 0, "Processor, local APIC", 16, {
  ...head,
  domainLow: u8(2, "proximity domain, bits 7:0", { as: "count" }),
  apicId: u8(3, "local APIC ID"),
  flags: u32(4, "whether it counts", enabled),
  sapicEid: u8(8, "local SAPIC EID"),
  domainMiddle: u8(9, "proximity domain, bits 15:8"),
  domainHigh: u16(10, "proximity domain, bits 31:16"),
  clockDomain: u32(12, "clock domain"),
});

/** Type 1. */
export const MemoryAffinity = structure("memory", 1, "Memory", 40, {
  ...head,
  domain: domain(2),
  base: address(8, "start"),
  bytes: u64(16, "length"),
  flags: u32(28, "what memory it is", {
    bits: { enabled: 0, hotPluggable: 1, nonVolatile: 2, specificPurpose: 3 },
  }),
});

/** Type 2. */
export const X2ApicAffinity = structure("x2apic", 2, "Processor, x2APIC", 24, {
  ...head,
  domain: domain(4),
  apicId: u32(8, "x2APIC ID"),
  flags: u32(12, "whether it counts", enabled),
  clockDomain: u32(16, "clock domain"),
});

/** Type 3. */
export const GiccAffinity = structure("gicc", 3, "Processor, GIC CPU interface", 18, {
  ...head,
  domain: domain(2),
  processorUid: u32(6, "ACPI processor UID"),
  flags: u32(10, "whether it counts", enabled),
  clockDomain: u32(14, "clock domain"),
});

/** Type 4. */
export const ItsAffinity = structure("gic-its", 4, "GIC ITS", 12, {
  ...head,
  domain: domain(2),
  itsId: u32(8, "ITS ID, as in the MADT"),
});

const initiator = {
  ...head,
  handleType: u8(3, "what the handle is", { names: { 0: "ACPI", 1: "PCI" } }),
  domain: domain(4),
  handle: { kind: "bytes", at: 8, length: 16, doc: "which device" },
  flags: u32(24, "whether it counts", { bits: { enabled: 0, architecturalTransactions: 1 } }),
} as const;

/** Type 5. */
export const GenericInitiator = structure(
  "generic-initiator",
  5,
  "Generic initiator",
  32,
  initiator,
);
/** Type 6. */
export const GenericPort = structure("generic-port", 6, "Generic port", 32, initiator);

/** Type 7. */
export const RintcAffinity = structure("rintc", 7, "Processor, RISC-V interrupt controller", 20, {
  ...head,
  domain: domain(4),
  processorUid: u32(8, "ACPI processor UID"),
  flags: u32(12, "whether it counts", enabled),
  clockDomain: u32(16, "clock domain"),
});

/** The table. */
export const Srat = structure(
  "SRAT",
  null,
  "System Resource Affinity Table",
  48,
  { ...headerFields, tableRevision: u32(36, "must be 1", { as: "count" }) },
  [
    {
      part: "records",
      list: records("SRAT entries", SratEntry, [
        ApicAffinity,
        MemoryAffinity,
        X2ApicAffinity,
        GiccAffinity,
        ItsAffinity,
        GenericInitiator,
        GenericPort,
        RintcAffinity,
      ]),
      at: 48,
    },
  ],
);
