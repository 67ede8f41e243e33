/** The verb `replay`: one recording under several policies, side by side. */

import type { Policy } from "../recording/replay/policy.ts";
import type { IommuKind } from "../recording/replay/result.ts";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";

/** Flags of the verb. */
export interface ReplayFlags {
  readonly policy?: readonly Policy[];
  readonly iommu: IommuKind;
  readonly fqSize?: number;
  readonly fqTimeout?: number;
  readonly json: boolean;
  readonly csv: boolean;
}

export async function replay(
  flags: ReplayFlags,
  files: readonly string[],
  terminal: Terminal,
): Promise<Exit> {
  terminal.print(`${JSON.stringify({ flags, files })}\n`);
  return Exit.DONE;
}
