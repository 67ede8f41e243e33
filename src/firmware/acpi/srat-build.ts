/** Writes a machine's nodes as SRAT and SLIT, and its configuration space as MCFG. */

import { ridOf } from "../../iommu/pci-function.ts";
import type { HostBridge, Machine, NumaNode } from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
import { checkMemoryRanges } from "../memory-ranges.ts";
import { EcamRange, Mcfg } from "./mcfg.ts";
import { Slit } from "./slit.ts";
import {
  ApicAffinity,
  GenericInitiator,
  GiccAffinity,
  MemoryAffinity,
  RintcAffinity,
  Srat,
  X2ApicAffinity,
} from "./srat.ts";
import { headerValues, type TableIds, TableWriter } from "./table-writer.ts";

/** Revision with proximity domains of 32 bits. */
const SRAT_REVISION = 3;
/** Last APIC id that an entry of 8 bits can name; 255 means all. */
const APIC_ID_LAST = 254;
/** Rows of a matrix that a distribution kernel reads at most. */
const LOCALITIES_MAX = 1024;

/** Firmware's number of a node. */
export function domainOf(node: NumaNode): number {
  return node.proximityDomain ?? node.id;
}

/** SRAT of a machine: CPUs and initiators in the order of nodes, then memory. */
export function buildSrat(machine: Machine, ids: TableIds): Uint8Array {
  checkNodes("srat", machine);
  checkMemoryRanges("srat", machine.nodes);
  const writer = new TableWriter();
  const header = headerValues("SRAT", SRAT_REVISION, ids);
  // The reserved bytes behind the table's own revision are part of the fixed part.
  writer.put(Srat, { ...header, tableRevision: 1 });
  for (const { node, id } of cpusInOrder(machine)) putCpu(writer, machine, domainOf(node), id);
  for (const node of machine.nodes) {
    if (node.cpus.length === 0 && node.memory.length === 0) putInitiators(writer, machine, node);
  }
  const memory = machine.nodes.flatMap((node) => node.memory.map((range) => ({ node, range })));
  memory.sort((a, b) => (a.range.start < b.range.start ? -1 : 1));
  for (const { node, range } of memory) {
    writer.put(MemoryAffinity, {
      type: 1,
      length: MemoryAffinity.layout.bytes,
      domain: domainOf(node),
      base: range.start,
      bytes: range.last - range.start + 1n,
      flags: 1 | (range.hotPluggable ? 2 : 0) | (range.nonVolatile ? 4 : 0),
    });
  }
  return writer.finish();
}

/** CPUs by the kernel's number, so that it numbers them again alike. */
function cpusInOrder(machine: Machine): { node: NumaNode; cpu: number; id: number }[] {
  const cpus = machine.nodes.flatMap((node) =>
    node.cpus.map((cpu, index) => ({ node, cpu, id: node.firmwareCpuIds?.[index] ?? cpu })),
  );
  return cpus.sort((a, b) => a.cpu - b.cpu);
}

/** Objects are written out in full: spreading one into another costs more than the writing. */
function putCpu(writer: TableWriter, machine: Machine, domain: number, id: number): void {
  const flags = 1;
  const clockDomain = 0;
  if (machine.architecture === "aarch64") {
    const length = GiccAffinity.layout.bytes;
    writer.put(GiccAffinity, { type: 3, length, domain, processorUid: id, flags, clockDomain });
  } else if (machine.architecture === "riscv64") {
    const length = RintcAffinity.layout.bytes;
    writer.put(RintcAffinity, { type: 7, length, domain, processorUid: id, flags, clockDomain });
  } else if (id > APIC_ID_LAST) {
    const length = X2ApicAffinity.layout.bytes;
    writer.put(X2ApicAffinity, { type: 2, length, domain, apicId: id, flags, clockDomain });
  } else {
    writer.put(ApicAffinity, {
      type: 0,
      length: ApicAffinity.layout.bytes,
      domainLow: domain & 0xff,
      apicId: id,
      flags,
      sapicEid: 0,
      domainMiddle: (domain >>> 8) & 0xff,
      domainHigh: domain >>> 16,
      clockDomain,
    });
  }
}

/** A node without CPUs and memory exists through the devices in it. */
function putInitiators(writer: TableWriter, machine: Machine, node: NumaNode): void {
  for (const pci of machine.functions) {
    if (pci.node !== node.id || pci.header !== "endpoint") continue;
    const handle = new Uint8Array(16);
    const rid = ridOf(pci);
    // Segment, then bus before devfn (F48).
    handle.set([pci.segment & 0xff, pci.segment >> 8, rid >> 8, rid & 0xff]);
    writer.put(GenericInitiator, {
      type: 5,
      length: GenericInitiator.layout.bytes,
      handleType: 1,
      domain: domainOf(node),
      handle,
      flags: 1,
    });
  }
}

function checkNodes(as: string, machine: Machine): void {
  if (machine.nodes.length === 0) {
    throw cannotDescribe(as, "the machine has no NUMA node", "add `nodes` to the topology");
  }
  const domains = machine.nodes.map(domainOf);
  if (new Set(domains).size === domains.length) return;
  throw cannotDescribe(as, "two nodes have one proximity domain", "give each node its own");
}

/** SLIT of a machine: a row for every proximity domain up to the highest. */
export function buildSlit(machine: Machine, ids: TableIds): Uint8Array {
  checkNodes("slit", machine);
  const size = Math.max(...machine.nodes.map(domainOf)) + 1;
  if (size > LOCALITIES_MAX) {
    const message = `${size} localities are more than the ${LOCALITIES_MAX} that kernels read`;
    throw cannotDescribe("slit", message, "number proximity domains from 0 on");
  }
  const matrix = new Uint8Array(size * size).fill(UNREACHABLE);
  for (let domain = 0; domain < size; domain += 1) matrix[domain * size + domain] = LOCAL;
  machine.nodes.forEach((from) => {
    machine.nodes.forEach((to, column) => {
      const distance = from.distances[column] ?? (from === to ? LOCAL : REMOTE);
      const isWrong =
        from === to ? distance !== LOCAL : distance <= LOCAL || distance > UNREACHABLE;
      if (isWrong) {
        const message = `distance ${from.id} → ${to.id} is ${distance}`;
        throw cannotDescribe("slit", message, "10 to itself, 11 … 255 to others");
      }
      matrix[domainOf(from) * size + domainOf(to)] = distance;
    });
  });
  const writer = new TableWriter();
  writer.put(Slit, { ...headerValues("SLIT", 1, ids), localities: BigInt(size) });
  writer.putBytes(matrix);
  return writer.finish();
}

const LOCAL = 10;
const REMOTE = 20;
const UNREACHABLE = 255;

/** MCFG of a machine: bridges that share an address are one entry. */
export function buildMcfg(machine: Machine, ids: TableIds): Uint8Array {
  const entries = new Map<string, HostBridge>();
  for (const bridge of machine.hostBridges) {
    if (bridge.ecamBase === null) continue;
    const key = `${bridge.segment} ${bridge.ecamBase}`;
    const known = entries.get(key) ?? bridge;
    const firstBus = Math.min(known.firstBus, bridge.firstBus);
    const lastBus = Math.max(known.lastBus, bridge.lastBus);
    entries.set(key, { ...known, firstBus, lastBus });
  }
  if (entries.size === 0) {
    const message = "no host bridge has an address of configuration space";
    throw cannotDescribe("mcfg", message, "give `ecamBase` of a host bridge");
  }
  const writer = new TableWriter();
  writer.put(Mcfg, headerValues("MCFG", 1, ids));
  for (const { segment, firstBus, lastBus, ecamBase } of entries.values()) {
    writer.put(EcamRange, { base: ecamBase!, segment, firstBus, lastBus });
  }
  return writer.finish();
}
