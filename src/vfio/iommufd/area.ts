/**
 * Areas: what an IOAS has mapped, ordered by IOVA, each showing a part of some pages.
 *
 * Source: drivers/iommu/iommufd/io_pagetable.h, struct iopt_area.
 */
import { assert } from "../../errors.ts";
import type { IommuDomain } from "../../iommu/domain.ts";
import { NONE, RANGES_LIMIT, RangeInsert, RangeMap } from "../../iommu/range-map.ts";
import { addressOf, offsetOf, pfnOf } from "../../units.ts";
import { type ByteRange, isBelow } from "./byte-range.ts";
import type { IoPages } from "./pages.ts";

/** An area. */
export interface Area extends ByteRange {
  readonly pages: IoPages;
  /** Page of the pages that its first byte lies in. */
  readonly firstIndex: number;
  /** Page that its last byte lies in. */
  readonly lastIndex: number;
  /** Offset of its first byte in that page. */
  readonly pageOffset: number;
  /** Bits of `Prot`. */
  readonly prot: number;
  /** The page table that is filled first and emptied last; null while there is none. */
  storage: IommuDomain | null;
  /** Pins that kernel users have in it. */
  accesses: number;
  /** Whether it is going away, so that no new pin may be made. */
  preventsAccess: boolean;
  /** Ends its wait for a revocation, if it waits for one. */
  stopsRevocation: (() => void) | null;
}

/** Offset in the pages of an IOVA in an area, in bytes. */
export function pagesByteOf(area: Area, iova: bigint): bigint {
  return (
    iova - addressOf(area.startPfn, area.startOffset) + addressOf(area.firstIndex, area.pageOffset)
  );
}

/** The two areas that one becomes when it is cut behind an address inside it. */
export function splitArea(area: Area, iova: bigint): [Area, Area] {
  const second = iova + 1n;
  const cutByte = pagesByteOf(area, second);
  const isInsidePage = offsetOf(cutByte) !== 0;
  const first: Area = {
    ...area,
    lastPfn: pfnOf(iova),
    lastOffset: offsetOf(iova),
    lastIndex: pfnOf(cutByte) - (isInsidePage ? 0 : 1),
  };
  const rest: Area = {
    ...area,
    startPfn: pfnOf(second),
    startOffset: offsetOf(second),
    firstIndex: pfnOf(cutByte),
    pageOffset: offsetOf(cutByte),
  };
  return [first, rest];
}

/** The areas of an IOAS. */
export class AreaMap {
  readonly #ranges = new RangeMap({ rangesMax: RANGES_LIMIT });
  readonly #slots: (Area | null)[] = [];
  readonly #free: number[] = [];

  get count(): number {
    return this.#ranges.count;
  }

  /** Adds an area. Its range is free. */
  insert(area: Area): void {
    const slot = this.#free.pop() ?? this.#slots.length;
    const outcome = this.#ranges.insert(
      area.startPfn,
      area.startOffset,
      area.lastPfn,
      area.lastOffset,
      slot,
      0,
      0,
    );
    assert(outcome === RangeInsert.OK, "an area is put where nothing is");
    this.#slots[slot] = area;
  }

  remove(area: Area): void {
    const at = this.#ranges.find(area.startPfn, area.startOffset);
    assert(at !== NONE, "an area removed is there");
    const slot = this.#ranges.valuePfn(at);
    assert(this.#slots[slot] === area, "an area removed is there");
    this.#ranges.removeAt(at);
    this.#slots[slot] = null;
    this.#free.push(slot);
  }

  /** The area that holds an address, or null. */
  find(pfn: number, offset: number): Area | null {
    return this.#at(this.#ranges.find(pfn, offset));
  }

  /** The lowest area that has a byte in a range, or null. */
  firstIn(range: ByteRange): Area | null {
    const area = this.firstFrom(range.startPfn, range.startOffset);
    if (area === null) return null;
    const starts = isBelow(area.startPfn, area.startOffset, range.lastPfn, range.lastOffset);
    return starts ? area : null;
  }

  /** The lowest area that ends at or above an address, or null. */
  firstFrom(pfn: number, offset: number): Area | null {
    return this.#at(this.#ranges.firstFrom(pfn, offset));
  }

  /** Every area in ascending order; the map must not change meanwhile. */
  *[Symbol.iterator](): Generator<Area> {
    for (let at = this.#ranges.first(); at !== NONE; at = this.#ranges.next(at)) {
      yield this.#at(at)!;
    }
  }

  /** Visits the areas from an address on; ends when the visitor gives true. */
  someFrom(pfn: number, offset: number, visit: (area: Area) => boolean): boolean {
    let at = this.#ranges.firstFrom(pfn, offset);
    for (; at !== NONE; at = this.#ranges.next(at)) if (visit(this.#at(at)!)) return true;
    return false;
  }

  #at(position: number): Area | null {
    return position === NONE ? null : this.#slots[this.#ranges.valuePfn(position)]!;
  }
}
