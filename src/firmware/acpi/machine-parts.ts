/**
 * What a set of ACPI tables says of a machine, read as Linux reads it, and what Linux would reject,
 * ignore or trip over. Never throws on bad tables: what cannot be used is a finding.
 */
import { EMPTY_MACHINE, type Machine, type MachineFunction } from "../../topology/machine.ts";
import { Findings, type TableFinding } from "../table-finding.ts";
import type { Structure } from "../table-item.ts";
import { isA } from "../table-item.ts";
import type { DecodedTable } from "./decode.ts";
import { readDmar } from "./dmar-reader.ts";
import { AnyTable } from "./header.ts";
import { Iort } from "./iort.ts";
import { readIort } from "./iort-reader.ts";
import { readIvrs } from "./ivrs-reader.ts";
import { readMcfg } from "./mcfg-reader.ts";
import type { MachineParts, ReadContext } from "./reading.ts";
import { type InitiatorHandle, readSlit, readSrat } from "./srat-reader.ts";
import { ViotDraft } from "./viot.ts";
import { readViot } from "./viot-reader.ts";

/** What the tables gave. */
export interface TablesReading {
  /** {@link EMPTY_MACHINE} and what the tables say. */
  readonly machine: Machine;
  /** Devices that make a node of their own (SRAT). */
  readonly initiators: readonly InitiatorHandle[];
  /** For each table, in the order given: findings of its form and of its content. */
  readonly findings: readonly (readonly TableFinding[])[];
}

/** Order of reading: nodes first, since others name proximity domains. */
const order = ["SRAT", "SLIT", "MCFG", "DMAR", "IVRS", "IORT", "VIOT"];

const readers: Readonly<Record<string, (root: Structure, context: ReadContext) => MachineParts>> = {
  MCFG: readMcfg,
  DMAR: readDmar,
  IVRS: readIvrs,
  IORT: readIort,
  VIOT: (root, context) => {
    if (!isA(root, ViotDraft)) return readViot(root, context);
    readViot(root, context);
    const inner = root.items.find((item) => isA(item, Iort));
    return inner?.kind === "structure" ? readIort(inner, context, true) : {};
  },
};

/**
 * Reads tables together.
 *
 * @param tables - of one machine; of two with one signature Linux uses the first
 * @param functions - known functions, for device paths that lead through bridges
 */
export function readTables(
  tables: readonly DecodedTable[],
  functions: readonly MachineFunction[] = [],
): TablesReading {
  const lists = tables.map((table) => {
    const findings = new Findings(table.signature);
    for (const finding of table.findings) findings.add(finding);
    return findings;
  });
  noteDuplicates(tables, lists);
  const known = new KnownMachine(functions);
  for (const index of readingOrder(tables)) {
    const table = tables[index]!;
    // Linux reads the first of a signature; the others are read for what they hold of mistakes.
    const isFirst = tables.findIndex((one) => one.signature === table.signature) === index;
    const reader = isFirst ? known : known.copy();
    reader.read(table, lists[index]!);
  }
  noteTogether(tables, lists);
  const findings = lists.map((one) => one.list);
  return { machine: known.machine, initiators: known.initiators, findings };
}

/** What the tables read so far say. */
class KnownMachine {
  machine: Machine = EMPTY_MACHINE;
  initiators: readonly InitiatorHandle[] = [];
  #nodeOfDomain: ReadonlyMap<number, number> = new Map();
  readonly #functions: readonly MachineFunction[];

  constructor(functions: readonly MachineFunction[]) {
    this.#functions = functions;
  }

  copy(): KnownMachine {
    const copy = new KnownMachine(this.#functions);
    copy.machine = this.machine;
    copy.#nodeOfDomain = this.#nodeOfDomain;
    return copy;
  }

  read({ signature, root }: DecodedTable, findings: Findings): void {
    if (signature === "SRAT") {
      const srat = readSrat(root, { findings });
      this.machine = { ...this.machine, firmware: "acpi", nodes: srat.nodes };
      this.initiators = srat.initiators;
      this.#nodeOfDomain = srat.nodeOfDomain;
    } else if (signature === "SLIT") {
      this.machine = withDistances(this.machine, root, findings);
    } else {
      const nodeOf = (domain: number) => this.#nodeOfDomain.get(domain) ?? null;
      const parts = readers[signature]!(root, { nodeOf, functions: this.#functions, findings });
      this.machine = joined(this.machine, parts);
    }
  }
}

/** Positions of the tables that can be read, in order of reading. */
function readingOrder(tables: readonly DecodedTable[]): number[] {
  return order.flatMap((signature) =>
    tables.flatMap((table, index) =>
      table.signature === signature && table.root.format !== AnyTable ? [index] : [],
    ),
  );
}

function joined(machine: Machine, parts: MachineParts): Machine {
  return {
    ...machine,
    firmware: "acpi",
    iommus: [...machine.iommus, ...(parts.iommus ?? [])],
    hostBridges: withBridges(machine.hostBridges, parts.hostBridges ?? []),
    firmwareRegions: [...machine.firmwareRegions, ...(parts.firmwareRegions ?? [])],
    atsScopes: [...machine.atsScopes, ...(parts.atsScopes ?? [])],
  };
}

/** IORT knows host bridges by segment only: what it says goes to all bridges of the segment. */
function withBridges(
  known: Machine["hostBridges"],
  more: Machine["hostBridges"],
): Machine["hostBridges"] {
  const merged = known.map((bridge) => {
    const other = more.find((one) => one.segment === bridge.segment && one.ecamBase === null);
    return other === undefined ? bridge : { ...bridge, atsSupported: other.atsSupported };
  });
  const fresh = more.filter(
    (one) => one.ecamBase !== null || known.every((bridge) => bridge.segment !== one.segment),
  );
  return [...merged, ...fresh];
}

function withDistances(machine: Machine, root: Structure, findings: Findings): Machine {
  const rows = readSlit(root, machine.nodes, { findings });
  if (rows === null) return machine;
  const nodes = machine.nodes.map((node, index) => ({ ...node, distances: rows[index]! }));
  return { ...machine, nodes };
}

function noteDuplicates(tables: readonly DecodedTable[], lists: readonly Findings[]): void {
  const seen = new Set<string>();
  tables.forEach((table, index) => {
    if (seen.has(table.signature) && order.includes(table.signature)) {
      lists[index]!.add({
        code: "acpi/second-instance",
        severity: "warning",
        at: 0,
        message: `Another ${table.signature} comes before this one`,
        effect: "Linux reads the first in the order of XSDT only",
        source: "drivers/acpi/acpica/tbxface.c: acpi_get_table",
      });
    }
    seen.add(table.signature);
  });
}

/** What two tables together mean. */
function noteTogether(tables: readonly DecodedTable[], lists: readonly Findings[]): void {
  const at = (signature: string) => tables.findIndex((table) => table.signature === signature);
  const viot = at("VIOT");
  const vendor = Math.max(at("DMAR"), at("IVRS"));
  if (viot < 0 || vendor < 0) return;
  lists[viot]!.add({
    code: "viot/beside-vendor-table",
    severity: "warning",
    at: 0,
    message: `${tables[vendor]!.signature} is there, too`,
    effect: "The vendor's driver takes every device first; the virtio-iommu is never attached",
    source: "drivers/iommu/iommu.c: iommu_device_register",
  });
}
