/**
 * DMAR, the DMA Remapping table of Intel VT-d. Source: Intel Virtualization Technology for Directed
 * I/O, revision 4.1, section 8 "BIOS Considerations".
 */
import { address, type PartFormat, records, structure, u8, u16, u32 } from "../table-format.ts";
import { headerFields } from "./header.ts";

const head = {
  type: u16(0, "kind of structure"),
  length: u16(2, "bytes of the structure", { as: "count" }),
};

/** A structure of any type. */
export const DmarRecord = structure("dmar-record", null, "DMAR structure of unknown type", 4, head);

/** One step on the way to a device. */
export const PathStep = structure("path", null, "Path step", 2, {
  device: u8(0, "device number"),
  function: u8(1, "function number"),
});

const scopeHead = {
  type: u8(0, "kind of device", {
    names: { 1: "endpoint", 2: "bridge", 3: "IOAPIC", 4: "HPET", 5: "ACPI namespace device" },
  }),
  length: u8(1, "bytes of the scope", { as: "count" }),
  flags: u8(2, "properties, in SIDP"),
  enumerationId: u8(4, "IOAPIC ID, HPET number or ANDD number"),
  startBus: u8(5, "bus of the first step"),
};
/** Types of a device scope. */
export const ScopeType = { ENDPOINT: 1, BRIDGE: 2, IOAPIC: 3, HPET: 4, NAMESPACE: 5 } as const;

/** A device, by the way to it. The form is the same for all types. */
export const DeviceScope = structure("device-scope", null, "Device scope", 6, scopeHead, [
  { part: "array", of: PathStep, at: 6, count: "rest" },
]);

const scopes = (at: number): PartFormat => ({
  part: "records",
  list: records("Device scopes", DeviceScope, []),
  at,
});

/** Type 0: a remapping unit. */
export const Drhd = structure(
  "drhd",
  0,
  "DMA remapping hardware unit",
  16,
  {
    ...head,
    flags: u8(4, "which devices", { bits: { includePciAll: 0 } }),
    size: u8(5, "size of the registers", { bits: { pagesLog2: [0, 3] } }),
    segment: u16(6, "PCI segment"),
    base: address(8, "registers"),
  },
  [scopes(16)],
);

/** Type 1: memory that firmware goes on using. */
export const Rmrr = structure(
  "rmrr",
  1,
  "Reserved memory region",
  24,
  {
    ...head,
    segment: u16(6, "PCI segment"),
    base: address(8, "first byte"),
    limit: address(16, "last byte"),
  },
  [scopes(24)],
);

/** Type 2: root ports that support ATS. */
export const Atsr = structure(
  "atsr",
  2,
  "Root ports with ATS",
  8,
  {
    ...head,
    flags: u8(4, "which ports", { bits: { allPorts: 0 } }),
    segment: u16(6, "PCI segment"),
  },
  [scopes(8)],
);

/** Type 3: which node a unit belongs to. */
export const Rhsa = structure("rhsa", 3, "Remapping hardware affinity", 20, {
  ...head,
  base: address(8, "registers of the unit"),
  domain: u32(16, "proximity domain", { as: "count" }),
});

/** Type 4: a device of the ACPI namespace. */
export const Andd = structure(
  "andd",
  4,
  "ACPI namespace device",
  8,
  { ...head, deviceNumber: u8(7, "enumeration ID of scopes that mean it", { as: "count" }) },
  [{ part: "text", name: "path", at: 8 }],
);

/** Type 5: integrated devices that need ATS. */
export const Satc = structure(
  "satc",
  5,
  "SoC integrated address translation cache",
  8,
  {
    ...head,
    flags: u8(4, "how much it is needed", { bits: { atcRequired: 0 } }),
    segment: u16(6, "PCI segment"),
  },
  [scopes(8)],
);

/** Type 6: properties of integrated devices. */
export const Sidp = structure(
  "sidp",
  6,
  "SoC integrated device properties",
  8,
  { ...head, segment: u16(6, "PCI segment") },
  [scopes(8)],
);

/** The table. */
export const Dmar = structure(
  "DMAR",
  null,
  "DMA Remapping table",
  48,
  {
    ...headerFields,
    addressBits: u8(36, "width of host addresses, minus one", { as: "count" }),
    flags: u8(37, "what firmware says of the platform", {
      bits: { interruptRemapping: 0, x2apicOptOut: 1, dmaControlOptIn: 2 },
    }),
  },
  [
    {
      part: "records",
      list: records("DMAR structures", DmarRecord, [Drhd, Rmrr, Atsr, Rhsa, Andd, Satc, Sidp]),
      at: 48,
    },
  ],
);
