/**
 * Mappings with pages that faults mapped, by where they lie in their process.
 *
 * Several mappings may show the same memory, so their ranges may overlap: each goes into the first
 * layer that has room for it. A notifier finds the mappings it concerns without looking at others.
 */
import { assert } from "../../errors.ts";
import { NONE, RANGES_LIMIT, RangeInsert, RangeMap } from "../../iommu/range-map.ts";

/** A stretch of a process's pages. */
export interface TouchedStretch {
  readonly vpn: number;
  readonly pages: number;
}

/** The index of one process's memory. */
export class TouchedIndex<T extends TouchedStretch> {
  readonly #layers: RangeMap[] = [];
  readonly #slots: (T | null)[] = [];
  readonly #freeSlots: number[] = [];
  readonly #allow: (bytes: number) => boolean;
  #count = 0;

  /** @param allow - asked before each growth of the memory, with its bytes */
  constructor(allow: (bytes: number) => boolean) {
    this.#allow = allow;
  }

  get count(): number {
    return this.#count;
  }

  /** @returns false when memory is short */
  insert(item: T): boolean {
    const { vpn, pages } = item;
    const slot = this.#freeSlots.at(-1) ?? this.#slots.length;
    for (let layer = 0; ; layer += 1) {
      let ranges = this.#layers[layer];
      if (ranges === undefined) {
        ranges = new RangeMap({ rangesMax: RANGES_LIMIT, allow: this.#allow });
        this.#layers.push(ranges);
      }
      const outcome = ranges.insert(vpn, 0, vpn + pages - 1, 0xfff, slot, 0, 0);
      if (outcome === RangeInsert.OVERLAP) continue;
      if (outcome === RangeInsert.FULL) return false;
      break;
    }
    if (slot === this.#slots.length) this.#slots.push(item);
    else this.#slots[this.#freeSlots.pop()!] = item;
    this.#count += 1;
    return true;
  }

  remove(item: T): void {
    for (const ranges of this.#layers) {
      const position = ranges.find(item.vpn, 0);
      if (position === NONE) continue;
      const slot = ranges.valuePfn(position);
      if (this.#slots[slot] !== item) continue;
      ranges.removeAt(position);
      this.#slots[slot] = null;
      this.#freeSlots.push(slot);
      this.#count -= 1;
      return;
    }
    assert(false, "what is removed is there");
  }

  /** Calls back for each one that shares a page with first … last. It may remove what it gets. */
  forEachIn(firstVpn: number, lastVpn: number, visit: (item: T) => void): void {
    for (const ranges of this.#layers) {
      let from = firstVpn;
      while (from <= lastVpn) {
        const position = ranges.firstFrom(from, 0);
        if (position === NONE || ranges.startPfn(position) > lastVpn) break;
        from = ranges.lastPfn(position) + 1;
        visit(this.#slots[ranges.valuePfn(position)]!);
      }
    }
  }
}
