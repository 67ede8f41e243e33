/**
 * What Linux makes of SRAT and SLIT: nodes with their memory, CPUs and distances. Source: Linux 7.2
 * drivers/acpi/numa/srat.c, arch/x86/mm/srat.c.
 */
import type { MemoryRange, NumaNode } from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { bytesNamed, isA, type Structure } from "../table-item.ts";
import type { ReadContext } from "./reading.ts";
import { DISTANCES, Slit } from "./slit.ts";
import {
  ApicAffinity,
  GenericInitiator,
  GenericPort,
  GiccAffinity,
  ItsAffinity,
  MemoryAffinity,
  RintcAffinity,
  Srat,
  X2ApicAffinity,
} from "./srat.ts";

/** Proximity domains that a distribution's x86 kernel can tell apart (F55). */
export const DOMAINS_MAX = 1024;
const LOCAL_DISTANCE = 10;
const REMOTE_DISTANCE = 20;
const SOURCE = "drivers/acpi/numa/srat.c";

/** A device that makes a node without CPUs or memory. */
export interface InitiatorHandle {
  readonly proximityDomain: number;
  readonly segment: number;
  readonly rid: number;
}

/** What SRAT says. */
export interface SratReading {
  readonly nodes: readonly NumaNode[];
  readonly initiators: readonly InitiatorHandle[];
  /** Node by proximity domain. */
  readonly nodeOfDomain: ReadonlyMap<number, number>;
}

interface NodeUnderWay {
  readonly domain: number;
  readonly memory: MemoryRange[];
  readonly cpus: number[];
  readonly firmwareCpuIds: number[];
}

/**
 * Reads SRAT in the two passes of `acpi_numa_init`: CPUs and initiators, then memory. Nodes are
 * numbered as their domains first appear; CPUs as their entries do.
 */
export function readSrat(root: Structure, context: Pick<ReadContext, "findings">): SratReading {
  return new SratReader(root, context).read();
}

class SratReader {
  readonly #root: Structure;
  readonly #findings: ReadContext["findings"];
  readonly #nodes = new Map<number, NodeUnderWay>();
  readonly #initiators: InitiatorHandle[] = [];
  readonly #isShort: boolean;
  #cpus = 0;
  #isRefused = false;

  constructor(root: Structure, context: Pick<ReadContext, "findings">) {
    this.#root = root;
    this.#findings = context.findings;
    this.#isShort = Number(root.values.revision) < 2;
  }

  read(): SratReading {
    if (isA(this.#root, Srat)) {
      this.#checkForm();
      this.#readInitiators();
      this.#readMemory();
    }
    if (this.#isRefused) return { nodes: [], initiators: [], nodeOfDomain: new Map() };
    const domains = [...this.#nodes.keys()];
    const nodes = [...this.#nodes.values()].map(
      (node, id): NumaNode => ({
        id,
        proximityDomain: node.domain,
        memory: node.memory,
        memoryBytes: node.memory.reduce((sum, one) => sum + one.last - one.start + 1n, 0n),
        cpus: node.cpus,
        firmwareCpuIds: node.firmwareCpuIds,
        distances: domains.map((other) =>
          other === node.domain ? LOCAL_DISTANCE : REMOTE_DISTANCE,
        ),
      }),
    );
    const nodeOfDomain = new Map(domains.map((domain, id) => [domain, id]));
    return { nodes, initiators: this.#initiators, nodeOfDomain };
  }

  /** Entries that make Linux give the whole table up. */
  #checkForm(): void {
    for (const item of this.#root.items) {
      if (item.kind !== "structure") continue;
      const isKnownForm = item.format.type !== null;
      const type = Number(item.values.type);
      const isShortX2Apic = !isKnownForm && type === X2ApicAffinity.type;
      const isOddApic = type === ApicAffinity.type && item.length !== ApicAffinity.layout.bytes;
      const isShortMemory = !isKnownForm && type === MemoryAffinity.type;
      if (!isShortX2Apic && !isOddApic && !isShortMemory) continue;
      this.#refuse(item.at, `An entry of type ${type} has ${item.length} bytes`);
    }
  }

  #refuse(at: number, message: string): void {
    this.#isRefused = true;
    this.#findings.add({
      code: "srat/refused",
      severity: "error",
      at,
      message,
      effect: "Linux logs `SRAT: SRAT not used.`: one node, no distances",
      source: "arch/x86/mm/srat.c: bad_srat",
    });
  }

  #nodeOf(at: number, domain: number): NodeUnderWay {
    const known = this.#nodes.get(domain);
    if (known !== undefined) return known;
    if (domain >= DOMAINS_MAX) this.#refuse(at, `Proximity domain ${domain} is too high`);
    const node = { domain, memory: [], cpus: [], firmwareCpuIds: [] };
    this.#nodes.set(domain, node);
    return node;
  }

  /** @param domain - as it stands in the entry; a table of revision 1 has 8 bits of it (F47) */
  #domainOf(at: number, domain: number): number {
    if (!this.#isShort || domain < 0x100) return domain;
    this.#findings.add({
      code: "srat/domain-truncated",
      severity: "warning",
      at,
      message: `Proximity domain ${domain} does not fit 8 bits, as table revision 1 has it`,
      effect: `Linux takes it for domain ${domain & 0xff}`,
      source: `${SOURCE}: acpi_numa_memory_affinity_init`,
    });
    return domain & 0xff;
  }

  #addCpu(entry: Structure, domain: number, id: number): void {
    if ((Number(entry.values.flags) & 1) === 0) return;
    const node = this.#nodeOf(entry.at, this.#domainOf(entry.at, domain));
    node.cpus.push(this.#cpus);
    node.firmwareCpuIds.push(id);
    this.#cpus += 1;
  }

  #readInitiators(): void {
    for (const item of this.#root.items) {
      if (isA(item, ApicAffinity)) {
        const { domainLow, domainMiddle, domainHigh, apicId } = item.values;
        this.#addCpu(item, domainLow + domainMiddle * 0x100 + domainHigh * 0x1_0000, apicId);
      } else if (isA(item, X2ApicAffinity)) {
        this.#addCpu(item, item.values.domain, item.values.apicId);
      } else if (isA(item, GiccAffinity) || isA(item, RintcAffinity)) {
        this.#addCpu(item, item.values.domain, item.values.processorUid);
      } else if (isA(item, GenericInitiator) && !this.#addInitiator(item)) {
        return;
      } else if (item.kind === "structure" && item.format.type === null) {
        this.#noteUnknown(item);
      }
    }
  }

  #noteUnknown(item: Structure): void {
    const type = Number(item.values.type);
    if (type <= (RintcAffinity.type ?? 0)) return;
    this.#findings.add({
      code: "srat/entry-unknown",
      severity: "note",
      at: item.at,
      message: `Nobody knows entries of type ${type}`,
      effect: "Linux skips it by its length",
      source: "lib/fw_table.c: acpi_parse_entries_array",
    });
  }

  /** @returns false when Linux reads no CPU and no initiator behind this entry */
  #addInitiator(item: Structure): boolean {
    if (!isA(item, GenericInitiator)) return true;
    const { flags, domain, handle, handleType } = item.values;
    if ((flags & 1) === 0) {
      const later = this.#root.items.filter((other) => other.at > item.at && isInitial(other));
      this.#findings.add({
        code: "srat/initiator-disabled",
        severity: later.length > 0 ? "error" : "warning",
        at: item.at,
        message: `A generic initiator is not enabled; ${later.length} CPUs and initiators follow it`,
        effect: "Linux stops the pass here: CPUs and initiators behind it are lost",
        source: `${SOURCE}: acpi_parse_gi_affinity`,
      });
      return false;
    }
    const proximityDomain = domain;
    this.#nodeOf(item.at, proximityDomain);
    if (handleType !== 1) return true;
    const segment = handle[0]! + handle[1]! * 0x100;
    // Bus before devfn, so as a little-endian word it would be the wrong way round (F48).
    this.#initiators.push({ proximityDomain, segment, rid: handle[2]! * 0x100 + handle[3]! });
    return true;
  }

  #readMemory(): void {
    const all: { start: bigint; last: bigint; at: number }[] = [];
    for (const item of this.#root.items) {
      if (!isA(item, MemoryAffinity)) continue;
      const { flags, base, bytes, domain } = item.values;
      if ((flags & 1) === 0) continue;
      if (bytes === 0n || base + bytes > 2n ** 64n) {
        this.#findings.add({
          code: "srat/memory-range",
          severity: "error",
          at: item.at,
          message: `Memory of ${hex(bytes)} bytes at ${hex(base)} is no range`,
          effect: "Linux cannot add the block and uses no SRAT",
          source: `${SOURCE}: acpi_numa_memory_affinity_init`,
        });
        continue;
      }
      const range = { start: base, last: base + bytes - 1n };
      all.push({ ...range, at: item.at });
      const node = this.#nodeOf(item.at, this.#domainOf(item.at, domain));
      const hotPluggable = (flags & 2) !== 0;
      node.memory.push({ ...range, hotPluggable, nonVolatile: (flags & 4) !== 0 });
    }
    this.#checkOverlap(all);
  }

  #checkOverlap(all: { start: bigint; last: bigint; at: number }[]): void {
    all.sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : a.at - b.at));
    const second = all.find((one, index) => index > 0 && all[index - 1]!.last >= one.start);
    if (second === undefined) return;
    this.#findings.add({
      code: "srat/memory-overlap",
      severity: "error",
      at: second.at,
      message: `Memory from ${hex(second.start)} on is in two entries`,
      effect: "Between nodes Linux refuses the map; within one it merges them",
      source: "mm/numa_memblks.c: numa_cleanup_meminfo",
    });
  }
}

function isInitial(item: Structure["items"][number]): boolean {
  const forms = [ApicAffinity, X2ApicAffinity, GiccAffinity, RintcAffinity, GenericInitiator];
  return item.kind === "structure" && forms.some((form) => form === item.format);
}

/** Whether an entry is one that Linux reads elsewhere: ITS by the GIC, ports by CXL. */
export function isReadElsewhere(item: Structure): boolean {
  return isA(item, ItsAffinity) || isA(item, GenericPort);
}

/**
 * Distances of the given nodes, or null where Linux would not use the table.
 *
 * @returns a row a node, in the order of `nodes`
 */
export function readSlit(
  root: Structure,
  nodes: readonly NumaNode[],
  context: Pick<ReadContext, "findings">,
): number[][] | null {
  const matrix = bytesNamed(root, DISTANCES) ?? new Uint8Array(0);
  if (!isA(root, Slit) || !isMatrix(root, matrix, context)) return null;
  const size = Number(root.values.localities);
  const outside = nodes.find((node) => (node.proximityDomain ?? node.id) >= size);
  if (outside !== undefined) {
    context.findings.add({
      code: "slit/domain-missing",
      severity: "warning",
      at: root.at + Slit.layout.at.localities,
      message: `${size} localities do not reach proximity domain ${outside.proximityDomain}`,
      effect: "Linux gives it the distances 10 and 20",
      source: `${SOURCE}: acpi_parse_slit`,
    });
  }
  return nodes.map((from) =>
    nodes.map((to) => {
      const row = from.proximityDomain ?? from.id;
      const column = to.proximityDomain ?? to.id;
      if (row >= size || column >= size) return row === column ? LOCAL_DISTANCE : REMOTE_DISTANCE;
      return matrix[row * size + column]!;
    }),
  );
}

/** Checks as `slit_valid` does. */
function isMatrix(
  root: Structure,
  matrix: Uint8Array,
  { findings }: Pick<ReadContext, "findings">,
): boolean {
  const localities = root.values.localities as bigint;
  if (localities * localities !== BigInt(matrix.length)) {
    findings.add({
      code: "slit/size",
      severity: localities * localities > BigInt(matrix.length) ? "error" : "warning",
      at: root.at + Slit.layout.at.localities,
      message: `${localities} localities need ${localities * localities} distances, here are ${matrix.length}`,
      effect: "Linux does not compare them: it reads what lies behind the table",
      source: `${SOURCE}: acpi_parse_slit`,
    });
    if (localities * localities > BigInt(matrix.length)) return false;
  }
  const size = Number(localities);
  for (let index = 0; index < size * size; index += 1) {
    const isLocal = Math.floor(index / size) === index % size;
    const value = matrix[index]!;
    if (isLocal ? value === LOCAL_DISTANCE : value > LOCAL_DISTANCE) continue;
    findings.add({
      code: "slit/invalid",
      severity: "error",
      at: root.at + Slit.layout.bytes + index,
      message: `Distance ${Math.floor(index / size)} → ${index % size} is ${value}; local is 10, all others above`,
      effect: "Linux logs `SLIT table looks invalid. Not used.`: 10 and 20 apply",
      source: `${SOURCE}: slit_valid`,
    });
    return false;
  }
  return true;
}
