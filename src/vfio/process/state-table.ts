/**
 * A small number for each page of a space, of which only differences cost memory: what is pinned,
 * what is present.
 *
 * A state is an integer below 2^31 − 1, 0 at first. Three levels hold them: a group of 2^18 pages
 * (1 GiB) or a block of 512 (2 MiB) whose pages agree is one number, and what disagrees takes a
 * byte a page; states above a byte lie in a map. So a range that is alike costs per 1 GiB.
 *
 * On the path of every pin (bench/pinning.bench.ts). Frames are pinned in no order, so that what
 * counts is how much memory is jumped about in: a byte a page, and few objects.
 */

/** Pages in a group. */
const GROUP_PAGES = 2 ** 18;
const GROUP_MASK = GROUP_PAGES - 1;
/** Pages in a block. */
const BLOCK_PAGES = 512;
const BLOCK_SHIFT = 9;
/** Groups that an array holds; those above lie in a map. */
const NEAR_GROUPS = 2 ** 14;
/** Marks a block whose pages differ. */
const MIXED = 0x7fff_ffff;
/** Marks a byte whose block's pages agree. */
const UNIFORM = 0xfe;
/** Marks a byte whose state lies in the map. */
const LARGE = 0xff;
/** States below this stand in bytes as they are. */
export const BYTE_STATES = UNIFORM;

class Group {
  /** State of all pages while there are no blocks. */
  whole = 0;
  /** State of each block, or MIXED. */
  blocks: Int32Array | null = null;
  /** State of each page, or what marks where to look. */
  pages: Uint8Array | null = null;
}

/**
 * Changes one piece whose pages agree.
 *
 * @returns the new state of all its pages
 */
export type StateChange = (state: number, page: number, pages: number) => number;

/** The table. */
export class StateTable {
  readonly #near: (Group | undefined)[] = [];
  /** The bytes of near groups that have some. */
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #far = new Map<number, Group>();
  readonly #large = new Map<number, number>();

  /** State of a page. */
  get(page: number): number {
    const group = this.#find(Math.floor(page / GROUP_PAGES));
    if (group === undefined) return 0;
    if (group.blocks === null) return group.whole;
    const offset = page & GROUP_MASK;
    const state = group.blocks[offset >>> BLOCK_SHIFT]!;
    if (state !== MIXED) return state;
    const byte = group.pages![offset]!;
    return byte === LARGE ? this.#large.get(page)! : byte;
  }

  /** Changes the state of one page. */
  set(page: number, state: number): void {
    const index = Math.floor(page / GROUP_PAGES);
    const group = this.#groupAt(index);
    const block = (page & GROUP_MASK) >>> BLOCK_SHIFT;
    if (group.blocks === null || group.blocks[block] !== MIXED) this.#split(group, index, block);
    this.#store(group.pages!, page, state);
  }

  /**
   * States around a page as bytes, where there are any: what is below {@link BYTE_STATES} at
   * {@link offsetIn} is the page's state and may be changed to another such; what is not is for
   * {@link get} and {@link set}.
   */
  bytesAround(page: number): Uint8Array | undefined {
    return this.#bytes[Math.floor(page / GROUP_PAGES)];
  }

  /**
   * Reads states ahead of time, so that single accesses that follow find them in the cache: here
   * the processor fetches many at once.
   *
   * @param entries - each a page + 1, or nothing of use
   * @returns their sum, to be kept so that the reading is not optimised away
   */
  warm(entries: Float64Array, from: number, end: number): number {
    const groups = this.#bytes;
    let sum = 0;
    for (let slot = from; slot < end; slot += 1) {
      const page = entries[slot]! - 1;
      const index = Math.floor(page / GROUP_PAGES);
      if (index < 0 || index >= groups.length) continue;
      const bytes = groups[index];
      if (bytes !== undefined) sum += bytes[page & GROUP_MASK]!;
    }
    return sum;
  }

  /** Calls a function for each piece of a range whose pages agree, and stores what it returns. */
  update(first: number, pages: number, change: StateChange): void {
    const end = first + pages;
    let page = first;
    while (page < end) {
      const index = Math.floor(page / GROUP_PAGES);
      const start = index * GROUP_PAGES;
      const pieceEnd = Math.min(end, start + GROUP_PAGES);
      const group = this.#groupAt(index);
      if (pieceEnd - page === GROUP_PAGES && group.blocks === null)
        group.whole = change(group.whole, page, GROUP_PAGES);
      else this.#updateGroup(group, index, page, pieceEnd, change);
      page = pieceEnd;
    }
  }

  /** Calls a function for each piece of a range whose pages agree, up to 1 GiB at a time. */
  visit(
    first: number,
    pages: number,
    visitor: (state: number, page: number, pages: number) => void,
  ): void {
    const end = first + pages;
    let page = first;
    while (page < end) {
      const group = this.#find(Math.floor(page / GROUP_PAGES));
      const offset = page & GROUP_MASK;
      let count = 1;
      if (group === undefined || group.blocks === null) count = GROUP_PAGES - offset;
      else if (group.blocks[offset >>> BLOCK_SHIFT] !== MIXED)
        count = BLOCK_PAGES - (offset & (BLOCK_PAGES - 1));
      count = Math.min(count, end - page);
      visitor(this.get(page), page, count);
      page += count;
    }
  }

  #find(index: number): Group | undefined {
    return index < NEAR_GROUPS ? this.#near[index] : this.#far.get(index);
  }

  #groupAt(index: number): Group {
    const found = this.#find(index);
    if (found !== undefined) return found;
    const group = new Group();
    if (index < NEAR_GROUPS) {
      // Filled up in order, for an array with holes far apart turns into a dictionary.
      while (this.#near.length <= index) {
        this.#near.push(undefined);
        this.#bytes.push(undefined);
      }
      this.#near[index] = group;
    } else {
      this.#far.set(index, group);
    }
    return group;
  }

  #updateGroup(group: Group, index: number, from: number, end: number, change: StateChange): void {
    const start = index * GROUP_PAGES;
    let page = from;
    while (page < end) {
      const block = (page - start) >>> BLOCK_SHIFT;
      const blockEnd = Math.min(end, start + (block + 1) * BLOCK_PAGES);
      const blocks = this.#blocksOf(group);
      const state = blocks[block]!;
      if (blockEnd - page === BLOCK_PAGES && state !== MIXED) {
        blocks[block] = change(state, page, BLOCK_PAGES);
      } else {
        if (state !== MIXED) this.#split(group, index, block);
        for (let at = page; at < blockEnd; at += 1)
          this.#store(group.pages!, at, change(this.get(at), at, 1));
      }
      page = blockEnd;
    }
  }

  #blocksOf(group: Group): Int32Array {
    group.blocks ??= new Int32Array(GROUP_PAGES / BLOCK_PAGES).fill(group.whole);
    return group.blocks;
  }

  #split(group: Group, index: number, block: number): void {
    const blocks = this.#blocksOf(group);
    if (group.pages === null) {
      group.pages = new Uint8Array(GROUP_PAGES).fill(UNIFORM);
      if (index < NEAR_GROUPS) this.#bytes[index] = group.pages;
    }
    const state = blocks[block]!;
    blocks[block] = MIXED;
    const first = block * BLOCK_PAGES;
    const isLarge = state >= BYTE_STATES;
    group.pages.fill(isLarge ? LARGE : state, first, first + BLOCK_PAGES);
    if (!isLarge) return;
    for (let offset = first; offset < first + BLOCK_PAGES; offset += 1)
      this.#large.set(index * GROUP_PAGES + offset, state);
  }

  #store(pages: Uint8Array, page: number, state: number): void {
    const offset = page & GROUP_MASK;
    const isLarge = state >= BYTE_STATES;
    if (isLarge) this.#large.set(page, state);
    else if (pages[offset] === LARGE) this.#large.delete(page);
    pages[offset] = isLarge ? LARGE : state;
  }
}

/** Where a page's state lies in {@link StateTable.bytesAround}. */
export function offsetIn(page: number): number {
  return page & GROUP_MASK;
}
