/** Tables say where a node's memory is; of some machines only its size is known. */
import type { NumaNode } from "../topology/machine.ts";
import { cannotDescribe } from "./build-error.ts";

/** @throws StackError that names the first node with memory at unknown addresses */
export function checkMemoryRanges(as: string, nodes: readonly NumaNode[]): void {
  const blind = nodes.find((node) => node.memory.length === 0 && node.memoryBytes > 0n);
  if (blind === undefined) return;
  const message = `node ${blind.id} has memory at addresses that the topology does not say`;
  throw cannotDescribe(as, message, "give ranges as `memory` in place of `memoryBytes`");
}
