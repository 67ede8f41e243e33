/**
 * The header that all ACPI tables share, and the checksum. Source: ACPI specification 6.5,
 * 5.2.6 "System Description Table Header".
 */
import { characters, structure, u8, u32 } from "../table-format.ts";

/** Size of the header. */
export const HEADER_BYTES = 36;
/** Position of the checksum in it. */
export const CHECKSUM_AT = 9;

/** Fields of the header; every table's layout begins with them. */
export const headerFields = {
  signature: characters(0, 4, "which table this is"),
  length: u32(4, "bytes of the table, header included", { as: "count" }),
  revision: u8(8, "revision of the table's layout", { as: "count" }),
  checksum: u8(9, "makes the sum of all bytes 0 modulo 256"),
  oemId: characters(10, 6, "who made the platform"),
  oemTableId: characters(16, 8, "which of his tables this is"),
  oemRevision: u32(24, "the maker's revision", { as: "count" }),
  creatorId: characters(28, 4, "what wrote the table"),
  creatorRevision: u32(32, "revision of what wrote it"),
};

/** A table of which only the header is known. */
export const AnyTable = structure("table", null, "ACPI table", HEADER_BYTES, headerFields, [
  { part: "bytes", name: "body", at: HEADER_BYTES, length: "rest" },
]);

/** The firmware control structure: no checksum, no makers. ACPI 6.5, 5.2.10. */
export const Facs = structure("FACS", null, "Firmware ACPI Control Structure", 32, {
  signature: characters(0, 4, "which table this is"),
  length: u32(4, "bytes of the structure", { as: "count" }),
  hardwareSignature: u32(8, "changes when the hardware does"),
  wakingVector: u32(12, "where to continue after sleep"),
  globalLock: u32(16, "lock between firmware and system", { bits: { pending: 0, owned: 1 } }),
  flags: u32(20, "what the firmware supports"),
  wakingVector64: { kind: "u64", at: 24, doc: "64-bit waking vector", as: "address" },
});

/** Sum of all bytes modulo 256: 0 in a table whose checksum is right. */
export function byteSum(bytes: Uint8Array): number {
  let sum = 0;
  for (let index = 0; index < bytes.length; index += 1) sum += bytes[index]!;
  return sum & 0xff;
}

/** Sets length and checksum of a table whose header stands at its start. */
export function seal(table: Uint8Array): Uint8Array {
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  view.setUint32(headerFields.length.at, table.length, true);
  table[CHECKSUM_AT] = 0;
  table[CHECKSUM_AT] = (0x100 - byteSum(table)) & 0xff;
  return table;
}

/** Characters of a fixed field, without the padding. */
export function trimmed(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes).replace(/[\0 ]+$/, "");
}
