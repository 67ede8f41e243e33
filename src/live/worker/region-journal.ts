/**
 * The regions of a client's memory in the journal: a record for each, so that a change costs the
 * same whether there are ten regions or a million.
 *
 * One word says whether a record is in force. A message changes one word: a record's, or the epoch
 * that all of them are compared with. What that word was before is written down first, with the
 * position of the stream; while the stream is still there, the message does not count yet, and who
 * takes over puts the word back and handles the message again.
 */
import { assert } from "../../errors.ts";
import type { RegionKeeper, SavedRegion } from "../vfio-user/dma-table.ts";
import { sequenceInForce } from "../vfio-user/stream-memory.ts";

/** Records there are room for. */
const REGIONS_MAX = 2 ** 20;
const HEAD_BYTES = 4096;
/** Three 64-bit floats (frame, pages, page of the file), the descriptor, the mark. */
const RECORD_BYTES = 32;
/** Bytes of it all; pages that nobody writes take no memory. */
export const REGION_JOURNAL_BYTES: number = HEAD_BYTES + REGIONS_MAX * RECORD_BYTES;

/** Words of the head. */
const Head = {
  /** 1: the change below may have to be undone. */
  PENDING: 0,
  /** The word that was changed, what it was, and the stream's position at that time. */
  AT: 1,
  BEFORE: 2,
  SEQUENCE: 3,
  EPOCH: 4,
  /** Slots from here on were never used. */
  END: 5,
} as const;

const FD = 6;
const MARK = 7;
const RECORD_WORDS = RECORD_BYTES / 4;
const FLAG_BITS = 2;
const EPOCH_LAST = 2 ** 28;

/** The regions. */
export class RegionJournal implements RegionKeeper {
  readonly #words: Int32Array;
  readonly #numbers: Float64Array;
  readonly #stream: Int32Array;

  /**
   * @param byteOffset - a multiple of 8 with {@link REGION_JOURNAL_BYTES} behind it, zero at first
   * @param stream - the words of the stream whose messages change regions
   */
  constructor(buffer: ArrayBufferLike, byteOffset: number, stream: Int32Array) {
    this.#words = new Int32Array(buffer, byteOffset, REGION_JOURNAL_BYTES / 4);
    this.#numbers = new Float64Array(buffer, byteOffset, REGION_JOURNAL_BYTES / 8);
    this.#stream = stream;
  }

  get slotsMax(): number {
    return REGIONS_MAX;
  }

  put(slot: number, { pfn, pages, filePage, flags, fd }: SavedRegion): void {
    assert(slot < REGIONS_MAX, "a region has its record");
    const at = wordOf(slot);
    const words = this.#words;
    // What is not in force may be written over at any time.
    const numbers = at / 2;
    this.#numbers[numbers] = pfn;
    this.#numbers[numbers + 1] = pages;
    this.#numbers[numbers + 2] = filePage;
    words[at + FD] = fd;
    if (slot >= words[Head.END]!) words[Head.END] = slot + 1;
    this.#change(at + MARK, ((words[Head.EPOCH]! + 1) << FLAG_BITS) | flags);
  }

  remove(slot: number): void {
    this.#change(wordOf(slot) + MARK, 0);
  }

  clear(): void {
    this.#change(Head.EPOCH, (this.#words[Head.EPOCH]! + 1) % EPOCH_LAST);
    // Marks of an epoch that comes round again must not count.
    if (this.#words[Head.EPOCH] === 0) this.forget();
  }

  /** Undoes what belongs to a message that does not count: before the stream moves on. */
  settle(): void {
    const words = this.#words;
    if (words[Head.PENDING] === 1 && words[Head.SEQUENCE] === sequenceInForce(this.#stream))
      Atomics.store(words, words[Head.AT]!, words[Head.BEFORE]!);
    words[Head.PENDING] = 0;
  }

  load(take: (slot: number, region: SavedRegion) => void): void {
    const words = this.#words;
    const end = words[Head.END]!;
    for (let slot = 0; slot < end; slot += 1) {
      const at = wordOf(slot);
      const mark = words[at + MARK]!;
      if (mark >> FLAG_BITS !== words[Head.EPOCH]! + 1) continue;
      const [pfn, pages, filePage] = this.#numbers.subarray(at / 2, at / 2 + 3) as unknown as [
        number,
        number,
        number,
      ];
      take(slot, { pfn, pages, filePage, flags: mark & 3, fd: words[at + FD]! });
    }
  }

  /** Forgets everything, whatever the stream says: the next client begins anew. */
  forget(): void {
    const words = this.#words;
    words[Head.PENDING] = 0;
    words.fill(0, wordOf(0), wordOf(words[Head.END]!));
    words[Head.END] = 0;
  }

  #change(at: number, value: number): void {
    const words = this.#words;
    Atomics.store(words, Head.PENDING, 0);
    words[Head.AT] = at;
    words[Head.BEFORE] = words[at]!;
    words[Head.SEQUENCE] = sequenceInForce(this.#stream);
    Atomics.store(words, Head.PENDING, 1);
    Atomics.store(words, at, value);
  }
}

function wordOf(slot: number): number {
  return HEAD_BYTES / 4 + slot * RECORD_WORDS;
}
