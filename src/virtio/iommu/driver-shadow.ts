/**
 * A domain's mappings as the driver remembers them, to unmap whole mappings and to replay them.
 *
 * Source: drivers/iommu/virtio-iommu.c, viommu_add_mapping, viommu_del_mappings; Linux keeps an
 * interval tree and does not check for overlaps. Here the mappings that overlap an earlier one,
 * which only a misbehaving caller makes, are kept apart, so that the rest stays fast.
 */
import { Errno } from "../../errno.ts";
import { NONE, RANGES_LIMIT, RangeInsert, RangeMap } from "../../iommu/range-map.ts";
import { PFN_LAST } from "../../units.ts";

const LAST_OFFSET = 0xfff;

interface Overlapping {
  readonly startPfn: number;
  readonly lastPfn: number;
  readonly physPfn: number;
  readonly flags: number;
}

/** Hears of a mapping; an errno stops the round. */
export type MappingVisitor = (
  startPfn: number,
  lastPfn: number,
  physPfn: number,
  flags: number,
) => Errno;

/** The mappings of one domain, by frames. */
export class MappingShadow {
  readonly #map = new RangeMap({ rangesMax: RANGES_LIMIT });
  readonly #overlapping: Overlapping[] = [];

  /** Mappings held. */
  get count(): number {
    return this.#map.count + this.#overlapping.length;
  }

  /** Adds a mapping. @returns false when no more can be held */
  insert(startPfn: number, lastPfn: number, physPfn: number, flags: number): boolean {
    const inserted = this.#map.insert(startPfn, 0, lastPfn, LAST_OFFSET, physPfn, 0, flags);
    if (inserted === RangeInsert.OVERLAP) {
      if (this.#overlapping.length >= RANGES_LIMIT) return false;
      this.#overlapping.push({ startPfn, lastPfn, physPfn, flags });
    }
    return inserted !== RangeInsert.FULL;
  }

  /**
   * Removes the mappings that touch a range, from its start on, until one starts before the range:
   * mappings are never split. One that sticks out at the end goes as a whole.
   *
   * @returns frames removed
   */
  remove(startPfn: number, lastPfn: number): number {
    if (this.#overlapping.length > 0) return this.#removeOverlapping(startPfn, lastPfn);
    const map = this.#map;
    let removed = 0;
    for (;;) {
      const position = map.firstFrom(startPfn, 0);
      if (position === NONE) return removed;
      const first = map.startPfn(position);
      if (first > lastPfn || first < startPfn) return removed;
      removed += map.lastPfn(position) - first + 1;
      map.removeAt(position);
    }
  }

  /** The frame a frame is mapped to, or −1; of overlapping mappings the lowest counts. */
  physOf(pfn: number): number {
    const position = this.#map.find(pfn, 0);
    let startPfn = position === NONE ? Number.POSITIVE_INFINITY : this.#map.startPfn(position);
    let physPfn = position === NONE ? -1 : this.#map.valuePfn(position) + pfn - startPfn;
    for (const mapping of this.#overlapping) {
      if (pfn < mapping.startPfn || pfn > mapping.lastPfn || mapping.startPfn >= startPfn) continue;
      startPfn = mapping.startPfn;
      physPfn = mapping.physPfn + pfn - startPfn;
    }
    return physPfn;
  }

  /**
   * Shows every mapping in ascending order, until the visitor gives an errno.
   *
   * @returns what the visitor gave last, 0 when there was no mapping
   */
  visit(visitor: MappingVisitor): Errno {
    if (this.#overlapping.length > 0) {
      for (const { startPfn, lastPfn, physPfn, flags } of this.#touching(0, PFN_LAST)) {
        const outcome = visitor(startPfn, lastPfn, physPfn, flags);
        if (outcome !== Errno.OK) return outcome;
      }
      return Errno.OK;
    }
    const map = this.#map;
    for (let at = map.first(); at !== NONE; at = map.next(at)) {
      const outcome = visitor(map.startPfn(at), map.lastPfn(at), map.valuePfn(at), map.flags(at));
      if (outcome !== Errno.OK) return outcome;
    }
    return Errno.OK;
  }

  /** Forgets every mapping. */
  clear(): void {
    this.#map.clear();
    this.#overlapping.length = 0;
  }

  /** Every mapping that touches a range, ascending. */
  #touching(startPfn: number, lastPfn: number): Overlapping[] {
    const map = this.#map;
    const found: Overlapping[] = [];
    for (let at = map.firstFrom(startPfn, 0); at !== NONE; at = map.next(at)) {
      const first = map.startPfn(at);
      if (first > lastPfn) break;
      const physPfn = map.valuePfn(at);
      found.push({ startPfn: first, lastPfn: map.lastPfn(at), physPfn, flags: map.flags(at) });
    }
    for (const mapping of this.#overlapping) {
      if (mapping.lastPfn >= startPfn && mapping.startPfn <= lastPfn) found.push(mapping);
    }
    return found.sort((a, b) => a.startPfn - b.startPfn);
  }

  #removeOverlapping(startPfn: number, lastPfn: number): number {
    let removed = 0;
    for (const mapping of this.#touching(startPfn, lastPfn)) {
      if (mapping.startPfn < startPfn) break;
      removed += mapping.lastPfn - mapping.startPfn + 1;
      const index = this.#overlapping.indexOf(mapping);
      if (index >= 0) this.#overlapping.splice(index, 1);
      else this.#map.removeAt(this.#map.find(mapping.startPfn, 0));
    }
    return removed;
  }
}
