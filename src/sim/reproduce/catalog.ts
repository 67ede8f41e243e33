/** Every published table that can be reproduced, by the name under which it is asked for. */
import { StackError } from "../../errors.ts";
import { commandQueueTables } from "./command-queue.ts";
import { flushQueueTables } from "./flush-queue.ts";
import { faultSpeedTables, ioPageFaultTables } from "./io-page-faults.ts";
import { numaDomainTables } from "./numa-domains.ts";
import { nvmeServerTables } from "./nvme-server.ts";
import { pageTableTables } from "./page-table.ts";
import { payloadTables, pcieBenchTables } from "./pcie-bench.ts";
import { pinningTables } from "./pinning.ts";
import type { Reproduction } from "./table.ts";
import { vfioUserTables } from "./vfio-user.ts";
import { vmStartTables } from "./vm-start.ts";

/** Tables by what they belong to: the number of a thread, or a study's name. */
export const reproductions: ReadonlyMap<string, readonly Reproduction[]> = new Map([
  ["1", numaDomainTables],
  ["2", flushQueueTables],
  ["3", ioPageFaultTables],
  ["5", vmStartTables],
  ["fault-speed", faultSpeedTables],
  ["pcie-bench", pcieBenchTables],
  ["payload", payloadTables],
  ["pinning", pinningTables],
  ["page-table", pageTableTables],
  ["command-queue", commandQueueTables],
  ["nvme-server", nvmeServerTables],
  ["vfio-user", vfioUserTables],
]);

/**
 * The tables of the given names, all when none is given.
 *
 * @throws StackError `sim/no-such-table`
 */
export function reproductionsNamed(names: readonly string[]): readonly Reproduction[] {
  if (names.length === 0) return [...reproductions.values()].flat();
  return [...new Set(names)].flatMap((name) => {
    const found = reproductions.get(name);
    if (found !== undefined) return found;
    throw new StackError({
      code: "sim/no-such-table",
      kind: "usage",
      message: `There are no published tables named "${name}"`,
      hint: `known are ${[...reproductions.keys()].join(", ")}`,
    });
  });
}
