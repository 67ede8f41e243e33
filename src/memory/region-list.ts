/**
 * The regions of guest memory by address: sorted blocks of a few hundred, so that a million of them
 * can come and go one by one. Speed: see bench/vfio-user.bench.ts.
 */
import type { GuestRegion } from "./guest-region.ts";

/** A block that grows beyond this becomes two. */
const BLOCK_REGIONS_MAX = 512;

/** Regions that do not overlap. */
export class RegionList {
  /** None is empty. */
  readonly #blocks: GuestRegion[][] = [];

  /** All regions, by address. */
  all(): GuestRegion[] {
    return this.#blocks.flat();
  }

  /** The region that holds a byte, or null. */
  find(address: number): GuestRegion | null {
    const block = this.#blocks[this.#blockOf(address)];
    if (block === undefined) return null;
    const region = block[positionOf(block, address)];
    return region !== undefined && address < region.end ? region : null;
  }

  /** Adds a region. @returns false when it would overlap another */
  insert(region: GuestRegion): boolean {
    const blockIndex = Math.max(this.#blockOf(region.start), 0);
    const block = this.#blocks[blockIndex];
    if (block === undefined) {
      this.#blocks.push([region]);
      return true;
    }
    const before = positionOf(block, region.start);
    const below = block[before];
    if (below !== undefined && below.end > region.start) return false;
    const above = block[before + 1] ?? this.#blocks[blockIndex + 1]?.[0];
    if (above !== undefined && above.start < region.end) return false;
    block.splice(before + 1, 0, region);
    if (block.length > BLOCK_REGIONS_MAX) {
      // Regions mostly come in ascending order: what they leave behind should be nearly full.
      const isLast = blockIndex === this.#blocks.length - 1;
      const cut = isLast ? BLOCK_REGIONS_MAX - 8 : BLOCK_REGIONS_MAX >> 1;
      this.#blocks.splice(blockIndex + 1, 0, block.splice(cut));
    }
    return true;
  }

  /** Takes the region away that starts at an address. @returns it, or null when there is none */
  remove(start: number): GuestRegion | null {
    const blockIndex = this.#blockOf(start);
    const block = this.#blocks[blockIndex];
    if (block === undefined) return null;
    const position = positionOf(block, start);
    const region = block[position];
    if (region === undefined || region.start !== start) return null;
    block.splice(position, 1);
    if (block.length === 0) this.#blocks.splice(blockIndex, 1);
    return region;
  }

  /** Index of the last block that starts at or below an address, −1 when none does. */
  #blockOf(address: number): number {
    const blocks = this.#blocks;
    let low = 0;
    let high = blocks.length - 1;
    while (low <= high) {
      const middle = (low + high) >> 1;
      if (blocks[middle]![0]!.start <= address) low = middle + 1;
      else high = middle - 1;
    }
    return high;
  }
}

/** Position of the last region that starts at or below an address, −1 when none does. */
function positionOf(block: readonly GuestRegion[], address: number): number {
  let low = 0;
  let high = block.length - 1;
  while (low <= high) {
    const middle = (low + high) >> 1;
    if (block[middle]!.start <= address) low = middle + 1;
    else high = middle - 1;
  }
  return high;
}
