/**
 * Seed 1's tables: all-reduce among GPUs of one node, of the other, and of both, with page tables
 * on one node and with a domain for each.
 *
 * Published: linux-kernel, "[PATCH V1] vfio: add attach_group_by_node", 14 November 2023.
 */
import { allReduceMachine } from "../profiles/all-reduce-host.ts";
import { runAllReduce } from "../workload/all-reduce.ts";
import { compareRow, type PublishedRow, type Reproduction } from "./table.ts";

interface Row {
  readonly name: string;
  readonly nodes: readonly number[];
  readonly published: number;
  /** Null for a row that set a price. */
  readonly target: number | null;
}

const before: readonly Row[] = [
  { name: "case 1, node 0", nodes: [0], published: 24, target: null },
  { name: "case 2, node 1", nodes: [1], published: 32, target: null },
  { name: "case 3, both", nodes: [0, 1], published: 45, target: 0.07 },
];

const after: readonly Row[] = [
  { name: "case 1, node 0", nodes: [0], published: 32, target: 0.03 },
  { name: "case 2, node 1", nodes: [1], published: 32, target: 0.03 },
  { name: "case 3, both", nodes: [0, 1], published: 63, target: 0.03 },
];

const SEED = 1;
const UNIT = "GB/s";

function reproduction(id: string, what: string, rows: readonly Row[], byNode: 1 | null) {
  const title = `all-reduce in a VM with 8 GPUs and 8 NICs: ${what}`;
  return {
    id,
    title,
    source: "linux-kernel, PATCH V1 vfio: add attach_group_by_node, 14 November 2023",
    run: (progress: (what: string) => void) =>
      rows.map(({ name, nodes, published, target }) => {
        progress(`${title}: ${name}`);
        const machine = allReduceMachine;
        // Whoever mapped ran on node 1: there the tables were found.
        const run = runAllReduce({ machine, nodes, byNode, mapperNode: 1, seed: SEED });
        const role: PublishedRow["role"] = target === null ? "fitted" : "predicted";
        const row = { name, unit: UNIT, published, role, target } as const;
        return compareRow({ ...row, errorKind: "relative" }, run.algbw / 1e9);
      }),
  };
}

/** Both tables. */
export const numaDomainTables: readonly Reproduction[] = [
  reproduction("1-before", "one domain, its tables on node 1", before, null),
  reproduction("1-after", "attach_group_by_node=1", after, 1),
];
