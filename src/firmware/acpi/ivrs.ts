/**
 * IVRS, the I/O Virtualization Reporting Structure of AMD-Vi. Source: AMD I/O Virtualization
 * Technology specification 48882, revision 3.09, section 5.2.
 */
import {
  address,
  bdf,
  characters,
  type PartFormat,
  type RecordList,
  records,
  structure,
  u8,
  u16,
  u32,
  u64,
} from "../table-format.ts";
import { headerFields } from "./header.ts";

const head = {
  type: u8(0, "kind of block"),
  flags: u8(1, "flags of the block"),
  length: u16(2, "bytes of the block", { as: "count" }),
};
/** A block of any type. */
export const IvrsBlock = structure("ivrs-block", null, "IVRS block of unknown type", 4, head);

const dte = {
  bits: { init: 0, extInt: 1, nmi: 2, systemManagement: [4, 5], lint0: 6, lint1: 7 },
} as const;
const short = {
  type: u8(0, "kind of entry"),
  deviceId: bdf(1, "function"),
  settings: u8(3, "settings of its device table entry", dte),
};
const alias = { ...short, sourceId: bdf(5, "requester ID that it uses") };
const extended = { ...short, extended: u32(4, "extended settings", { bits: { atsDisabled: 31 } }) };

/** An entry of any type. */
export const IvhdEntry = structure("ivhd-entry", null, "IVHD entry of unknown type", 4, short);
/** Types 0 and 64: padding. */
export const Pad4 = structure("pad", 0, "Padding", 4, short);
export const Pad8 = structure("pad-long", 64, "Padding", 8, short);
/** Type 1. */
export const SelectAll = structure("all", 1, "All devices", 4, short);
/** Type 2. */
export const Select = structure("select", 2, "One device", 4, short);
/** Type 3. */
export const RangeStart = structure("range-start", 3, "Start of range", 4, short);
/** Type 4. */
export const RangeEnd = structure("range-end", 4, "End of range", 4, short);
/** Type 66. */
export const AliasSelect = structure("alias-select", 66, "One device with alias", 8, alias);
/** Type 67. */
export const AliasRange = structure("alias-range", 67, "Start of range with alias", 8, alias);
/** Type 70. */
export const ExtendedSelect = structure("extended-select", 70, "One device, extended", 8, extended);
/** Type 71. */
export const ExtendedRange = structure(
  "extended-range",
  71,
  "Start of range, extended",
  8,
  extended,
);
/** Type 72: an interrupt source. */
export const Special = structure("special", 72, "Special device", 8, {
  ...short,
  handle: u8(4, "IOAPIC ID or HPET number", { as: "count" }),
  sourceId: bdf(5, "requester ID of its interrupts"),
  variety: u8(7, "what it is", { names: { 1: "IOAPIC", 2: "HPET" } }),
});
/** Type 240: a device of the ACPI namespace, only in blocks of type 0x40. */
export const HidDevice = structure(
  "acpi-hid",
  240,
  "ACPI device",
  22,
  {
    ...short,
    hid: characters(4, 8, "_HID"),
    cid: characters(12, 8, "_CID"),
    uidFormat: u8(20, "what the UID is", { names: { 0: "none", 1: "integer", 2: "string" } }),
    uidLength: u8(21, "bytes of the UID", { as: "count" }),
  },
  [{ part: "bytes", name: "uid", at: 22, length: "uidLength" }],
);

/** Bytes of an entry: its type's upper bits tell, but for the one type that has a length. */
function entryLength(view: DataView, at: number, end: number): number {
  const type = view.getUint8(at);
  if (type < 0x80) return 4 << (type >> 6);
  if (type !== HidDevice.type || at + 22 > end) return 0;
  return 22 + view.getUint8(at + 21);
}

const entries: RecordList = {
  title: "IVHD entries",
  head: IvhdEntry,
  formats: [
    Pad4,
    SelectAll,
    Select,
    RangeStart,
    RangeEnd,
    Pad8,
    AliasSelect,
    AliasRange,
    ExtendedSelect,
    ExtendedRange,
    Special,
    HidDevice,
  ],
  typeOf: (view, at) => view.getUint8(at),
  lengthOf: entryLength,
};
const entriesAt = (at: number): PartFormat => ({ part: "records", list: entries, at });

const ivhd = {
  ...head,
  deviceId: bdf(4, "the IOMMU's function"),
  capabilityOffset: u16(6, "where its capability stands in configuration space"),
  base: address(8, "registers"),
  segment: u16(16, "PCI segment"),
  info: u16(18, "interrupt and unit", { bits: { msiNumber: [0, 4], unitId: [8, 12] } }),
};
const flagBits = {
  bits: {
    htTunnel: 0,
    passPw: 1,
    resPassPw: 2,
    isochronous: 3,
    remoteIotlb: 4,
    coherent: 5,
    prefetch: 6,
    pageRequests: 7,
  },
};
const ivhdFlags = u8(1, "control flags", flagBits);

/** Type 0x10. */
export const Ivhd10 = structure(
  "ivhd-10",
  0x10,
  "I/O virtualization hardware definition, 0x10",
  24,
  { ...ivhd, flags: ivhdFlags, features: u32(20, "feature reporting") },
  [entriesAt(24)],
);
const ivhdLong = {
  ...ivhd,
  flags: ivhdFlags,
  attributes: u32(20, "attributes", { bits: { hostTranslationDisabled: 0 } }),
  efr: u64(24, "image of the extended feature register"),
  efr2: u64(32, "image of the second extended feature register"),
};
/** Type 0x11. */
export const Ivhd11 = structure(
  "ivhd-11",
  0x11,
  "I/O virtualization hardware definition, 0x11",
  40,
  ivhdLong,
  [entriesAt(40)],
);
/** Type 0x40. */
export const Ivhd40 = structure(
  "ivhd-40",
  0x40,
  "I/O virtualization hardware definition, 0x40",
  40,
  ivhdLong,
  [entriesAt(40)],
);

const ivmd = {
  ...head,
  flags: u8(1, "how devices use it", { bits: { unity: 0, read: 1, write: 2, exclusion: 3 } }),
  deviceId: bdf(4, "function, or first of a range"),
  auxiliary: bdf(6, "last function of a range"),
  segment: u16(8, "PCI segment"),
  start: address(16, "first byte"),
  bytes: u64(24, "length"),
};
/** Type 0x20: for all devices. */
export const IvmdAll = structure("ivmd-all", 0x20, "Memory definition, all devices", 32, ivmd);
/** Type 0x21: for one device. */
export const IvmdOne = structure("ivmd-one", 0x21, "Memory definition, one device", 32, ivmd);
/** Type 0x22: for a range. */
export const IvmdRange = structure("ivmd-range", 0x22, "Memory definition, range", 32, ivmd);

/** The table. */
export const Ivrs = structure(
  "IVRS",
  null,
  "I/O Virtualization Reporting Structure",
  48,
  {
    ...headerFields,
    info: u32(36, "what the platform supports", {
      bits: {
        efrSupported: 0,
        dmaRemapping: 1,
        guestAddressBits: [5, 7],
        physicalAddressBits: [8, 14],
        virtualAddressBits: [15, 21],
        htAtsReserved: 22,
      },
    }),
  },
  [
    {
      part: "records",
      list: records("IVRS blocks", IvrsBlock, [
        Ivhd10,
        Ivhd11,
        Ivhd40,
        IvmdAll,
        IvmdOne,
        IvmdRange,
      ]),
      at: 48,
    },
  ],
);
