/**
 * SLIT, the System Locality Information Table: distances between proximity domains. Source: ACPI
 * specification 6.5, 5.2.17.
 */
import { structure, u64 } from "../table-format.ts";
import { headerFields } from "./header.ts";

/** Name of the matrix in the decoded table: row by row, `entry[from * localities + to]`. */
export const DISTANCES = "distances";

/** The table. */
export const Slit = structure(
  "SLIT",
  null,
  "System Locality Information Table",
  44,
  { ...headerFields, localities: u64(36, "proximity domains: the matrix has their square") },
  [{ part: "bytes", name: DISTANCES, at: 44, length: "rest" }],
);
