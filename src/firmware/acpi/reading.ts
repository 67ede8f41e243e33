/** What the readers of all tables share: what they know already, and what they give. */
import type { Machine, MachineFunction } from "../../topology/machine.ts";
import type { Findings } from "../table-finding.ts";

/** Ranges of requester ids that a table may give at most; a segment has 65 536 ids. */
export const RANGES_MAX = 2 ** 18;

/** What a reader knows beside its table. */
export interface ReadContext {
  /** The kernel's node of a proximity domain, or null where no SRAT names it. */
  nodeOf(proximityDomain: number): number | null;
  /** Known functions, for the way through bridges; empty when only tables are at hand. */
  readonly functions: readonly MachineFunction[];
  readonly findings: Findings;
}

/** The parts of a machine that a table describes. */
export type MachineParts = Partial<
  Pick<
    Machine,
    "nodes" | "hostBridges" | "iommus" | "platformDevices" | "firmwareRegions" | "atsScopes"
  >
>;
