/** Writes a machine as an ACPI table of the wanted kind. */
import type { Machine } from "../../topology/machine.ts";
import { buildDmar } from "./dmar-build.ts";
import { buildIort } from "./iort-build.ts";
import { buildIvrs } from "./ivrs-build.ts";
import { buildMcfg, buildSlit, buildSrat } from "./srat-build.ts";
import { defaultIds, type TableIds } from "./table-writer.ts";
import { buildViot } from "./viot-build.ts";

/** Kinds of table that can be written, by the names of `--as`. */
export type AcpiKind = "viot" | "iort" | "dmar" | "ivrs" | "srat" | "slit" | "mcfg";

const builders: Readonly<Record<AcpiKind, (machine: Machine, ids: TableIds) => Uint8Array>> = {
  viot: buildViot,
  iort: buildIort,
  dmar: buildDmar,
  ivrs: buildIvrs,
  srat: buildSrat,
  slit: buildSlit,
  mcfg: buildMcfg,
};

/**
 * Builds a table with length and checksum set.
 *
 * @throws StackError `firmware/cannot-describe` when the machine holds what the table has no words
 *   for, or nothing that it could hold
 */
export function buildTable(
  kind: AcpiKind,
  machine: Machine,
  ids: TableIds = defaultIds,
): Uint8Array {
  return builders[kind](machine, ids);
}
