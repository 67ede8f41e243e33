/**
 * Memory, CPUs and NUMA nodes of a QEMU virtual machine.
 *
 * Source: QEMU hw/i386/pc_q35.c and pc_piix.c (how much memory lies below 4 GiB), hw/arm/virt.c
 * (memory starts at 1 GiB), hw/core/numa.c, hw/core/machine-smp.c, hw/i386/x86.c:
 * x86_get_default_cpu_node_id (CPUs that nobody placed go round by socket).
 */
import type { MemoryRange, NumaNode } from "../topology/machine.ts";
import { parseNumberList } from "../topology/number-list.ts";
import { isOn, type QemuOption, sizeOf, wholeNumber } from "./qemu-options.ts";
import type { VmNode } from "./vm.ts";

const MIB = 1n << 20n;
const GIB = 1n << 30n;
const MEMORY_DEFAULT = 128n * MIB;
const NODES_MAX = 128;
const CPUS_MAX = 4096;
const DISTANCE_LOCAL = 10;
const DISTANCE_DEFAULT = 20;

/** Memory and nodes. */
export interface VmMemory {
  readonly bytes: bigint;
  readonly nodes: NumaNode[];
  readonly vmNodes: VmNode[];
  /** Whether `-numa` describes nodes to the guest. */
  readonly isNuma: boolean;
}

type Options = readonly QemuOption[];

/** Reads it. @param board - `q35`, `pc`, `virt` or another machine type */
export function readMemory(options: Options, board: string): VmMemory {
  const bytes = memoryBytes(options);
  const backends = new Map(
    options
      .filter(({ name, values }) => name === "object" && isBackend(values.get("qom-type")))
      .map(({ values }) => [values.get("id") ?? "", values]),
  );
  const machine = options.findLast(
    ({ name, values }) => name === "machine" && values.has("memory-backend"),
  );
  const numa = options.filter(({ name }) => name === "numa");
  const named = numa.filter(({ values }) => values.get("type") === "node").slice(0, NODES_MAX);
  const cpus = cpuTopology(options);
  if (named.length === 0) {
    const backend = backends.get(machine?.values.get("memory-backend") ?? "");
    const memory = spread([bytes], board)[0]!;
    const all = Array.from({ length: cpus.count }, (_, cpu) => cpu);
    return {
      bytes,
      nodes: [node(0, memory, all, [DISTANCE_LOCAL])],
      vmNodes: [vmNode(0, bytes, backend)],
      isNuma: false,
    };
  }
  const rows = named.map(({ values }, at) => {
    const backend = backends.get(values.get("memdev") ?? "");
    const size = backend === undefined ? sizeOf(values.get("mem"), "m") : backendBytes(backend);
    return { id: wholeNumber(values.get("nodeid")) ?? at, backend, size, values };
  });
  const unsized = rows.filter(({ size }) => size === null).length;
  const rest = bytes - rows.reduce((sum, { size }) => sum + (size ?? 0n), 0n);
  const share = unsized === rows.length && rest > 0n ? rest / BigInt(unsized) : 0n;
  const vmNodes = rows.map(({ id, backend, size }) => vmNode(id, size ?? share, backend));
  const ids = rows.map(({ id }) => id);
  const owners = cpuNodes(numa, rows, ids, cpus);
  const ranges = spread(
    vmNodes.map((one) => one.bytes),
    board,
  );
  const nodes = ids.map((id, at) => {
    const own = owners.flatMap((owner, cpu) => (owner === id ? [cpu] : []));
    return node(id, ranges[at]!, own, distancesOf(numa, ids, id));
  });
  return { bytes, nodes, vmNodes, isNuma: true };
}

function isBackend(type: string | undefined): boolean {
  return type?.startsWith("memory-backend-") === true;
}

function backendBytes(values: ReadonlyMap<string, string>): bigint | null {
  return sizeOf(values.get("size"), "b");
}

function memoryBytes(options: Options): bigint {
  const option = options.findLast(({ name }) => name === "m");
  return sizeOf(option?.values.get("size"), "m") ?? MEMORY_DEFAULT;
}

/** Memory below 4 GiB, as the board lays it out. */
function lowBytes(board: string, total: bigint): bigint {
  if (board === "pc") return total >= 0xe000_0000n ? 3n * GIB : total;
  return total >= 0xb000_0000n ? 2n * GIB : total;
}

const smaller = (a: bigint, b: bigint) => (b < a ? b : a);

/** Guest addresses of each node's memory. */
function spread(sizes: readonly bigint[], board: string): MemoryRange[][] {
  const total = sizes.reduce((sum, size) => sum + size, 0n);
  const isX86 = board === "q35" || board === "pc" || board === "microvm";
  const low = isX86 ? lowBytes(board, total) : total;
  const base = board === "virt" ? GIB : 0n;
  let used = 0n;
  return sizes.map((size) => {
    const ranges: MemoryRange[] = [];
    const first = used;
    used += size;
    const add = (start: bigint, last: bigint) =>
      ranges.push({ start, last, hotPluggable: false, nonVolatile: false });
    const belowEnd = smaller(used, low);
    if (first < belowEnd) add(base + first, base + belowEnd - 1n);
    const aboveStart = -smaller(-first, -low);
    if (aboveStart < used) add(4n * GIB + aboveStart - low, 4n * GIB + used - low - 1n);
    return ranges;
  });
}

function node(
  id: number,
  memory: readonly MemoryRange[],
  cpus: readonly number[],
  distances: readonly number[],
): NumaNode {
  const memoryBytes = memory.reduce((sum, { start, last }) => sum + last - start + 1n, 0n);
  return { id, proximityDomain: id, memory, memoryBytes, cpus, firmwareCpuIds: null, distances };
}

function vmNode(
  id: number,
  bytes: bigint,
  backend: ReadonlyMap<string, string> | undefined,
): VmNode {
  const values = backend ?? new Map<string, string>();
  const policies = ["default", "preferred", "bind", "interleave"] as const;
  const hostNodes = parseNumberList(values.get("host-nodes") ?? values.get("host-nodes.0") ?? "");
  return {
    id,
    bytes,
    hostNodes: (hostNodes ?? []).slice(0, NODES_MAX),
    policy: policies.find((policy) => policy === values.get("policy")) ?? "default",
    isPreallocated: isOn(values, "prealloc", false),
    isShared: isOn(values, "share", values.get("qom-type") === "memory-backend-memfd"),
  };
}

interface CpuTopology {
  readonly count: number;
  /** CPUs below one of each level, from sockets to threads. */
  readonly levels: readonly { readonly key: string; readonly size: number; readonly of: number }[];
}

function cpuTopology(options: Options): CpuTopology {
  const values =
    options.findLast(({ name }) => name === "smp")?.values ?? new Map<string, string>();
  const given = (key: string) => {
    const value = wholeNumber(values.get(key));
    return value === null || value < 1 ? null : Math.min(value, CPUS_MAX);
  };
  const inner = ["drawers", "books", "dies", "clusters", "modules"].map((key) => given(key) ?? 1);
  const between = Math.min(
    inner.reduce((product, one) => product * one, 1),
    CPUS_MAX,
  );
  const threads = given("threads") ?? 1;
  const cores = given("cores");
  const sockets = given("sockets");
  const product = (sockets ?? 1) * between * (cores ?? 1) * threads;
  const count = Math.min(given("maxcpus") ?? given("cpus") ?? product, CPUS_MAX);
  const perSocket =
    sockets === null && cores === null
      ? count
      : sockets === null
        ? between * cores! * threads
        : Math.max(1, Math.floor(count / sockets));
  const perDie = Math.max(1, Math.floor(perSocket / (given("dies") ?? 1)));
  return {
    count,
    levels: [
      { key: "socket-id", size: perSocket, of: count },
      { key: "die-id", size: perDie, of: perSocket },
      { key: "core-id", size: threads, of: perDie },
      { key: "thread-id", size: 1, of: threads },
    ],
  };
}

/** The node of each CPU. */
function cpuNodes(
  numa: Options,
  rows: readonly { readonly id: number; readonly values: ReadonlyMap<string, string> }[],
  ids: readonly number[],
  { count, levels }: CpuTopology,
): number[] {
  const perSocket = levels[0]!.size;
  const owners = Array.from(
    { length: count },
    (_, cpu) => ids[Math.floor(cpu / perSocket) % ids.length]!,
  );
  const isPlaced = rows.some(({ values }) => values.has("cpus"));
  if (isPlaced) {
    owners.fill(ids[0]!);
    for (const { id, values } of rows) {
      for (const cpu of parseNumberList(values.get("cpus") ?? "") ?? []) {
        if (cpu < count) owners[cpu] = id;
      }
    }
  }
  for (const { values } of numa) {
    if (values.get("type") !== "cpu") continue;
    const id = wholeNumber(values.get("node-id"));
    if (id === null) continue;
    for (let cpu = 0; cpu < count; cpu += 1) {
      const isMeant = levels.every(({ key, size, of }) => {
        const wanted = wholeNumber(values.get(key));
        return wanted === null || Math.floor((cpu % of) / size) === wanted;
      });
      if (isMeant) owners[cpu] = id;
    }
  }
  return owners;
}

function distancesOf(numa: Options, ids: readonly number[], from: number): number[] {
  const find = (source: number, target: number) => {
    const option = numa.findLast(
      ({ values }) =>
        values.get("type") === "dist" &&
        wholeNumber(values.get("src")) === source &&
        wholeNumber(values.get("dst")) === target,
    );
    return wholeNumber(option?.values.get("val"));
  };
  return ids.map((to) =>
    to === from ? DISTANCE_LOCAL : (find(from, to) ?? find(to, from) ?? DISTANCE_DEFAULT),
  );
}
