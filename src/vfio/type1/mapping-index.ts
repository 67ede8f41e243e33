/**
 * The mappings of a container, ordered by address (dma_list).
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_find_dma, vfio_find_dma_first_node, vfio_link_dma.
 */
import { assert } from "../../errors.ts";
import { NONE, RANGES_LIMIT, RangeInsert, RangeMap } from "../../iommu/range-map.ts";
import type { DmaMapping } from "./mapping.ts";

/** Mappings by address; a range of the map holds the slot of its mapping. */
export class MappingIndex {
  readonly #ranges: RangeMap;
  readonly #slots: (DmaMapping | null)[] = [];
  readonly #freeSlots: number[] = [];

  /** @param allow - asked before each growth of the memory, with its bytes */
  constructor(allow: (bytes: number) => boolean) {
    this.#ranges = new RangeMap({ rangesMax: RANGES_LIMIT, allow });
  }

  /** Mappings held. */
  get count(): number {
    return this.#ranges.count;
  }

  /** Adds a mapping. Nothing of its range may be taken. @returns false when memory is short */
  insert(mapping: DmaMapping): boolean {
    const slot = this.#freeSlots.length > 0 ? this.#freeSlots.at(-1)! : this.#slots.length;
    const lastPfn = mapping.iovaPfn + mapping.pages - 1;
    const outcome = this.#ranges.insert(mapping.iovaPfn, 0, lastPfn, 0xfff, slot, 0, 0);
    assert(outcome !== RangeInsert.OVERLAP, "a mapping added overlaps none");
    if (outcome === RangeInsert.FULL) return false;
    if (slot === this.#slots.length) this.#slots.push(mapping);
    else {
      this.#freeSlots.pop();
      this.#slots[slot] = mapping;
    }
    return true;
  }

  /** Takes a mapping out. */
  remove(mapping: DmaMapping): void {
    const position = this.#ranges.find(mapping.iovaPfn, 0);
    assert(position !== NONE, "a mapping removed is there");
    const slot = this.#ranges.valuePfn(position);
    assert(this.#slots[slot] === mapping, "the index knows the mapping by its address");
    this.#ranges.removeAt(position);
    this.#slots[slot] = null;
    this.#freeSlots.push(slot);
  }

  /** The mapping that holds a frame, or null. */
  find(iovaPfn: number): DmaMapping | null {
    return this.#at(this.#ranges.find(iovaPfn, 0));
  }

  /** The first mapping that ends at or above a frame, or null. */
  firstFrom(iovaPfn: number): DmaMapping | null {
    return this.#at(this.#ranges.firstFrom(iovaPfn, 0));
  }

  /** The lowest mapping with a frame between two, both inclusive, or null. */
  firstIn(firstPfn: number, lastPfn: number): DmaMapping | null {
    const ranges = this.#ranges;
    const position = ranges.firstFrom(firstPfn, 0);
    // The ranges lie close together in memory, the mappings do not: most are never looked at.
    if (position === NONE || ranges.startPfn(position) > lastPfn) return null;
    return this.#at(position);
  }

  /** Whether a range begins or ends inside a mapping. */
  isCut(firstPfn: number, lastPfn: number): boolean {
    const ranges = this.#ranges;
    const first = ranges.find(firstPfn, 0);
    if (first !== NONE) {
      if (ranges.startPfn(first) !== firstPfn) return true;
      if (ranges.lastPfn(first) === lastPfn) return false;
    }
    const last = ranges.find(lastPfn, 0);
    return last !== NONE && ranges.lastPfn(last) !== lastPfn;
  }

  /** The highest mapping, or null. */
  last(): DmaMapping | null {
    return this.#at(this.#ranges.last());
  }

  /** Every mapping in ascending order; the index may change behind the one visited. */
  *[Symbol.iterator](): Generator<DmaMapping> {
    let mapping = this.firstFrom(0);
    while (mapping !== null) {
      const nextPfn = mapping.iovaPfn + mapping.pages;
      yield mapping;
      mapping = this.firstFrom(nextPfn);
    }
  }

  #at(position: number): DmaMapping | null {
    return position === NONE ? null : this.#slots[this.#ranges.valuePfn(position)]!;
  }
}
