/**
 * What is worth saying about a description of hardware: where, how bad, and what a kernel does with
 * it. Codes are public interface: `room/what`, where the room is the table.
 */
export type FindingSeverity = "error" | "warning" | "note";

/** One finding. */
export interface TableFinding {
  readonly code: `${string}/${string}`;
  /**
   * `error`: a kernel rejects the table, hangs, or leaves a device without its IOMMU. `warning`: it
   * ignores or repairs a part. `note`: worth knowing.
   */
  readonly severity: FindingSeverity;
  /** Signature of the table, or the kind of description. */
  readonly table: string;
  /** Bytes from the start of the file. */
  readonly at: number;
  /** What is there, in sentence form without a full stop. */
  readonly message: string;
  /** What a kernel does with it. */
  readonly effect?: string;
  /** Source file and function of that kernel, as of Linux 7.2. */
  readonly source?: string;
}

/** Findings of one list at most; more of the same would help nobody. */
export const FINDINGS_MAX = 1000;

/** A list of findings that stays bounded; one last note says that more were left out. */
export class Findings {
  readonly list: TableFinding[] = [];
  readonly #table: string;

  /** @param table - signature of the table that all are about */
  constructor(table: string) {
    this.#table = table;
  }

  add(finding: Omit<TableFinding, "table"> & { readonly table?: string }): void {
    if (this.list.length >= FINDINGS_MAX) return;
    this.list.push({ table: this.#table, ...finding });
    if (this.list.length < FINDINGS_MAX) return;
    this.list[FINDINGS_MAX - 1] = {
      code: "firmware/more-findings",
      severity: finding.severity,
      table: this.#table,
      at: finding.at,
      message: `There are more findings than ${FINDINGS_MAX - 1}; the rest is left out`,
    };
  }
}
