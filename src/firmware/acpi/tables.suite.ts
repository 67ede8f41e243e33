/** Helpers for tests of tables: vectors, patches, and what reading a table finds. */
import { readdirSync, readFileSync } from "node:fs";
import type { TableFinding } from "../table-finding.ts";
import { decodeTable } from "./decode.ts";
import { seal } from "./header.ts";
import { readTables, type TablesReading } from "./machine-parts.ts";

const folder = new URL("./vectors/", import.meta.url);

/** Names of all vectors, as `folder/TABLE`. */
export const vectorNames: readonly string[] = readdirSync(folder, { withFileTypes: true })
  .filter((entry) => entry.isDirectory())
  .flatMap((entry) =>
    readdirSync(new URL(`${entry.name}/`, folder)).map((name) => `${entry.name}/${name}`),
  )
  .sort();

/** A table that real firmware or iasl made. */
export function vector(name: string): Uint8Array {
  return new Uint8Array(readFileSync(new URL(name, folder)));
}

/** A copy with little-endian bytes written at some places, and a right checksum. */
export function patched(bytes: Uint8Array, ...patches: [at: number, ...values: number[]][]) {
  const copy = bytes.slice();
  for (const [at, ...values] of patches) copy.set(values, at);
  return seal(copy);
}

/** A table of the given body behind a header, sealed. */
export function tableOf(signature: string, revision: number, ...body: (number[] | string)[]) {
  const parts = body.map((part) =>
    typeof part === "string" ? [...Buffer.from(part.replace(/\s/g, ""), "hex")] : part,
  );
  const header = new Array<number>(36).fill(0);
  [...signature].forEach((one, index) => {
    header[index] = one.charCodeAt(0);
  });
  header[8] = revision;
  return seal(Uint8Array.from([...header, ...parts.flat()]));
}

/** Little-endian bytes of a number. */
export function le(value: number | bigint, bytes: number): number[] {
  return Array.from({ length: bytes }, (_, index) =>
    Number((BigInt(value) >> BigInt(8 * index)) & 0xffn),
  );
}

/** Reads tables together. */
export function reading(...tables: Uint8Array[]): TablesReading {
  return readTables(tables.map(decodeTable));
}

/** Findings of one table: severity, code and place. */
export function findingsOf(bytes: Uint8Array): readonly TableFinding[] {
  return reading(bytes).findings[0]!;
}

/** Codes of the findings of one table. */
export function codesOf(bytes: Uint8Array): string[] {
  return findingsOf(bytes).map((finding) => finding.code);
}
