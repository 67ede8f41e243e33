/**
 * Writes a machine's VT-d units as a DMAR: each DRHD with its devices, then reserved memory, ATS and
 * affinity, which must come after the DRHD that it means (F60).
 */
import type {
  AtsScope,
  FirmwareRegion,
  Machine,
  MachineFunction,
  RidRange,
  VtdIommu,
} from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
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
} from "./dmar.ts";
import { domainOf } from "./srat-build.ts";
import { headerValues, type TableIds, TableWriter } from "./table-writer.ts";

/** Bits of host addresses where no unit says more: 48, as QEMU has it. */
const WIDTH_DEFAULT = 48;
const INTERRUPT_REMAPPING = 1;
/** Functions that a single range may stand for; a scope names one. */
const SCOPES_MAX = 8192;

/** DMAR of a machine. @throws StackError when it has no VT-d unit */
export function buildDmar(machine: Machine, ids: TableIds): Uint8Array {
  return new DmarBuilder(machine).build(ids);
}

class DmarBuilder {
  readonly #machine: Machine;
  readonly #writer = new TableWriter();
  /** Position of each function by segment and requester id. */
  readonly #functions = new Map<number, MachineFunction>();
  /** Numbers of namespace devices by path, in order of first use. */
  readonly #names = new Map<string, number>();

  constructor(machine: Machine) {
    this.#machine = machine;
    for (const one of machine.functions) {
      this.#functions.set(keyOf(one.segment, one.bus * 0x100 + one.devfn), one);
    }
  }

  build(ids: TableIds): Uint8Array {
    const units = this.#machine.iommus.filter((iommu): iommu is VtdIommu => iommu.kind === "vtd");
    if (units.length === 0) {
      throw cannotDescribe(
        "dmar",
        "the machine has no VT-d unit",
        "virtio-iommu is in viot, AMD-Vi in ivrs",
      );
    }
    const hasInterrupts = units.some((unit) => unit.interruptSources.length > 0);
    this.#writer.put(Dmar, {
      ...headerValues("DMAR", 1, ids),
      addressBits: widthOf(units) - 1,
      flags: hasInterrupts ? INTERRUPT_REMAPPING : 0,
    });
    // Linux asks units with listed devices first, so those that take the rest stand last.
    const inOrder = [...units].sort((a, b) => Number(a.includesRest) - Number(b.includesRest));
    for (const unit of inOrder) this.#putUnit(unit);
    for (const region of this.#machine.firmwareRegions) {
      if (region.source === "rmrr") this.#putRegion(region);
    }
    for (const scope of this.#machine.atsScopes) this.#putAts(scope);
    for (const unit of inOrder) this.#putAffinity(unit);
    for (const [path, deviceNumber] of this.#names) this.#putName(path, deviceNumber);
    return this.#writer.finish();
  }

  #putUnit(unit: VtdIommu): void {
    for (const { segment, firstRid, firstId } of unit.translates) {
      if (segment !== unit.segment) {
        const message = `${unit.name} is on segment ${unit.segment} and has functions of ${segment}`;
        throw cannotDescribe("dmar", message, "a unit of VT-d serves one segment");
      }
      if (firstId !== firstRid) {
        const message = `${unit.name} has functions with other ids than their own`;
        throw cannotDescribe("dmar", message, "VT-d knows functions by their requester ids");
      }
    }
    const { start, last } = unit.registers;
    const pages = (last - start + 1n) / 4096n;
    const at = this.#writer.put(Drhd, {
      type: 0,
      length: 0,
      flags: unit.includesRest ? 1 : 0,
      size: Math.max(0, pages.toString(2).length - 1),
      segment: unit.segment,
      base: start,
    });
    for (const source of unit.interruptSources) {
      const type = source.kind === "ioapic" ? ScopeType.IOAPIC : ScopeType.HPET;
      this.#putScope(type, source.id, source.segment, source.rid);
    }
    this.#putRanges(unit.translates);
    for (const { path, id } of unit.endpoints) {
      if (path === null) {
        const message = "an endpoint has no path in the ACPI namespace, by which DMAR names it";
        throw cannotDescribe("dmar", message, "give its `path`");
      }
      this.#putScope(ScopeType.NAMESPACE, this.#numberOf(path), unit.segment, id);
    }
    this.#writer.patch(Drhd, at, "length", this.#writer.length - at);
  }

  #numberOf(path: string): number {
    const number = this.#names.get(path) ?? this.#names.size + 1;
    this.#names.set(path, number);
    return number;
  }

  #putRanges(ranges: readonly RidRange[]): void {
    let scopes = 0;
    for (const range of ranges) {
      for (let rid = range.firstRid; rid <= range.lastRid; rid += 1) {
        const known = this.#functions.get(keyOf(range.segment, rid));
        // A scope names one function, so a range stands for those that exist.
        if (known === undefined && range.firstRid !== range.lastRid) continue;
        scopes += 1;
        if (scopes > SCOPES_MAX) {
          const message = `more than ${SCOPES_MAX} functions would have to be listed`;
          throw cannotDescribe("dmar", message, "let the unit take the rest (`includesRest`)");
        }
        const isBridge = range.includesBelow || known?.header === "bridge";
        this.#putScope(isBridge ? ScopeType.BRIDGE : ScopeType.ENDPOINT, 0, range.segment, rid);
      }
    }
  }

  #putScope(type: number, enumerationId: number, segment: number, rid: number): void {
    const steps = this.#pathTo(segment, rid);
    this.#writer.put(DeviceScope, {
      type,
      length: DeviceScope.layout.bytes + PathStep.layout.bytes * steps.length,
      flags: 0,
      enumerationId,
      startBus: steps[0]! >> 8,
    });
    for (const step of steps) {
      this.#writer.put(PathStep, { device: (step >> 3) & 31, function: step & 7 });
    }
  }

  /** Requester ids from a root bus down; the function alone where the way is not known. */
  #pathTo(segment: number, rid: number): number[] {
    const path = [rid];
    let bridge = this.#functions.get(keyOf(segment, rid))?.bridge ?? -1;
    // Bridges nest to 256 buses at most; a circle in the list ends here.
    while (bridge >= 0 && path.length < 256) {
      const above = this.#machine.functions[bridge];
      if (above === undefined) break;
      path.unshift(above.bus * 0x100 + above.devfn);
      bridge = above.bridge;
    }
    return path.length < 124 ? path : [rid];
  }

  #putRegion(region: FirmwareRegion): void {
    const { functions, start, last } = region;
    if (functions === null) {
      throw cannotDescribe(
        "dmar",
        "reserved memory for all devices",
        "name the functions that it is for",
      );
    }
    const segments = [...new Set(functions.map((range) => range.segment))];
    for (const segment of segments.length === 0 ? [0] : segments) {
      const at = this.#writer.put(Rmrr, { type: 1, length: 0, segment, base: start, limit: last });
      this.#putRanges(functions.filter((range) => range.segment === segment));
      this.#writer.patch(Rmrr, at, "length", this.#writer.length - at);
    }
  }

  #putAts(scope: AtsScope): void {
    const { segment, rids, kind, isRequired } = scope;
    if (kind === "integrated") {
      const at = this.#writer.put(Satc, { type: 5, length: 0, flags: isRequired ? 1 : 0, segment });
      for (const rid of rids) this.#putScope(ScopeType.ENDPOINT, 0, segment, rid);
      this.#writer.patch(Satc, at, "length", this.#writer.length - at);
      return;
    }
    const flags = kind === "all-ports" ? 1 : 0;
    const at = this.#writer.put(Atsr, { type: 2, length: 0, flags, segment });
    for (const rid of rids) this.#putScope(ScopeType.BRIDGE, 0, segment, rid);
    this.#writer.patch(Atsr, at, "length", this.#writer.length - at);
  }

  #putAffinity(unit: VtdIommu): void {
    const node = this.#machine.nodes.find((one) => one.id === unit.node);
    if (node === undefined) return;
    const length = Rhsa.layout.bytes;
    this.#writer.put(Rhsa, { type: 3, length, base: unit.registers.start, domain: domainOf(node) });
  }

  #putName(path: string, deviceNumber: number): void {
    const at = this.#writer.put(Andd, { type: 4, length: 0, deviceNumber });
    this.#writer.putText(path);
    this.#writer.patch(Andd, at, "length", this.#writer.length - at);
  }
}

function keyOf(segment: number, rid: number): number {
  return segment * 0x1_0000 + rid;
}

/** Bits of host addresses: the widest guest address of a unit, capability register 21:16. */
function widthOf(units: readonly VtdIommu[]): number {
  const widths = units.map(({ capability }) =>
    capability === null ? WIDTH_DEFAULT : Number((capability >> 16n) & 0x3fn) + 1,
  );
  return Math.max(...widths, 12);
}
