/**
 * `iommu-map` of a host bridge: requester ids to IOMMUs and the ids that they use, both ways.
 *
 * A requester id is masked first; the first entry that holds it counts. Source: Devicetree binding
 * pci-iommu; Linux 7.2 drivers/of/base.c: of_map_id, drivers/iommu/of_iommu.c.
 */
import type { RidRange } from "../../topology/machine.ts";
import { hex } from "../../units.ts";
import { laterWins, type Span } from "../rid-spans.ts";
import type { Findings } from "../table-finding.ts";
import { cellsOf, type DtProperty } from "./tree.ts";

const RIDS = 0x1_0000;
const SOURCE = "drivers/of/base.c: of_map_id";
const UNTRANSLATED = "Linux logs it and lets these functions run untranslated";

/** One entry. The length is a count, not the last one. */
export interface MapEntry {
  readonly firstRid: number;
  readonly phandle: number;
  readonly firstId: number;
  readonly count: number;
}

/** Reads the entries up to the first that makes Linux give up. */
export function readEntries(map: DtProperty, mask: number, findings: Findings): MapEntry[] {
  const words = cellsOf(map.value);
  if (map.value.length === 0 || map.value.length % 16 !== 0) {
    findings.add({
      code: "devicetree/iommu-map-length",
      severity: "error",
      at: map.at,
      message: `An iommu-map has entries of 16 bytes, this one has ${map.value.length} bytes`,
      effect: `${UNTRANSLATED}: \`Bad iommu-map length: ${map.value.length}\``,
      source: SOURCE,
    });
    return [];
  }
  const entries: MapEntry[] = [];
  for (let index = 0; index < words.length; index += 4) {
    const [firstRid, phandle, firstId, count] = words.slice(index, index + 4) as [
      number,
      number,
      number,
      number,
    ];
    // JavaScript's bit operations are signed; `>>> 0` makes 32 bits of it again.
    if ((firstRid & ~mask) >>> 0 !== 0) {
      findings.add({
        code: "devicetree/iommu-map-mask",
        severity: "error",
        at: map.at + 12 + 4 * index,
        message: `iommu-map-mask (${hex(mask)}) ignores bits of the id base (${hex(firstRid)})`,
        effect: `${UNTRANSLATED}: \`Invalid iommu-map translation\`; entries behind it are lost`,
        source: SOURCE,
      });
      return entries;
    }
    entries.push({ firstRid, phandle, firstId, count });
  }
  return entries;
}

/** Where the requester ids of a range of buses go. */
export interface MappedRange {
  readonly phandle: number;
  readonly range: RidRange;
}

/** Works out which ids `firstRid … lastRid` have; ids that nothing maps are left out. */
export function mappedRanges(
  entries: readonly MapEntry[],
  mask: number,
  segment: number,
  firstRid: number,
  lastRid: number,
): MappedRange[] {
  // The first entry wins, and spans let the later one win.
  const spans = entries
    .filter(({ count, firstRid: first }) => count > 0 && first < RIDS)
    .map((entry): Span<MapEntry> => {
      const last = Math.min(entry.firstRid + entry.count, RIDS) - 1;
      return { first: entry.firstRid, last, value: entry };
    });
  const cut = laterWins(spans.reverse());
  const ridMask = mask & 0xffff;
  return ridMask === 0xffff
    ? throughWindow(cut, segment, firstRid, lastRid)
    : throughMask(cut, ridMask, segment, firstRid, lastRid);
}

function throughWindow(
  cut: readonly Span<MapEntry>[],
  segment: number,
  firstRid: number,
  lastRid: number,
): MappedRange[] {
  const found: MappedRange[] = [];
  for (const span of cut) {
    const first = Math.max(span.first, firstRid);
    const last = Math.min(span.last, lastRid);
    if (first > last) continue;
    const firstId = idOf(span.value, first);
    found.push(mapped(span.value.phandle, segment, first, last, firstId));
  }
  return found;
}

/** Id by id: a mask can send any two to one place. */
function throughMask(
  cut: readonly Span<MapEntry>[],
  mask: number,
  segment: number,
  firstRid: number,
  lastRid: number,
): MappedRange[] {
  const owner = new Int32Array(RIDS).fill(-1);
  for (const [index, { first, last }] of cut.entries()) owner.fill(index, first, last + 1);
  const found: MappedRange[] = [];
  let open = -1;
  let start = 0;
  const close = (end: number) => {
    if (open < 0) return;
    const { value } = cut[open]!;
    found.push(mapped(value.phandle, segment, start, end, idOf(value, start & mask)));
  };
  for (let rid = firstRid; rid <= lastRid; rid += 1) {
    const at = owner[rid & mask]!;
    const isNext = at === open && rid > firstRid && (rid & mask) === ((rid - 1) & mask) + 1;
    if (isNext) continue;
    if (rid > firstRid) close(rid - 1);
    open = at;
    start = rid;
  }
  close(lastRid);
  return found;
}

function idOf({ firstRid, firstId }: MapEntry, rid: number): number {
  return (firstId + (rid - firstRid)) % 2 ** 32;
}

function mapped(
  phandle: number,
  segment: number,
  firstRid: number,
  lastRid: number,
  firstId: number,
): MappedRange {
  return { phandle, range: { segment, firstRid, lastRid, firstId, includesBelow: false } };
}
