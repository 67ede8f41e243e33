/**
 * What Linux makes of a DMAR: VT-d units with their devices, reserved memory, ATS. Source: Linux 7.2
 * drivers/iommu/intel/dmar.c, drivers/iommu/intel/iommu.c.
 */
import type {
  AtsScope,
  FirmwareRegion,
  InterruptSource,
  MmioEndpoint,
  RidRange,
  VtdIommu,
} from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { isA, itemsOf, type Structure, type StructureOf, textOf } from "../table-item.ts";
import {
  Andd,
  Atsr,
  DeviceScope,
  Dmar,
  Drhd,
  PathStep,
  Rhsa,
  Rmrr,
  Satc,
  ScopeType,
  Sidp,
} from "./dmar.ts";
import type { MachineParts, ReadContext } from "./reading.ts";

const DMAR = "drivers/iommu/intel/dmar.c";
const IOMMU = "drivers/iommu/intel/iommu.c";
/** Bits of address width below which Linux refuses the table. */
const WIDTH_FIELD_MIN = 11;

/** Reads a DMAR as `parse_dmar_table` and its helpers do. */
export function readDmar(root: Structure, context: ReadContext): MachineParts {
  return new DmarReader(root, context).read();
}

interface Scopes {
  readonly translates: RidRange[];
  readonly endpoints: MmioEndpoint[];
  readonly interruptSources: InterruptSource[];
}

class DmarReader {
  readonly #root: Structure;
  readonly #context: ReadContext;
  readonly #units: (VtdIommu & { at: number })[] = [];
  readonly #bases = new Set<bigint>();
  readonly #regions: FirmwareRegion[] = [];
  readonly #ats: AtsScope[] = [];
  readonly #names = new Map<number, string>();
  readonly #nodes = new Map<bigint, number | null>();
  /** Secondary bus of a bridge by segment and requester id. */
  readonly #secondary = new Map<number, number>();

  constructor(root: Structure, context: ReadContext) {
    this.#root = root;
    this.#context = context;
    for (const one of context.functions) {
      if (one.secondaryBus < 0) continue;
      this.#secondary.set(one.segment * 0x1_0000 + one.bus * 0x100 + one.devfn, one.secondaryBus);
    }
  }

  read(): MachineParts {
    this.#checkHead();
    // Names first: scopes may come before the ANDD that they mean.
    for (const andd of itemsOf(this.#root, Andd)) this.#addName(andd);
    for (const item of this.#root.items) {
      if (isA(item, Drhd)) this.#addUnit(item);
      else if (isA(item, Rmrr)) this.#addRegion(item);
      else if (isA(item, Atsr)) this.#addPorts(item);
      else if (isA(item, Satc)) this.#addIntegrated(item);
      else if (isA(item, Rhsa)) this.#addAffinity(item);
      else if (isA(item, Sidp)) this.#scopesOf(item, item.values.segment);
      else if (item.kind === "structure") this.#noteUnknown(item);
    }
    if (this.#units.length === 0) {
      this.#context.findings.add({
        code: "dmar/no-unit",
        severity: "error",
        at: this.#root.at,
        message: "No DRHD: the table names no remapping unit",
        effect: "Linux logs `No DRHD structure found in DMAR table`; VT-d is off",
        source: `${DMAR}: dmar_table_init`,
      });
    }
    const iommus = this.#units.map(({ at: _at, ...unit }) => ({
      ...unit,
      node: this.#nodes.get(unit.registers.start) ?? null,
    }));
    return { iommus, firmwareRegions: this.#regions, atsScopes: this.#ats };
  }

  #error(code: `dmar/${string}`, at: number, message: string, effect: string, where: string) {
    this.#context.findings.add({ code, severity: "error", at, message, effect, source: where });
  }

  #checkHead(): void {
    if (!isA(this.#root, Dmar)) return;
    const { addressBits } = this.#root.values;
    if (addressBits < WIDTH_FIELD_MIN) {
      const at = this.#root.at + Dmar.layout.at.addressBits;
      const effect = "Linux logs `Invalid DMAR haw` and leaves VT-d off";
      const message = `Host addresses of ${addressBits + 1} bits are too narrow`;
      this.#error("dmar/width", at, message, effect, `${DMAR}: parse_dmar_table`);
    }
    const stopped = this.#root.items.find((item) => item.kind === "bytes");
    if (stopped?.kind !== "bytes" || stopped.name !== "not decoded") return;
    const isZero = stopped.bytes.length >= 4 && stopped.bytes[2] === 0 && stopped.bytes[3] === 0;
    this.#error(
      "dmar/walk",
      stopped.at,
      isZero ? "A structure has length 0" : "A structure passes the end of the table",
      isZero
        ? "Linux 7.2 never leaves its search for ANDD: boot hangs in pci_iommu_init"
        : "Linux logs `Record passes table end`, `Parse DMAR table failure.`; VT-d is off",
      isZero ? `${IOMMU}: probe_acpi_namespace_devices` : `${DMAR}: dmar_walk_remapping_entries`,
    );
  }

  #noteUnknown(item: Structure): void {
    const type = Number(item.values.type);
    if (type <= (Sidp.type ?? 0)) return;
    this.#context.findings.add({
      code: "dmar/structure-unknown",
      severity: "note",
      at: item.at,
      message: `Nobody knows structures of type ${type}`,
      effect: "Linux skips it by its length",
      source: `${DMAR}: dmar_walk_remapping_entries`,
    });
  }

  #addName(andd: StructureOf<typeof Andd.layout.fields>): void {
    const path = textOf(andd);
    if (path !== null) this.#names.set(andd.values.deviceNumber, path);
    else {
      const effect = "Linux refuses the whole table";
      const message = "The name is not ended by NUL inside the structure";
      this.#error("dmar/name", andd.at, message, effect, `${DMAR}: dmar_parse_one_andd`);
    }
  }

  #addUnit(drhd: StructureOf<typeof Drhd.layout.fields>): void {
    const { base, size, segment, flags } = drhd.values;
    if (base === 0n) {
      const effect = "Linux logs `Your BIOS is broken; DMAR reported at address 0!`; VT-d is off";
      const message = "The registers are at address 0";
      this.#error("dmar/base", drhd.at, message, effect, `${DMAR}: dmar_validate_one_drhd`);
    }
    const scopes = this.#scopesOf(drhd, segment);
    const bytes = 4096n << BigInt(size & 0xf);
    this.#bases.add(base);
    this.#units.push({
      at: drhd.at,
      kind: "vtd",
      name: `dmar${this.#units.length}`,
      node: null,
      includesRest: (flags & 1) !== 0,
      ...scopes,
      segment,
      registers: { start: base, last: base + bytes - 1n },
      version: null,
      capability: null,
      extendedCapability: null,
    });
  }

  #addRegion(rmrr: StructureOf<typeof Rmrr.layout.fields>): void {
    const { base, limit, segment } = rmrr.values;
    const isAligned = base % 4096n === 0n && limit % 4096n === 4095n;
    if (base >= limit || !isAligned) {
      this.#context.findings.add({
        code: "dmar/region",
        severity: "warning",
        at: rmrr.at,
        message: `Reserved memory ${hex(base)} … ${hex(limit)} is no range of whole pages`,
        effect: "Linux logs `bad RMRR`, taints the kernel and uses it all the same",
        source: `${IOMMU}: dmar_parse_one_rmrr`,
      });
    }
    const { translates } = this.#scopesOf(rmrr, segment);
    if (base > limit) return;
    this.#regions.push({
      start: base,
      last: limit,
      source: "rmrr",
      treatment: "mapped",
      canRead: true,
      canWrite: true,
      functions: translates,
    });
  }

  #addPorts(atsr: StructureOf<typeof Atsr.layout.fields>): void {
    const { segment, flags } = atsr.values;
    const kind = (flags & 1) === 0 ? "ports" : "all-ports";
    const rids = this.#scopesOf(atsr, segment).translates.map((range) => range.firstRid);
    this.#ats.push({ segment, kind, rids, isRequired: false });
  }

  #addIntegrated(satc: StructureOf<typeof Satc.layout.fields>): void {
    const { segment, flags } = satc.values;
    const rids = this.#scopesOf(satc, segment).translates.map((range) => range.firstRid);
    this.#ats.push({ segment, kind: "integrated", rids, isRequired: (flags & 1) !== 0 });
  }

  #addAffinity(rhsa: StructureOf<typeof Rhsa.layout.fields>): void {
    const { base, domain } = rhsa.values;
    if (!this.#bases.has(base)) {
      this.#context.findings.add({
        code: "dmar/affinity",
        severity: "warning",
        at: rhsa.at,
        message: `No DRHD before it has registers at ${hex(base)}`,
        effect: "Linux logs `RHSA refers to non-existent DMAR unit`, taints, places nothing",
        source: `${DMAR}: dmar_parse_one_rhsa`,
      });
      return;
    }
    this.#nodes.set(base, this.#context.nodeOf(domain));
  }

  #scopesOf(owner: Structure, segment: number): Scopes {
    const scopes: Scopes = { translates: [], endpoints: [], interruptSources: [] };
    for (const item of owner.items) {
      if (isA(item, DeviceScope)) this.#addScope(item, segment, scopes);
      else if (item.kind === "bytes" && item.name === "not decoded") {
        const effect = "Linux reads on by the lengths that it finds; with length 0 it never ends";
        const message = "A device scope has a length that cannot be";
        this.#error("dmar/scope", item.at, message, effect, `${DMAR}: dmar_alloc_dev_scope`);
      }
    }
    return scopes;
  }

  #addScope(
    scope: StructureOf<typeof DeviceScope.layout.fields>,
    segment: number,
    scopes: Scopes,
  ): void {
    const { type, enumerationId: id } = scope.values;
    const rid = this.#ridOf(scope, segment);
    if (rid === null) return;
    switch (type) {
      case ScopeType.ENDPOINT:
      case ScopeType.BRIDGE: {
        const includesBelow = type === ScopeType.BRIDGE;
        scopes.translates.push({
          segment,
          firstRid: rid,
          lastRid: rid,
          firstId: rid,
          includesBelow,
        });
        return;
      }
      case ScopeType.IOAPIC:
        scopes.interruptSources.push({ kind: "ioapic", id, segment, rid });
        return;
      case ScopeType.HPET:
        scopes.interruptSources.push({ kind: "hpet", id, segment, rid });
        return;
      case ScopeType.NAMESPACE:
        scopes.endpoints.push({ base: 0n, id: rid, path: this.#names.get(id) ?? null });
        return;
      default:
        this.#context.findings.add({
          code: "dmar/scope-unknown",
          severity: "warning",
          at: scope.at,
          message: `Nobody knows device scopes of type ${type}`,
          effect: "Linux logs `Unsupported device scope` and skips it",
          source: `${DMAR}: dmar_alloc_dev_scope`,
        });
    }
  }

  /** The requester id at the end of a path, through the bridges on the way; null when unknown. */
  #ridOf(scope: StructureOf<typeof DeviceScope.layout.fields>, segment: number): number | null {
    const path = itemsOf(scope, PathStep);
    let bus: number | undefined = scope.values.startBus;
    let rid: number | null = null;
    for (const { values } of path) {
      if (rid !== null) bus = this.#secondary.get(segment * 0x1_0000 + rid);
      if (bus === undefined || values.device > 31 || values.function > 7) {
        this.#noteWay(scope, bus === undefined);
        return null;
      }
      rid = bus * 0x100 + values.device * 8 + values.function;
    }
    if (rid === null) this.#noteWay(scope, false);
    return rid;
  }

  #noteWay(scope: Structure, isBusUnknown: boolean): void {
    this.#context.findings.add({
      code: "dmar/path",
      severity: isBusUnknown ? "note" : "warning",
      at: scope.at,
      message: isBusUnknown
        ? "The path leads through a bridge whose bus is not known here"
        : "The path leads to no device",
      effect: isBusUnknown
        ? "Linux follows it by the bus numbers of the running machine"
        : "Linux finds no device for this scope",
      source: `${DMAR}: dmar_match_pci_path`,
    });
  }
}
