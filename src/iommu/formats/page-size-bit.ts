/**
 * Entry kinds of the formats where bit 7, "page size", tells a leaf from a table above level 0.
 *
 * Source: Intel VT-d Architecture Specification, 9.7 and 9.8; Intel SDM volume 3, 4.5.
 */
import { EntryKind } from "./format.ts";

/**
 * Kinds for type fields of one bit.
 *
 * @param pageShifts - sizes that the unit supports; bit 7 at another level is reserved
 */
export function pageSizeBitKinds(levels: number, pageShifts: readonly number[]): number[][] {
  return Array.from({ length: levels }, (_, level) => {
    if (level === 0) return [EntryKind.LEAF, EntryKind.LEAF];
    const isLeafLevel = pageShifts.includes(12 + 9 * level);
    return [EntryKind.TABLE, isLeafLevel ? EntryKind.LEAF : EntryKind.RESERVED];
  });
}
