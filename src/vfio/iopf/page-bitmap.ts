/**
 * A set of pages of one mapping: one bit a page where pages are, next to nothing where none are.
 *
 * A tree of 32-way nodes over words of 32 bits. Every node knows which of its children are not
 * empty, so a search and a removal cost what they find, however long the range is. It stands for
 * the flat iopf_mapped_bitmap of the proposal of 2021, which takes 32 MiB for 1 TiB at once.
 * Budget: 1 µs to set, find and clear a page with none near it (bench/iopf.bench.ts).
 */
import { assert } from "../../errors.ts";
import { PFN_LAST, powerOfTwo, trailingZeros } from "../../units.ts";

const FANOUT = 32;
// Copies of these are made faster than arrays are filled.
const NO_WORDS = new Array<number>(FANOUT).fill(0);
const NO_CHILDREN: readonly (Inner | Leaf | null)[] = new Array<null>(FANOUT).fill(null);

/** 1024 pages: 32 words, and a bit for each that is not 0. */
class Leaf {
  bits = 0;
  readonly words: number[] = NO_WORDS.slice();
}

/** 32 nodes of the level below, and a bit for each that is there. */
class Inner {
  bits = 0;
  readonly children: (Inner | Leaf | null)[] = NO_CHILDREN.slice();
}

const LEAF_SHIFT = 10;
const LEAF_PAGES = 2 ** LEAF_SHIFT;

/** A set of pages 0 … `pages` − 1. */
export class PageBitmap {
  readonly pages: number;
  /** Levels of inner nodes above the leaves. */
  readonly #height: number;
  #root: Inner | Leaf | null = null;
  #count = 0;

  /** @param pages - 1 … 2^52 */
  constructor(pages: number) {
    assert(pages >= 1 && pages - 1 <= PFN_LAST, "a set is over 1 … 2^52 pages");
    this.pages = pages;
    let height = 0;
    while (powerOfTwo(LEAF_SHIFT + 5 * height) < pages) height += 1;
    this.#height = height;
  }

  /** Pages in the set. */
  get count(): number {
    return this.#count;
  }

  has(page: number): boolean {
    const leaf = this.#leafOf(page);
    if (leaf === null) return false;
    return ((leaf.words[(page % LEAF_PAGES) >>> 5]! >>> (page & 31)) & 1) !== 0;
  }

  /** Adds pages, none of which is in the set. */
  addRun(page: number, pages: number): void {
    assert(page >= 0 && pages >= 1 && page + pages <= this.pages, "pages added are of the mapping");
    const end = page + pages;
    let at = page;
    while (at < end) {
      const leaf = this.#ensureLeaf(at);
      const leafEnd = Math.min(end, at - (at % LEAF_PAGES) + LEAF_PAGES);
      while (at < leafEnd) {
        const index = (at % LEAF_PAGES) >>> 5;
        const width = Math.min(32 - (at & 31), leafEnd - at);
        const mask = maskOf(at & 31, width);
        assert((leaf.words[index]! & mask) === 0, "a page added is not in the set");
        leaf.words[index] = leaf.words[index]! | mask;
        leaf.bits |= 1 << index;
        at += width;
      }
    }
    this.#count += pages;
  }

  /** The first page of the set from `page` on, or −1. */
  next(page: number): number {
    if (this.#root === null || page >= this.pages) return -1;
    return nextIn(this.#root, this.#height, page);
  }

  /** The first page after `page`, which is in the set, that is not; at most `end`. */
  runEnd(page: number, end: number): number {
    let at = page;
    while (at < end) {
      const leaf = this.#leafOf(at);
      if (leaf === null) return at;
      const base = at - (at % LEAF_PAGES);
      for (let index = (at - base) >>> 5; index < FANOUT; index += 1) {
        const gaps = ~leaf.words[index]! & (-1 << (at & 31));
        if (gaps !== 0) return Math.min(base + index * 32 + trailingZeros(gaps), end);
        at = base + (index + 1) * 32;
        if (at >= end) return end;
      }
    }
    return end;
  }

  /** Removes the pages from `page` on, those that are in the set. */
  removeRun(page: number, pages: number): void {
    assert(
      page >= 0 && pages >= 1 && page + pages <= this.pages,
      "pages removed are of the mapping",
    );
    if (this.#root === null) return;
    if (this.#removeIn(this.#root, this.#height, page, page + pages - 1)) this.#root = null;
  }

  #leafOf(page: number): Leaf | null {
    let node: Inner | Leaf | null = this.#root;
    for (let level = this.#height; level > 0 && node !== null; level -= 1) {
      node = (node as Inner).children[digitOf(page, level)]!;
    }
    return node as Leaf | null;
  }

  #ensureLeaf(page: number): Leaf {
    this.#root ??= this.#height === 0 ? new Leaf() : new Inner();
    let node: Inner | Leaf = this.#root;
    for (let level = this.#height; level > 0; level -= 1) {
      const inner = node as Inner;
      const digit = digitOf(page, level);
      let child: Inner | Leaf | null = inner.children[digit]!;
      if (child === null) {
        child = level === 1 ? new Leaf() : new Inner();
        inner.children[digit] = child;
        inner.bits |= 1 << digit;
      }
      node = child;
    }
    return node as Leaf;
  }

  /** Removes pages first … last, as seen from the node. @returns whether it is empty then */
  #removeIn(node: Inner | Leaf, level: number, first: number, last: number): boolean {
    if (node instanceof Leaf) {
      this.#removeInLeaf(node, first, last);
      return node.bits === 0;
    }
    const span = powerOfTwo(LEAF_SHIFT + 5 * (level - 1));
    const firstChild = Math.floor(first / span);
    const lastChild = Math.min(Math.floor(last / span), FANOUT - 1);
    let left = node.bits & maskOf(firstChild, lastChild - firstChild + 1);
    while (left !== 0) {
      const digit = trailingZeros(left);
      left &= left - 1;
      const from = Math.max(first - digit * span, 0);
      const to = Math.min(last - digit * span, span - 1);
      if (!this.#removeIn(node.children[digit]!, level - 1, from, to)) continue;
      node.children[digit] = null;
      node.bits &= ~(1 << digit);
    }
    return node.bits === 0;
  }

  #removeInLeaf(leaf: Leaf, first: number, last: number): void {
    let left = leaf.bits & maskOf(first >>> 5, (last >>> 5) - (first >>> 5) + 1);
    while (left !== 0) {
      const index = trailingZeros(left);
      left &= left - 1;
      const from = Math.max(first - index * 32, 0);
      const to = Math.min(last - index * 32, 31);
      const word = leaf.words[index]!;
      const removed = word & maskOf(from, to - from + 1);
      this.#count -= bitCount(removed);
      leaf.words[index] = word & ~removed;
      if (leaf.words[index] === 0) leaf.bits &= ~(1 << index);
    }
  }
}

function digitOf(page: number, level: number): number {
  return Math.floor(page / powerOfTwo(LEAF_SHIFT + 5 * (level - 1))) & 31;
}

/** `width` (1 … 32) bits from bit `from` on. */
function maskOf(from: number, width: number): number {
  return width >= 32 ? -1 << from : ((1 << width) - 1) << from;
}

function bitCount(word: number): number {
  const pairs = word - ((word >>> 1) & 0x5555_5555);
  const fours = (pairs & 0x3333_3333) + ((pairs >>> 2) & 0x3333_3333);
  return Math.imul((fours + (fours >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}

/** The first page in a node from `from` on, as seen from the node, or −1. */
function nextIn(node: Inner | Leaf, level: number, from: number): number {
  if (node instanceof Leaf) {
    const index = from >>> 5;
    const here = node.words[index]! & (-1 << (from & 31));
    if (here !== 0) return index * 32 + trailingZeros(here);
    const later = index === 31 ? 0 : node.bits & (-1 << (index + 1));
    if (later === 0) return -1;
    const found = trailingZeros(later);
    return found * 32 + trailingZeros(node.words[found]!);
  }
  const span = powerOfTwo(LEAF_SHIFT + 5 * (level - 1));
  const digit = Math.floor(from / span);
  if (((node.bits >>> digit) & 1) !== 0) {
    const inside = nextIn(node.children[digit]!, level - 1, from - digit * span);
    if (inside >= 0) return digit * span + inside;
  }
  const later = digit === 31 ? 0 : node.bits & (-1 << (digit + 1));
  if (later === 0) return -1;
  const found = trailingZeros(later);
  return found * span + nextIn(node.children[found]!, level - 1, 0);
}
