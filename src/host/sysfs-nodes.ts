/**
 * NUMA nodes out of sysfs.
 *
 * Source: Linux drivers/base/node.c (node_read_distance, node_read_meminfo, cpulist_show);
 * Documentation/ABI/stable/sysfs-devices-node.
 */
import type { NumaNode } from "../topology/machine.ts";
import { parseNumberList } from "../topology/number-list.ts";
import type { HostTree } from "./tree.ts";

const NODES = "/sys/devices/system/node";
const LOCAL_DISTANCE = 10;
const REMOTE_DISTANCE = 20;

/** Only how much memory a node has: the rest says what the system is doing. */
export function cleanMeminfo(text: string): string {
  return /^Node \d+ MemTotal:.*$/m.exec(text)?.[0] ?? "";
}

/** Reads all nodes, by id; proximity domains and memory ranges stand in firmware tables. */
export function readNodes(tree: HostTree): NumaNode[] {
  const ids = (tree.list(NODES) ?? [])
    .map((name) => /^node(\d{1,5})$/.exec(name)?.[1])
    .filter((digits) => digits !== undefined)
    .map(Number)
    .sort((a, b) => a - b);
  return ids.map((id, index): NumaNode => {
    const directory = `${NODES}/node${id}`;
    const memory = tree.text(`${directory}/meminfo`, cleanMeminfo) ?? "";
    const kib = /MemTotal:\s+(\d{1,15}) kB/.exec(memory)?.[1] ?? "0";
    const row = (tree.text(`${directory}/distance`) ?? "").split(/\s+/).map(Number);
    const isRow = row.length === ids.length && row.every((value) => value > 0 && value < 256);
    const assumed = ids.map((_, to) => (to === index ? LOCAL_DISTANCE : REMOTE_DISTANCE));
    return {
      id,
      proximityDomain: null,
      memory: [],
      memoryBytes: BigInt(kib) * 1024n,
      cpus: parseNumberList(tree.text(`${directory}/cpulist`) ?? "") ?? [],
      firmwareCpuIds: null,
      distances: isRow ? row : assumed,
    };
  });
}
