/**
 * The two lines that a recording of VFIO type1 calls begins with, and any later GET_INFO: what the
 * recorded program had, and what the container told about itself.
 */
import {
  DEFAULT_REGIONS,
  type PageSort,
  type VfioCapability,
  type VfioInfo,
  type VfioOpen,
  type VfioRegion,
} from "./vfio-type1-row.ts";

/** Regions, pages of one, capabilities and ranges that are read; more makes a line unreadable. */
const REGIONS_MAX = 64;
const REGION_PAGES_MAX = 2 ** 20;
const SORTS_MAX = 2 ** 16;
const CAPABILITIES_MAX = 64;
const RANGES_MAX = 4096;
const U32_LAST = 0xffff_ffff;

type Fields = Readonly<Record<string, unknown>>;

/** The object of a line, or null. */
export function parseFields(text: string): Fields | null {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return null;
  }
  return fieldsOf(value);
}

function fieldsOf(value: unknown): Fields | null {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return null;
  return value as Fields;
}

/** A number from 0 up to 2^64 − 1, written as a number or as `0x…`; null for anything else. */
export function wideField(value: unknown): bigint | null {
  if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0) return BigInt(value);
  if (typeof value !== "string" || !/^0x[0-9a-f]{1,16}$/i.test(value)) return null;
  return BigInt(value);
}

function countField(value: unknown, limit = U32_LAST): number | null {
  const wide = wideField(value);
  return wide === null || wide > BigInt(limit) ? null : Number(wide);
}

/** Reads a first line; the name of the field that is wrong when it is not one. */
export function parseOpen(text: string, line: number): VfioOpen | string {
  const fields = parseFields(text);
  if (fields === null) return "not JSON";
  const type = countField(fields.type);
  const api = countField(fields.api);
  const groupFlags = countField(fields.group_flags);
  const memlock = fields.memlock;
  const isUnlimited = typeof memlock === "number" && memlock < 0;
  const memlockBytes = isUnlimited ? null : countField(memlock, Number.MAX_SAFE_INTEGER);
  if (type === null) return "type";
  if (api === null) return "api";
  if (groupFlags === null) return "group_flags";
  if (memlockBytes === null && !isUnlimited) return "memlock";
  const regions = fields.regions === undefined ? DEFAULT_REGIONS : regionsOf(fields.regions);
  if (regions === null) return "regions";
  const coherent = countField(fields.coherent);
  if (coherent === null && fields.coherent !== undefined) return "coherent";
  const isCoherent = coherent === null ? null : coherent > 0;
  return { line, type, memlockBytes, api, groupFlags, isCoherent, regions };
}

function regionsOf(value: unknown): VfioRegion[] | null {
  const entries = Object.entries(fieldsOf(value) ?? {});
  if (entries.length === 0 || entries.length > REGIONS_MAX) return null;
  const regions: VfioRegion[] = [];
  for (const [name, each] of entries) {
    const pages = countField(fieldsOf(each)?.pages, REGION_PAGES_MAX);
    const sort = fieldsOf(each)?.sort;
    if (pages === null || pages === 0 || typeof sort !== "string") return null;
    if (sort.length > SORTS_MAX || !/^[rwnx]+$/.test(sort)) return null;
    if (sort.length !== 1 && sort.length !== pages) return null;
    regions.push({ name, pages, sorts: [...sort] as PageSort[] });
  }
  return regions;
}

/** Reads what GET_INFO gave; the name of the field that is wrong when the line does not tell. */
export function parseInfo(text: string): VfioInfo | string {
  const fields = parseFields(text);
  if (fields === null) return "not JSON";
  const errno = fields.errno === undefined ? 0 : countField(fields.errno);
  if (errno === null) return "errno";
  const flags = errno === 0 ? countField(fields.flags) : 0;
  const pageSizes = errno === 0 ? wideField(fields.pgsizes) : 0n;
  if (flags === null) return "flags";
  if (pageSizes === null) return "pgsizes";
  const capabilities = capabilitiesOf(fields.caps ?? []);
  if (capabilities === null) return "caps";
  return {
    argsz: countField(fields.argsz),
    errno,
    argszAfter: countField(fields.argsz_after),
    flags,
    pageSizes,
    capOffset: countField(fields.cap_offset),
    capabilities,
  };
}

function capabilitiesOf(value: unknown): VfioCapability[] | null {
  if (!Array.isArray(value) || value.length > CAPABILITIES_MAX) return null;
  const capabilities = value.map((each) => capabilityOf(fieldsOf(each)));
  return capabilities.every((each) => each !== null) ? capabilities : null;
}

function capabilityOf(fields: Fields | null): VfioCapability | null {
  const id = countField(fields?.id);
  const version = countField(fields?.version);
  if (fields === null || id === null || version === null) return null;
  if (id === 2) {
    const pageSizes = wideField(fields.pgsize_bitmap);
    const bitmapBytesMax = wideField(fields.max_dirty);
    if (pageSizes === null || bitmapBytesMax === null) return null;
    return { kind: "migration", version, pageSizes, bitmapBytesMax };
  }
  if (id === 3) {
    const available = countField(fields.dma_avail);
    return available === null ? null : { kind: "dma-avail", version, available };
  }
  if (id === 1) {
    const ranges = rangesOf(fields.iova_ranges);
    return ranges === null ? null : { kind: "iova-ranges", version, ranges };
  }
  return { kind: "unknown", version, id };
}

/** Ranges, which a list gives in ascending order. */
function rangesOf(value: unknown): { start: bigint; last: bigint }[] | null {
  if (!Array.isArray(value) || value.length > RANGES_MAX) return null;
  const ranges: { start: bigint; last: bigint }[] = [];
  for (const each of value) {
    const start = Array.isArray(each) ? wideField(each[0]) : null;
    const last = Array.isArray(each) ? wideField(each[1]) : null;
    if (start === null || last === null || start > last) return null;
    const below = ranges.at(-1);
    if (below !== undefined && start <= below.last) return null;
    ranges.push({ start, last });
  }
  return ranges;
}
