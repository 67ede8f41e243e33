/**
 * A place in a tree: the entry of some level that spans a frame. Mapper and unmapper go to it
 * before they write.
 *
 * It finds its way as the walker's fast path does (table-walk.ts), over tables that the mapper
 * wrote, and goes straight to the leaf table it was in before. One cursor serves a tree.
 */
import { createChunk, type FrameChunk } from "../memory/page-pool.ts";
import { alignDown } from "../units.ts";
import { EntryKind, entryPfn, type PageTableFormat } from "./formats/format.ts";
import type { EntryPlace, TableTree } from "./table-tree.ts";

const { TABLE } = EntryKind;

/** An entry, by the words it lies in. */
export class TableCursor implements EntryPlace {
  /** Words of the chunk that the table lies in. */
  words: Uint32Array = new Uint32Array(0);
  /** Where the entry's low word is; its high word follows. */
  word = 0;
  /** Level of the table that the entry is part of. */
  level = 0;
  /** Index of the entry in the table. */
  index = 0;
  /** Node of the table. */
  node = 0;
  readonly #tree: TableTree;
  readonly #format: PageTableFormat;
  readonly #chunk: FrameChunk = createChunk();
  /** The table of level 0 that was found last: the frames it spans, its words, and its node. */
  #leafStart = 0;
  #leafEnd = -1;
  #leafWords: Uint32Array = new Uint32Array(0);
  #leafWord = 0;
  #leafNode = 0;
  /** The shape of the tree that it was found in. */
  #leafShape = -1;

  constructor(tree: TableTree) {
    this.#tree = tree;
    this.#format = tree.format;
  }

  /** Whether the entry is empty. */
  get isEmpty(): boolean {
    return (this.words[this.word]! | this.words[this.word + 1]!) === 0;
  }

  /** Goes to the entry of `targetLevel` above a frame, or to the entry further up where it ends. */
  descend(iovaPfn: number, targetLevel: number): void {
    if (targetLevel === 0 && this.#leafShape === this.#tree.shape) {
      if (iovaPfn >= this.#leafStart && iovaPfn < this.#leafEnd) {
        const index = (iovaPfn - this.#leafStart) >>> this.#format.leafOrder;
        this.words = this.#leafWords;
        this.word = this.#leafWord + (index << 1);
        this.level = 0;
        this.index = index;
        this.node = this.#leafNode;
        return;
      }
    }
    this.#walk(iovaPfn, targetLevel);
    if (this.level > 0) return;
    const frames = this.#format.tableFramesOf[0]!;
    this.#leafStart = alignDown(iovaPfn, frames);
    this.#leafEnd = this.#leafStart + frames;
    this.#leafWords = this.words;
    this.#leafWord = this.word - (this.index << 1);
    this.#leafNode = this.node;
    this.#leafShape = this.#tree.shape;
  }

  #walk(iovaPfn: number, targetLevel: number): void {
    const format = this.#format;
    const chunk = this.#chunk;
    const maskLow = format.plainMaskLow | 0;
    const maskHigh = format.plainMaskHigh | 0;
    const plainHigh = format.plainHigh | 0;
    const plainStep = format.plainStep | 0;
    const levelBits = format.levelBits | 0;
    const indexBelow = format.indexBelow | 0;
    const iovaLow = iovaPfn >>> 0;
    const iovaMiddle = (iovaPfn / 0x10_0000) >>> 0;
    let level = this.#tree.topLevel | 0;
    let plainLow = (format.plainLow + level * plainStep) | 0;
    let shift = (format.leafOrder + level * levelBits) | 0;
    let indexMask = level === format.topLevelMax ? format.indexTop | 0 : indexBelow;
    let pfn = this.#tree.rootPfn;
    let { words, firstPfn, frames } = chunk;
    let word = 0;
    let index = 0;
    for (;;) {
      let offset = pfn - firstPfn;
      if (offset < 0 || offset >= frames) {
        this.#tree.pool.chunkAt(pfn, chunk);
        words = chunk.words;
        firstPfn = chunk.firstPfn;
        frames = chunk.frames;
        offset = pfn - firstPfn;
      }
      index = (shift >= 20 ? iovaMiddle >>> (shift - 20) : iovaLow >>> shift) & indexMask;
      word = ((offset << 10) + (index << 1)) | 0;
      if (level === targetLevel) break;
      const low = words[word]! | 0;
      const high = words[word | 1]! | 0;
      if ((low & maskLow) === plainLow && (high & maskHigh) === plainHigh) {
        pfn = ((high & 0x7ff) << 20) | (low >>> 12);
      } else if ((low | high) !== 0 && format.kindOf(level, low) === TABLE) {
        pfn = entryPfn(format, low, high);
      } else {
        break;
      }
      plainLow = (plainLow - plainStep) | 0;
      indexMask = indexBelow;
      shift = (shift - levelBits) | 0;
      level = (level - 1) | 0;
    }
    this.words = words;
    this.word = word;
    this.level = level;
    this.index = index;
    this.node = chunk.node;
  }

  /** Goes to an entry by its table and index. */
  enter(tablePfn: number, level: number, index: number): void {
    const chunk = this.#chunk;
    if (tablePfn < chunk.firstPfn || tablePfn >= chunk.firstPfn + chunk.frames) {
      this.#tree.pool.chunkAt(tablePfn, chunk);
    }
    this.words = chunk.words;
    this.word = (((tablePfn - chunk.firstPfn) << 10) + (index << 1)) | 0;
    this.level = level;
    this.index = index;
    this.node = chunk.node;
  }
}
