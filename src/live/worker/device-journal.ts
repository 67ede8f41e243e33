/**
 * What a device leaves behind when its process is killed, in memory that the supervisor keeps: the
 * bytes of its stream, what the kernel said of the last receive and send, its state, and a log of
 * what happened since that state.
 *
 * Everything that changes in several words is written beside what is in force, and one store puts
 * it in force. Layout, from the start: words, slots, hot words, two logs, two states, stream,
 * regions.
 */
import { assert } from "../../errors.ts";
import { type MemoryView, viewOf } from "../../memory/memory-view.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import {
  INPUT_BYTES,
  OUTPUT_BYTES,
  type StreamStorage,
  WORDS,
} from "../vfio-user/stream-memory.ts";
import { CallRecord } from "./call-record.ts";
import { REGION_JOURNAL_BYTES, RegionJournal } from "./region-journal.ts";

const PAGE = 4096;
/** A million mappings of a virtio-iommu, and everything else. */
const STATE_BYTES = 2 ** 26;
/** Lists of numbers from here on are kept as they are, not as text. */
const BULK_MIN = 64;
/** What stands in the text for a list of numbers: where it begins and how many there are. */
const BULK_KEY = "$numbers";
const LOG_BYTES = 2 ** 22;
/** Words that a function may keep what it wants in. */
export const HOT_WORDS = 8192;

const At = (() => {
  let at = 0;
  const take = (bytes: number) => {
    const start = at;
    at += Math.ceil(bytes / PAGE) * PAGE;
    return start;
  };
  return {
    WORDS: take(PAGE),
    SLOTS: take(4 * SLOT_BYTES),
    HOT: take(HOT_WORDS * 4),
    LOGS: take(2 * LOG_BYTES),
    STATES: take(2 * STATE_BYTES),
    INPUT: take(INPUT_BYTES),
    OUTPUT: take(OUTPUT_BYTES),
    REGIONS: take(REGION_JOURNAL_BYTES),
    END: take(0),
  };
})();

/** Bytes of a device's part of the journal; pages that nobody writes take no memory. */
export const DEVICE_BYTES: number = Math.ceil(At.END / 2 ** 21) * 2 ** 21;

/** Places in the words. */
const Word = {
  /** The stream's. */
  STREAM: 0,
  /** 0: no state; 1 or 2: which one is in force. */
  STATE: WORDS,
  STATE_BYTES: WORDS + 1,
  LOG_END: WORDS + 3,
  /** Numbers that lie before the text. */
  BULK: WORDS + 5,
  RECEIVE: WORDS + 8,
  SEND: WORDS + 32,
} as const;

/** A log of records; what cannot be kept whole and often is kept as what changed. */
export interface RecordLog {
  /** Adds a record. @returns false when it is full: a state must be kept, which empties it */
  append(view: MemoryView, at: number, bytes: number): boolean;
  /** Gives the records since the state in force was kept, in order, each at a multiple of 4. */
  replay(take: (view: MemoryView, at: number, bytes: number) => void): void;
}

/** One device's part of the journal. */
export class DeviceJournal {
  /** The stream's memory, for its server. */
  readonly storage: StreamStorage;
  /** For things where the last value counts, such as doorbells: the function's own variables. */
  readonly words: Uint32Array;
  readonly log: RecordLog;
  /** The client's memory, which is not part of the state. */
  readonly regions: RegionJournal;
  readonly received: CallRecord;
  readonly sent: CallRecord;
  /** Why the state could not be kept, or null. */
  overflow: string | null = null;
  readonly #mapping: Mapping;
  readonly #words: Int32Array;

  constructor(mapping: Mapping) {
    assert(mapping.bytes >= DEVICE_BYTES, "a device's part is whole");
    const { buffer, byteOffset: base } = mapping;
    this.#mapping = mapping;
    this.#words = new Int32Array(buffer, base + At.WORDS, PAGE / 4);
    this.words = new Uint32Array(buffer, base + At.HOT, HOT_WORDS);
    this.storage = {
      input: viewOf(buffer, base + At.INPUT, INPUT_BYTES),
      output: viewOf(buffer, base + At.OUTPUT, OUTPUT_BYTES),
      words: new Int32Array(buffer, base + At.WORDS + Word.STREAM * 4, WORDS),
    };
    this.regions = new RegionJournal(buffer, base + At.REGIONS, this.storage.words);
    const slots = [0, 1, 2, 3].map((n) => new MessageSlot(mapping, At.SLOTS + n * SLOT_BYTES));
    const record = (word: number, first: number) =>
      new CallRecord(
        new Int32Array(buffer, base + At.WORDS + word * 4, CallRecord.WORDS),
        [slots[first]!, slots[first + 1]!],
        this.storage.words,
      );
    this.received = record(Word.RECEIVE, 0);
    this.sent = record(Word.SEND, 2);
    this.log = {
      append: (view, at, bytes) => this.#append(view, at, bytes),
      replay: (take) => this.#replay(take),
    };
  }

  /** Address of a byte of the journal's memory. */
  addressOf(bytes: Uint8Array, at: number): number {
    return this.#mapping.address + bytes.byteOffset - this.#mapping.byteOffset + at;
  }

  /**
   * Keeps a state, and empties the log. A state that does not fit leaves none: a crash then costs
   * the client its connection.
   */
  keep(state: unknown): void {
    const next = this.#words[Word.STATE] === 1 ? 2 : 1;
    const { buffer } = this.#mapping;
    const start = this.#mapping.byteOffset + At.STATES + (next - 1) * STATE_BYTES;
    const numbers = new Float64Array(buffer, start, STATE_BYTES / 8);
    let bulk = 0;
    const text = JSON.stringify(state, (_, value: unknown) => {
      if (!isBulk(value) || bulk + value.length > numbers.length) return value;
      numbers.set(value, bulk);
      bulk += value.length;
      return { [BULK_KEY]: [bulk - value.length, value.length] };
    });
    const room = new Uint8Array(buffer, start + bulk * 8, STATE_BYTES - bulk * 8);
    const { read, written } = new TextEncoder().encodeInto(text, room);
    const isWhole = read === text.length;
    this.overflow = isWhole
      ? null
      : `its state of ${bulk * 8 + text.length} bytes is too large for the journal`;
    this.#words[Word.STATE_BYTES + next - 1] = written;
    this.#words[Word.BULK + next - 1] = bulk;
    this.#words[Word.LOG_END + next - 1] = 0;
    Atomics.store(this.#words, Word.STATE, isWhole ? next : 0);
  }

  /** The state in force, or null. */
  state(): unknown {
    const which = Atomics.load(this.#words, Word.STATE);
    if (which === 0) return null;
    const start = this.#mapping.byteOffset + At.STATES + (which - 1) * STATE_BYTES;
    const bytes = this.#words[Word.STATE_BYTES + which - 1]!;
    const bulk = this.#words[Word.BULK + which - 1]!;
    const { buffer } = this.#mapping;
    const numbers = new Float64Array(buffer, start, bulk);
    const text = new TextDecoder().decode(new Uint8Array(buffer, start + bulk * 8, bytes));
    return JSON.parse(text, (_, value: { readonly [BULK_KEY]?: readonly [number, number] }) => {
      const place = value?.[BULK_KEY];
      return place === undefined ? value : [...numbers.subarray(place[0], place[0] + place[1])];
    });
  }

  /** Forgets everything: the next client begins anew. */
  clear(): void {
    const { buffer, byteOffset } = this.#mapping;
    new Uint8Array(buffer, byteOffset + At.SLOTS, At.HOT - At.SLOTS).fill(0);
    this.#words.fill(0);
    this.words.fill(0);
    this.regions.forget();
  }

  #log(): { readonly start: number; readonly endWord: number } | null {
    const which = this.#words[Word.STATE]!;
    if (which === 0) return null;
    const start = At.LOGS + (which - 1) * LOG_BYTES;
    return { start, endWord: Word.LOG_END + which - 1 };
  }

  #append(view: MemoryView, at: number, bytes: number): boolean {
    const log = this.#log();
    // Without a state there is nothing that a log could be added to.
    if (log === null) return true;
    const end = this.#words[log.endWord]!;
    const next = end + 4 + ((bytes + 3) & ~3);
    if (next > LOG_BYTES) return false;
    const { u8, u32 } = this.#mapping.view;
    const target = log.start + end;
    u32[target >> 2] = bytes;
    for (let index = 0; index < bytes; index += 1) u8[target + 4 + index] = view.u8[at + index]!;
    Atomics.store(this.#words, log.endWord, next);
    return true;
  }

  #replay(take: (view: MemoryView, at: number, bytes: number) => void): void {
    const log = this.#log();
    if (log === null) return;
    const { view } = this.#mapping;
    const end = Atomics.load(this.#words, log.endWord);
    for (let at = 0; at < end; ) {
      const bytes = view.u32[(log.start + at) >> 2]!;
      take(view, log.start + at + 4, bytes);
      at += 4 + ((bytes + 3) & ~3);
    }
  }
}

/** Whether a value is a long list of nothing but numbers. */
function isBulk(value: unknown): value is readonly number[] {
  if (!Array.isArray(value) || value.length < BULK_MIN) return false;
  for (const each of value) if (typeof each !== "number") return false;
  return true;
}
