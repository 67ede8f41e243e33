/**
 * Writes a machine's AMD-Vi units as an IVRS: for each a block of type 0x10 and one of type 0x11, as
 * firmware does for old and new kernels, and 0x40 where a device of the ACPI namespace needs it.
 */
import type { AmdIommu, FirmwareRegion, Machine, RidRange } from "../../topology/machine.ts";
import { cannotDescribe } from "../build-error.ts";
import { withRestAsRanges } from "../rest-ranges.ts";
import {
  AliasSelect,
  HidDevice,
  Ivhd10,
  Ivhd11,
  Ivhd40,
  IvmdAll,
  IvmdOne,
  IvmdRange,
  Ivrs,
  RangeEnd,
  RangeStart,
  Select,
  SelectAll,
  Special,
} from "./ivrs.ts";
import { headerValues, padded, type TableIds, TableWriter } from "./table-writer.ts";

const REVISION = 2;
/** IVinfo: physical addresses of 48 bits, virtual ones of 64 (written as 0). */
const INFO = 48 << 8;
const EFR_SUPPORTED = 1;
const RID_LAST = 0xffff;
/** IVHD flags: remote IOTLB support, as every unit since the first revision has. */
const FLAGS = 0x10;

/** IVRS of a machine. @throws StackError when it has no AMD-Vi unit */
export function buildIvrs(given: Machine, ids: TableIds): Uint8Array {
  const machine = withRestAsRanges("ivrs", given, ["amd"]);
  const units = machine.iommus.filter((iommu): iommu is AmdIommu => iommu.kind === "amd");
  if (units.length === 0) {
    throw cannotDescribe(
      "ivrs",
      "the machine has no AMD-Vi unit",
      "virtio-iommu is in viot, VT-d in dmar",
    );
  }
  const hasFeatures = units.some((unit) => unit.features !== null);
  const writer = new TableWriter();
  const info = INFO | (hasFeatures ? EFR_SUPPORTED : 0);
  writer.put(Ivrs, { ...headerValues("IVRS", REVISION, ids), info });
  const hasNames = units.some((unit) => unit.endpoints.length > 0);
  for (const unit of units) putBlock(writer, unit, Ivhd10);
  if (hasFeatures || hasNames) for (const unit of units) putBlock(writer, unit, Ivhd11);
  if (hasNames) for (const unit of units) putBlock(writer, unit, Ivhd40);
  for (const region of machine.firmwareRegions) {
    if (region.source === "ivmd") putRegion(writer, region);
  }
  return writer.finish();
}

function putBlock(
  writer: TableWriter,
  unit: AmdIommu,
  format: typeof Ivhd10 | typeof Ivhd11 | typeof Ivhd40,
): void {
  const common = {
    type: format.type!,
    flags: FLAGS,
    length: 0,
    deviceId: unit.rid,
    capabilityOffset: unit.capabilityOffset,
    base: unit.registers.start,
    segment: unit.segment,
    info: 0,
  };
  const efr = unit.features ?? 0n;
  const at =
    format.kind === "ivhd-10"
      ? writer.put(Ivhd10, { ...common, features: 0 })
      : writer.put(format.kind === "ivhd-11" ? Ivhd11 : Ivhd40, {
          ...common,
          attributes: 0,
          efr,
          efr2: unit.features2 ?? 0n,
        });
  for (const { segment } of [...unit.translates, ...unit.interruptSources]) {
    if (segment === unit.segment) continue;
    const message = `${unit.name} is on segment ${unit.segment} and has functions of ${segment}`;
    throw cannotDescribe("ivrs", message, "a unit of AMD-Vi serves one segment");
  }
  for (const range of unit.translates) putRange(writer, range);
  for (const source of unit.interruptSources) {
    const variety = source.kind === "ioapic" ? 1 : 2;
    const entry = { type: 72, deviceId: 0, settings: 0, handle: source.id };
    writer.put(Special, { ...entry, sourceId: source.rid, variety });
  }
  if (format.kind === "ivhd-40") {
    for (const { path, id } of unit.endpoints) putName(writer, path, id);
  }
  writer.patch(Ivhd10, at, "length", writer.length - at);
}

function putRange(writer: TableWriter, range: RidRange): void {
  const { firstRid, lastRid, firstId } = range;
  const settings = 0;
  if (firstRid === 0 && lastRid === RID_LAST && firstId === 0) {
    writer.put(SelectAll, { type: 1, deviceId: 0, settings });
  } else if (firstRid !== lastRid) {
    if (firstId !== firstRid) {
      const message = "ids of AMD-Vi are requester ids; only a single function can have an alias";
      throw cannotDescribe("ivrs", message, "give a range of one function for each");
    }
    writer.put(RangeStart, { type: 3, deviceId: firstRid, settings });
    writer.put(RangeEnd, { type: 4, deviceId: lastRid, settings: 0 });
  } else if (firstId === firstRid) {
    writer.put(Select, { type: 2, deviceId: firstRid, settings });
  } else {
    writer.put(AliasSelect, { type: 66, deviceId: firstRid, settings, sourceId: firstId });
  }
}

/** An ACPI device: `\_SB.PATH` as its UID, or `HID:number`. */
function putName(writer: TableWriter, path: string | null, deviceId: number): void {
  const match = /^([A-Z0-9]{1,8}):(\d{1,3})$/.exec(path ?? "");
  const uid =
    match === null ? padded(path ?? "", (path ?? "").length, "") : Uint8Array.of(Number(match[2]));
  if (uid.length > 255)
    throw cannotDescribe("ivrs", `the path ${path} is too long`, "255 bytes at most");
  writer.put(HidDevice, {
    type: 240,
    deviceId,
    settings: 0,
    hid: padded(match?.[1] ?? "", 8, "\0"),
    cid: new Uint8Array(8),
    uidFormat: match === null ? 2 : 1,
    uidLength: match === null ? uid.length : 8,
  });
  writer.putBytes(match === null ? uid : Uint8Array.of(uid[0]!, 0, 0, 0, 0, 0, 0, 0));
}

function putRegion(writer: TableWriter, region: FirmwareRegion): void {
  const { start, last, functions, treatment, canRead, canWrite } = region;
  const isExclusion = treatment === "excluded";
  const access = (canRead ? 2 : 0) | (canWrite ? 4 : 0);
  const flags = isExclusion ? 8 : 1 | access;
  const common = { flags, length: IvmdAll.layout.bytes, start, bytes: last - start + 1n };
  if (functions === null) {
    writer.put(IvmdAll, { ...common, type: 0x20, deviceId: 0, auxiliary: 0, segment: 0 });
    return;
  }
  for (const { firstRid, lastRid, segment } of functions) {
    const isOne = firstRid === lastRid;
    const values = { ...common, deviceId: firstRid, auxiliary: isOne ? 0 : lastRid, segment };
    if (isOne) writer.put(IvmdOne, { ...values, type: 0x21 });
    else writer.put(IvmdRange, { ...values, type: 0x22 });
  }
}
