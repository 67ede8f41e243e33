/**
 * What Linux makes of an IVRS: AMD-Vi units with their devices, memory definitions. Source: Linux
 * 7.2 drivers/iommu/amd/init.c.
 */
import type {
  AmdIommu,
  FirmwareRegion,
  InterruptSource,
  MmioEndpoint,
  RidRange,
} from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { laterWins, type Span } from "../rid-spans.ts";
import { bytesNamed, type Item, isA, type Structure, type StructureOf } from "../table-item.ts";
import { trimmed } from "./header.ts";
import {
  AliasRange,
  AliasSelect,
  ExtendedRange,
  ExtendedSelect,
  HidDevice,
  Ivhd10,
  Ivhd11,
  Ivhd40,
  IvmdAll,
  IvmdOne,
  IvmdRange,
  Pad4,
  Pad8,
  RangeEnd,
  RangeStart,
  Select,
  SelectAll,
  Special,
} from "./ivrs.ts";
import { type MachineParts, RANGES_MAX, type ReadContext } from "./reading.ts";

const SOURCE = "drivers/iommu/amd/init.c";
const RID_LAST = 0xffff;
/** Type of block behind which Linux looks for no better type. */
const TYPE_MAX = 0x40;
/** Size of an AMD-Vi register window without counters. */
const REGISTER_BYTES = 0x4000n;
const IOAPIC = 1;

/** Reads an IVRS as `early_amd_iommu_init` does. */
export function readIvrs(root: Structure, context: ReadContext): MachineParts {
  return new IvrsReader(root, context).read();
}

interface Unit {
  readonly block: Structure;
  readonly endpoints: MmioEndpoint[];
  readonly interruptSources: InterruptSource[];
}

/** Functions of a unit; `alias` is the requester id that their DMA carries, or null. */
interface Owner {
  readonly unit: number;
  readonly alias: number | null;
}

type IvmdBlock = StructureOf<typeof IvmdAll.layout.fields>;

class IvrsReader {
  readonly #blocks: readonly Structure[];
  readonly #root: Structure;
  readonly #context: ReadContext;
  readonly #units: Unit[] = [];
  readonly #spans = new Map<number, Span<Owner>[]>();
  readonly #regions: FirmwareRegion[] = [];

  constructor(root: Structure, context: ReadContext) {
    this.#root = root;
    this.#context = context;
    this.#blocks = root.items.filter((item) => item.kind === "structure");
  }

  read(): MachineParts {
    this.#checkWalk();
    const type = this.#chosenType();
    for (const block of this.#blocks) {
      if (isIvhd(block)) {
        this.#checkEntries(block);
        if (Number(block.values.type) === type) this.#addUnit(block);
      } else if (isIvmd(block)) this.#addRegion(block);
      else this.#noteUnknown(block);
    }
    this.#checkUnits();
    return { iommus: this.#iommus(), firmwareRegions: this.#regions };
  }

  #hang(at: number, message: string): void {
    this.#context.findings.add({
      code: "ivrs/hang",
      severity: "error",
      at,
      message,
      effect: "Linux 7.2 never gets past it: boot hangs early",
      source: `${SOURCE}: find_last_devid_acpi, init_iommu_from_acpi`,
    });
  }

  #checkWalk(): void {
    const stopped = this.#root.items.find((item) => item.kind === "bytes");
    if (stopped === undefined || stopped.kind !== "bytes" || stopped.name !== "not decoded") return;
    const isZero = stopped.length >= 4 && stopped.bytes[2] === 0 && stopped.bytes[3] === 0;
    if (isZero) this.#hang(stopped.at, "A block has length 0");
  }

  #checkEntries(block: Structure): void {
    for (const item of block.items) {
      if (item.kind !== "bytes" || item.name !== "not decoded") continue;
      const type = item.bytes[0]!;
      if (type >= 0x80 && type !== HidDevice.type) {
        this.#hang(item.at, `Entries of type ${hex(type)} have no length that anybody knows`);
      }
    }
  }

  #noteUnknown(block: Structure): void {
    this.#context.findings.add({
      code: "ivrs/block-unknown",
      severity: Number(block.values.type) > TYPE_MAX ? "warning" : "note",
      at: block.at,
      message: `Nobody knows blocks of type ${hex(Number(block.values.type), 2)}`,
      effect:
        Number(block.values.type) > TYPE_MAX
          ? "Linux looks for a better IVHD type no further than here"
          : "Linux skips it by its length",
      source: `${SOURCE}: get_highest_supported_ivhd_type`,
    });
  }

  /** The one IVHD type that counts: the last among blocks for the first block's unit (F72). */
  #chosenType(): number {
    const first = this.#blocks[0];
    if (first === undefined) return -1;
    const unit = deviceIdOf(first);
    let chosen = Number(first.values.type);
    for (const block of this.#blocks) {
      const type = Number(block.values.type);
      if (type > TYPE_MAX) break;
      if (deviceIdOf(block) === unit) chosen = type;
    }
    if (chosen >= 0x20 && chosen <= 0x22) {
      this.#context.findings.add({
        code: "ivrs/type-taken-from-memory",
        severity: "error",
        at: first.at,
        message: "A memory definition for the IOMMU's own function is taken for the best IVHD type",
        effect: "Linux then finds no unit at all",
        source: `${SOURCE}: get_highest_supported_ivhd_type`,
      });
    }
    return chosen;
  }

  #checkUnits(): void {
    if (this.#units.length === 0) {
      this.#context.findings.add({
        code: "ivrs/no-unit",
        severity: "error",
        at: this.#root.at,
        message: "No block that Linux would use describes a unit",
        effect: "AMD-Vi is off",
        source: `${SOURCE}: init_iommu_all`,
      });
      return;
    }
    const sources = this.#units.flatMap((unit) => unit.interruptSources);
    if (sources.some((source) => source.kind === "ioapic")) return;
    this.#context.findings.add({
      code: "ivrs/no-ioapic",
      severity: "warning",
      at: this.#units[0]!.block.at,
      message: "No special entry for an IOAPIC",
      effect: "Linux logs `Disabling interrupt remapping`; DMA remapping goes on",
      source: `${SOURCE}: check_ioapic_information`,
    });
  }

  #addUnit(block: Structure): void {
    const unit: Unit = { block, endpoints: [], interruptSources: [] };
    const index = this.#units.push(unit) - 1;
    const segment = Number(block.values.segment);
    let start = 0;
    let alias: number | null = null;
    for (const entry of block.items) {
      const span = (first: number, last: number, as: number | null) =>
        this.#addSpan(segment, first, last, { unit: index, alias: as });
      if (isA(entry, SelectAll)) span(0, RID_LAST, null);
      else if (isA(entry, Select) || isA(entry, ExtendedSelect)) {
        span(entry.values.deviceId, entry.values.deviceId, null);
      } else if (isA(entry, RangeStart) || isA(entry, ExtendedRange)) {
        start = entry.values.deviceId;
        alias = null;
      } else if (isA(entry, AliasRange)) {
        start = entry.values.deviceId;
        alias = entry.values.sourceId;
      } else if (isA(entry, RangeEnd)) {
        span(start, entry.values.deviceId, alias);
        if (alias !== null) span(alias, alias, null);
      } else if (isA(entry, AliasSelect)) {
        const { deviceId, sourceId } = entry.values;
        span(deviceId, deviceId, sourceId);
        span(sourceId, sourceId, null);
      } else this.#addOther(unit, entry, segment);
    }
  }

  #addSpan(segment: number, first: number, last: number, value: Owner): void {
    if (last < first) return;
    const spans = this.#spans.get(segment) ?? [];
    this.#spans.set(segment, spans);
    spans.push({ first, last, value });
  }

  #addOther(unit: Unit, entry: Item, segment: number): void {
    if (isA(entry, Special)) {
      const { variety, handle, sourceId } = entry.values;
      const kind = variety === IOAPIC ? "ioapic" : "hpet";
      unit.interruptSources.push({ kind, id: handle, segment, rid: sourceId });
    } else if (isA(entry, HidDevice)) {
      if (unit.block.format !== Ivhd40) {
        this.#context.findings.add({
          code: "ivrs/hid-misplaced",
          severity: "warning",
          at: entry.at,
          message: "An ACPI device stands in a block that is not of type 0x40",
          effect: "Linux logs `Invalid IVHD device type 0xf0` and skips it",
          source: `${SOURCE}: init_iommu_from_acpi`,
        });
        return;
      }
      const uid = bytesNamed(entry, "uid") ?? new Uint8Array(0);
      const text = entry.values.uidFormat === 2 ? trimmed(uid) : `${uid[0] ?? 0}`;
      const path = entry.values.uidFormat === 2 ? text : `${trimmed(entry.values.hid)}:${text}`;
      unit.endpoints.push({ base: 0n, id: entry.values.deviceId, path });
    } else if (entry.kind === "structure" && !isA(entry, Pad4) && !isA(entry, Pad8)) {
      this.#context.findings.add({
        code: "ivrs/entry-unknown",
        severity: "warning",
        at: entry.at,
        message: `Nobody knows entries of type ${hex(Number(entry.values.type), 2)}`,
        effect: "Linux skips it by the length that its type's upper bits give",
        source: `${SOURCE}: init_iommu_from_acpi`,
      });
    }
  }

  #addRegion(block: IvmdBlock): void {
    const { flags, deviceId, auxiliary, segment, start, bytes } = block.values;
    if (bytes === 0n || start + bytes > 2n ** 64n) {
      this.#context.findings.add({
        code: "ivrs/memory-range",
        severity: "warning",
        at: block.at,
        message: `Memory of ${hex(bytes)} bytes at ${hex(start)} is no range`,
        effect: "Linux makes an empty or wrapped region of it",
        source: `${SOURCE}: init_unity_map_range`,
      });
      return;
    }
    const isExclusion = (flags & 8) !== 0;
    const last = isA(block, IvmdRange) ? auxiliary : deviceId;
    this.#regions.push({
      start,
      last: start + bytes - 1n,
      source: "ivmd",
      treatment: isExclusion ? "excluded" : "mapped",
      // Linux maps an exclusion range to itself, for reading and writing (F75).
      canRead: isExclusion || (flags & 2) !== 0,
      canWrite: isExclusion || (flags & 4) !== 0,
      functions: isA(block, IvmdAll)
        ? null
        : [{ segment, firstRid: deviceId, lastRid: last, firstId: deviceId, includesBelow: false }],
    });
  }

  #iommus(): AmdIommu[] {
    const ranges: RidRange[][] = this.#units.map(() => []);
    let count = 0;
    for (const [segment, spans] of [...this.#spans].sort((a, b) => a[0] - b[0])) {
      for (const { first, last, value } of laterWins(spans)) {
        const { alias, unit } = value;
        // All functions of an alias range share one id, so each is a range of its own.
        const step = alias === null ? last - first + 1 : 1;
        for (let rid = first; rid <= last && count < RANGES_MAX; rid += step) {
          const firstId = alias ?? rid;
          const lastRid = rid + step - 1;
          ranges[unit]!.push({ segment, firstRid: rid, lastRid, firstId, includesBelow: false });
          count += 1;
        }
      }
    }
    if (count === RANGES_MAX) this.#noteTooMany();
    return this.#units.map((unit, index) => this.#iommu(unit, index, ranges[index]!));
  }

  #noteTooMany(): void {
    this.#context.findings.add({
      code: "ivrs/too-many-ranges",
      severity: "warning",
      at: this.#root.at,
      message: `Aliases make more than ${RANGES_MAX} ranges; the rest is left out here`,
    });
  }

  #iommu(unit: Unit, index: number, translates: readonly RidRange[]): AmdIommu {
    const { values } = unit.block;
    const base = values.base as bigint;
    return {
      kind: "amd",
      name: `ivhd${index}`,
      node: null,
      includesRest: false,
      translates,
      endpoints: unit.endpoints,
      interruptSources: unit.interruptSources,
      segment: Number(values.segment),
      rid: Number(values.deviceId),
      capabilityOffset: Number(values.capabilityOffset),
      registers: { start: base, last: base + REGISTER_BYTES - 1n },
      features: unit.block.format === Ivhd10 ? null : (values.efr as bigint),
      features2: unit.block.format === Ivhd10 ? null : (values.efr2 as bigint),
    };
  }
}

function isIvhd(block: Structure): boolean {
  return [Ivhd10, Ivhd11, Ivhd40].some((format) => format === block.format);
}

function isIvmd(block: Structure): block is IvmdBlock {
  return isA(block, IvmdAll) || isA(block, IvmdOne) || isA(block, IvmdRange);
}

/** What stands where an IVHD has its unit's function; Linux looks there in every block. */
function deviceIdOf(block: Structure): number {
  return Number(block.values.deviceId ?? -1);
}
