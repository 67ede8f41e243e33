/** Names files that do not stand for a host, by how they begin, and says what reads them. */

/** What a file is, and what to do with it instead. */
export interface ForeignFile {
  readonly what: string;
  readonly hint: string;
}

const ACPI_HEADER_BYTES = 36;
/** Where a topology file says what it is, comments before it included. */
const SCHEMA_WITHIN = 4096;

const unpackIt = "unpack it, and pass the directory that has sys in it or the file that it holds";
const dumpIt = "`iommukit tables dump` shows it; with --yaml it prints the topology in it";

/** First bytes, as hexadecimal text. */
const beginnings: readonly (readonly [string, ForeignFile])[] = [
  ["504b0304", { what: "it is a zip archive", hint: unpackIt }],
  ["504b0506", { what: "it is an empty zip archive", hint: unpackIt }],
  ["fd377a585a00", { what: "it is compressed by xz", hint: unpackIt }],
  ["28b52ffd", { what: "it is compressed by zstd", hint: unpackIt }],
  ["425a68", { what: "it is compressed by bzip2", hint: unpackIt }],
  ["d00dfeed", { what: "it is a devicetree blob", hint: dumpIt }],
];

/** What a file is that is none of a host; null when that is not known. */
export function foreignFile(bytes: Uint8Array): ForeignFile | null {
  const head = Buffer.from(bytes.buffer, bytes.byteOffset, Math.min(bytes.length, SCHEMA_WITHIN));
  const hex = head.toString("hex", 0, 8);
  const known = beginnings.find(([beginning]) => hex.startsWith(beginning));
  if (known !== undefined) return known[1];
  const text = head.toString("latin1");
  const isTable = bytes.length >= ACPI_HEADER_BYTES && head.readUInt32LE(4) === bytes.length;
  if (isTable && /^[A-Z0-9]{4}/.test(text)) {
    return { what: `it is an ACPI table, ${text.slice(0, 4)}`, hint: dumpIt };
  }
  if (/^\s*\/dts-v1\//.test(text)) {
    return { what: "it is the source of a devicetree", hint: "dtc makes a blob of it" };
  }
  if (!text.includes("iommukit/topology@")) return null;
  return { what: "it is a topology file", hint: "`iommukit tables build` makes tables of it" };
}
