/**
 * Decodes and encodes ACPI tables of every kind this project knows, and keeps all others as header
 * and body. `encodeItem(decodeTable(x).root)` equals `x` for any bytes that hold a header.
 */
import { StackError } from "../../errors.ts";
import { hex } from "../../units.ts";
import { TableDecoder } from "../table-decode.ts";
import { Findings, type TableFinding } from "../table-finding.ts";
import type { StructureFormat } from "../table-format.ts";
import type { Item, Structure } from "../table-item.ts";
import { Dmar } from "./dmar.ts";
import { AnyTable, byteSum, CHECKSUM_AT, Facs, HEADER_BYTES } from "./header.ts";
import { Iort } from "./iort.ts";
import { Ivrs } from "./ivrs.ts";
import { Mcfg } from "./mcfg.ts";
import { Slit } from "./slit.ts";
import { Srat } from "./srat.ts";
import { Viot, ViotDraft, wrappedSignatures } from "./viot.ts";

/** A table larger than this is not read: the largest of the kinds here stay below 2 MiB. */
export const TABLE_BYTES_MAX = 4 * 2 ** 20;

/** A decoded table. */
export interface DecodedTable {
  /** Four characters; bytes that are no characters show as dots. */
  readonly signature: string;
  /** The table, and behind its end what else the file holds. */
  readonly root: Structure;
  /** What is wrong with its form. */
  readonly findings: readonly TableFinding[];
}

const formats: ReadonlyMap<string, StructureFormat> = new Map<string, StructureFormat>([
  ["VIOT", Viot],
  ["IORT", Iort],
  ["SRAT", Srat],
  ["SLIT", Slit],
  ["DMAR", Dmar],
  ["IVRS", Ivrs],
  ["MCFG", Mcfg],
  ["FACS", Facs],
]);

/** Signatures of the tables that are decoded beyond their header. */
export const knownSignatures: readonly string[] = [...formats.keys()];

/**
 * Decodes one table.
 *
 * @param bytes - the whole file; copied
 * @throws StackError `acpi/too-short` or `acpi/too-long` when no table can be made out
 */
export function decodeTable(bytes: Uint8Array): DecodedTable {
  checkSize(bytes);
  const copy = bytes.slice();
  const signature = signatureAt(copy, 0);
  const findings = new Findings(signature);
  const decoder: TableDecoder = new TableDecoder(copy, findings, (at, end) =>
    wrapped(decoder, at, end),
  );
  const end = endOfTable(decoder, 0, copy.length);
  const root = tableAt(decoder, 0, end, true);
  checkSum(decoder, 0, end);
  if (end === copy.length) return { signature, root, findings: findings.list };
  findings.add({
    code: "acpi/bytes-behind",
    severity: "note",
    at: end,
    message: `${copy.length - end} bytes lie behind the end of the table`,
  });
  const items: Item[] = [...root.items, decoder.raw("behind the end", end, copy.length)];
  return { signature, root: { ...root, items }, findings: findings.list };
}

function checkSize(bytes: Uint8Array): void {
  if (bytes.length < HEADER_BYTES) {
    throw new StackError({
      code: "acpi/too-short",
      kind: "input",
      message: `An ACPI table begins with ${HEADER_BYTES} bytes of header; here are ${bytes.length}`,
      hint: "the file is truncated, or no ACPI table",
    });
  }
  if (bytes.length > TABLE_BYTES_MAX) {
    throw new StackError({
      code: "acpi/too-long",
      kind: "input",
      message: `${bytes.length} bytes are more than any table here has (${TABLE_BYTES_MAX})`,
      hint: "pass one table a file, as in /sys/firmware/acpi/tables",
    });
  }
}

/** The signature, with dots for what is no character. */
export function signatureAt(bytes: Uint8Array, at: number): string {
  const characters = Array.from(bytes.subarray(at, at + 4), (code) =>
    code > 0x20 && code < 0x7f ? String.fromCharCode(code) : ".",
  );
  return characters.join("");
}

/** Where the table at `at` ends, by its header, and inside `end`. */
function endOfTable(decoder: TableDecoder, at: number, end: number): number {
  const length = decoder.view.getUint32(at + 4, true);
  if (length >= HEADER_BYTES && length <= end - at) return at + length;
  decoder.findings.add({
    code: "acpi/length",
    severity: "error",
    at: at + 4,
    message:
      length < HEADER_BYTES
        ? `The header says that the table has ${length} bytes, less than the header itself`
        : `The header says that the table has ${length} bytes, of which ${end - at} exist`,
    effect: "A kernel maps what the header says; a table that cannot be mapped is left out",
    source: "drivers/acpi/acpica/tbdata.c: acpi_tb_validate_temp_table",
  });
  return end;
}

/** Reads the table in `[at, end)` by its signature. */
function tableAt(decoder: TableDecoder, at: number, end: number, mayWrap: boolean): Structure {
  const signature = signatureAt(decoder.bytes, at);
  let format = formats.get(signature) ?? AnyTable;
  if (format === Viot && mayWrap && isDraft(decoder, at, end)) format = ViotDraft;
  if (format.layout.bytes > end - at) {
    decoder.findings.add({
      code: "acpi/fixed-part",
      severity: "error",
      at,
      message: `${signature} has ${format.layout.bytes} bytes of its own, here are ${end - at}`,
    });
    format = AnyTable;
  }
  return decoder.structure(format, at, end);
}

/** Whether a VIOT is the draft that wraps another table: its own fields are zero (F23). */
function isDraft(decoder: TableDecoder, at: number, end: number): boolean {
  if (end - at < 48 + HEADER_BYTES) return false;
  for (let position = at + 36; position < at + 48; position += 1) {
    if (decoder.bytes[position] !== 0) return false;
  }
  return wrappedSignatures.includes(signatureAt(decoder.bytes, at + 48));
}

/** Reads the table inside a draft VIOT. */
function wrapped(decoder: TableDecoder, at: number, end: number): Structure | null {
  if (end - at < HEADER_BYTES) return null;
  const tableEnd = endOfTable(decoder, at, end);
  checkSum(decoder, at, tableEnd);
  return tableAt(decoder, at, tableEnd, false);
}

function checkSum(decoder: TableDecoder, at: number, end: number): void {
  const signature = signatureAt(decoder.bytes, at);
  if (signature === "FACS") return;
  const sum = byteSum(decoder.bytes.subarray(at, end));
  if (sum === 0) return;
  const found = decoder.bytes[at + CHECKSUM_AT]!;
  const isRefused = signature === "IVRS";
  decoder.findings.add({
    code: "acpi/checksum",
    severity: isRefused ? "error" : "warning",
    at: at + CHECKSUM_AT,
    message: `The checksum is ${hex(found, 2)}, and should be ${hex((found - sum) & 0xff, 2)}`,
    effect: isRefused
      ? "Linux logs `IVRS invalid checksum` and leaves AMD-Vi off"
      : "Linux logs `Incorrect checksum in table` and uses the table all the same",
    source: isRefused
      ? "drivers/iommu/amd/init.c: check_ivrs_checksum"
      : "drivers/acpi/acpica/utcksum.c: acpi_ut_verify_checksum",
  });
}
