/**
 * Takes one flat JSON object out of a line, without making strings: numbers and addresses become
 * frame and offset, texts stay where they are, nested values are only skipped.
 *
 * Keys come in any order; those that nobody asked for are skipped. A writer writes its few sorts of
 * lines in the same way, so the keys that followed a key before are tried first. Target: 1 M lines/s
 * from gzip (bench/vfio-recording.bench.ts).
 */
import { assert } from "../errors.ts";
import { ascii, Cursor, Literal } from "./ascii.ts";

/** What a key's value is. */
export const JsonValue = {
  /** The key does not stand in the line. */
  NONE: 0,
  /** A number from 0 below 2^53, or a text `0x…` below 2^64: see {@link JsonLine.pfn}. */
  NUMBER: 1,
  /** A text that is no number. */
  TEXT: 2,
  /** An object or array. */
  NESTED: 3,
  /** `null`. */
  NULL: 4,
  /** Any other word, or a number that is negative, broken or too large. */
  OTHER: 5,
} as const;
export type JsonValue = (typeof JsonValue)[keyof typeof JsonValue];

const LF = 0x0a;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const COLON = 0x3a;
const COMMA = 0x2c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const OPEN_LIST = 0x5b;
const CLOSE_LIST = 0x5d;
const ZERO = 0x30;
const NINE = 0x39;
const LETTER_X = 0x78;
const WORD_NULL = new Literal("null");

/** Objects and arrays inside each other that are skipped; deeper ones make the line unreadable. */
const DEPTH_MAX = 31;
/** Keys that are remembered as followers of a key, and how long their text may be. */
const FOLLOWERS_MAX = 4;
const KNOWN_TEXT_BYTES_MAX = 64;

const UNKNOWN_KEY = -1;
const NO_KEY = -2;

interface KnownKey {
  readonly text: Literal;
  readonly slot: number;
}

/** The reader of lines. What it says about a line holds until the next one. */
export class JsonLine {
  /** Slot of a key that stands in the line more than once, −1 when there is none. */
  repeated = -1;
  readonly #names: readonly string[];
  /** The keys by their length, with their slots. */
  readonly #byBytes: { readonly bytes: Uint8Array; readonly slot: number }[][] = [];
  readonly #cursor = new Cursor();
  readonly #values: Uint8Array;
  readonly #pfns: Float64Array;
  readonly #offsets: Int32Array;
  readonly #starts: Int32Array;
  readonly #ends: Int32Array;
  /** What followed each slot, that of the line's beginning and unknown keys last. */
  readonly #followers: KnownKey[][];
  #textStart = 0;

  /** @param keys - the keys that matter; a key's slot is its place in the list */
  constructor(keys: readonly string[]) {
    assert(new Set(keys).size === keys.length, "every key has one slot");
    this.#names = keys;
    for (const [slot, key] of keys.entries()) {
      const bytes = ascii(key);
      while (this.#byBytes.length <= bytes.length) this.#byBytes.push([]);
      this.#byBytes[bytes.length]!.push({ bytes, slot });
    }
    this.#followers = Array.from({ length: keys.length + 1 }, () => []);
    this.#values = new Uint8Array(keys.length);
    this.#pfns = new Float64Array(keys.length);
    this.#offsets = new Int32Array(keys.length);
    this.#starts = new Int32Array(keys.length);
    this.#ends = new Int32Array(keys.length);
  }

  /** What stands at a slot's key. */
  value(slot: number): JsonValue {
    return this.#values[slot]! as JsonValue;
  }

  /** Whether a slot holds a number. */
  hasNumber(slot: number): boolean {
    return this.#values[slot] === JsonValue.NUMBER;
  }

  /** Frame of a slot's number: the number divided by 4096. */
  pfn(slot: number): number {
    return this.#pfns[slot]!;
  }

  /** What is left of a slot's number, 0 … 4095. */
  offset(slot: number): number {
    return this.#offsets[slot]!;
  }

  /** A slot's number; exact below 2^53. */
  number(slot: number): number {
    return this.#pfns[slot]! * 4096 + this.#offsets[slot]!;
  }

  /** First byte of a slot's text, behind the quote; escapes stand as they are. */
  textStart(slot: number): number {
    return this.#starts[slot]!;
  }

  /** End of a slot's text, exclusive. */
  textEnd(slot: number): number {
    return this.#ends[slot]!;
  }

  /** The name of a slot's key. */
  nameOf(slot: number): string {
    return this.#names[slot]!;
  }

  /**
   * Reads an object and the blanks behind it; never looks past a line feed.
   *
   * @returns the position behind it, or −1 when the bytes are no such object
   */
  read(bytes: Uint8Array, start: number, limit: number): number {
    const cursor = this.#cursor;
    cursor.set(bytes, start, limit);
    this.#values.fill(JsonValue.NONE);
    this.repeated = -1;
    if (!this.#take(OPEN)) return -1;
    cursor.skipBlanks();
    if (this.#take(CLOSE)) return cursor.at;
    let slot: number = UNKNOWN_KEY;
    for (;;) {
      slot = this.#nextKey(slot);
      if (slot === NO_KEY || !this.#readValue(slot)) return -1;
      cursor.skipBlanks();
      if (cursor.at >= limit) return -1;
      const next = bytes[cursor.at]!;
      cursor.at += 1;
      if (next === COMMA) continue;
      if (next !== CLOSE) return -1;
      cursor.skipBlanks();
      return cursor.at;
    }
  }

  #take(byte: number): boolean {
    const cursor = this.#cursor;
    if (cursor.at >= cursor.end || cursor.bytes[cursor.at] !== byte) {
      cursor.skipBlanks();
      if (cursor.at >= cursor.end || cursor.bytes[cursor.at] !== byte) return false;
    }
    cursor.at += 1;
    return true;
  }

  /** Reads a key up to its value. @param before - slot of the key before @returns its slot */
  #nextKey(before: number): number {
    const cursor = this.#cursor;
    const followers = this.#followers[before < 0 ? this.#names.length : before]!;
    for (let index = 0; index < followers.length; index += 1) {
      const known = followers[index]!;
      if (!cursor.take(known.text)) continue;
      cursor.skipBlanks();
      return known.slot;
    }
    const start = cursor.at;
    if (!this.#takeText()) return NO_KEY;
    const slot = this.#slotOf(cursor.bytes, this.#textStart, cursor.at - 1);
    if (!this.#take(COLON)) return NO_KEY;
    cursor.skipBlanks();
    if (followers.length < FOLLOWERS_MAX && cursor.at - start <= KNOWN_TEXT_BYTES_MAX) {
      followers.push({ text: new Literal(cursor.bytes.subarray(start, cursor.at)), slot });
    }
    return slot;
  }

  #slotOf(bytes: Uint8Array, start: number, end: number): number {
    for (const candidate of this.#byBytes[end - start] ?? []) {
      if (isAt(bytes, start, candidate.bytes)) return candidate.slot;
    }
    return UNKNOWN_KEY;
  }

  /** Takes a quoted text; where it starts is noted. */
  #takeText(): boolean {
    if (!this.#take(QUOTE)) return false;
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    this.#textStart = at;
    while (at < end && bytes[at] !== QUOTE) {
      if (bytes[at] === BACKSLASH) at += 1;
      if (at >= end || bytes[at] === LF) return false;
      at += 1;
    }
    cursor.at = at + 1;
    return at < end;
  }

  #readValue(slot: number): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    if (cursor.at >= end) return false;
    const first = bytes[cursor.at]!;
    if (first === QUOTE) return this.#readText(slot);
    if (first >= ZERO && first <= NINE) return this.#readNumber(slot);
    if (first === OPEN || first === OPEN_LIST) return this.#skipNested(slot);
    if (cursor.take(WORD_NULL)) return this.#note(slot, JsonValue.NULL);
    return this.#skipWord() && this.#note(slot, JsonValue.OTHER);
  }

  #readText(slot: number): boolean {
    const cursor = this.#cursor;
    const { bytes, at: start } = cursor;
    if (slot !== UNKNOWN_KEY && start + 3 < cursor.end && bytes[start + 1] === ZERO) {
      const isHex = (bytes[start + 2]! | 0x20) === LETTER_X;
      cursor.at = start + 3;
      if (isHex && cursor.takeHex() && cursor.at < cursor.end && bytes[cursor.at] === QUOTE) {
        cursor.at += 1;
        this.#pfns[slot] = cursor.pfn;
        this.#offsets[slot] = cursor.offset;
        return this.#note(slot, JsonValue.NUMBER);
      }
      cursor.at = start;
    }
    if (!this.#takeText()) return false;
    if (slot !== UNKNOWN_KEY) {
      this.#starts[slot] = this.#textStart;
      this.#ends[slot] = cursor.at - 1;
    }
    return this.#note(slot, JsonValue.TEXT);
  }

  #readNumber(slot: number): boolean {
    const cursor = this.#cursor;
    const start = cursor.at;
    if (cursor.takeDecimal() && !isWordByte(cursor.bytes[cursor.at] ?? 0)) {
      if (slot !== UNKNOWN_KEY) {
        const pfn = Math.floor(cursor.value / 4096);
        this.#pfns[slot] = pfn;
        this.#offsets[slot] = cursor.value - pfn * 4096;
      }
      return this.#note(slot, JsonValue.NUMBER);
    }
    cursor.at = start;
    return this.#skipWord() && this.#note(slot, JsonValue.OTHER);
  }

  /** Skips a number or a word. */
  #skipWord(): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    while (at < end && isWordByte(bytes[at]!)) at += 1;
    const isSome = at > cursor.at;
    cursor.at = at;
    return isSome;
  }

  #skipNested(slot: number): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let depth = 0;
    /** Bit n: whether the bracket at depth n is one of a list. */
    let lists = 0;
    while (cursor.at < end) {
      const byte = bytes[cursor.at]!;
      if (byte === LF) return false;
      if (byte === QUOTE) {
        if (!this.#takeText()) return false;
        continue;
      }
      cursor.at += 1;
      if (byte === OPEN || byte === OPEN_LIST) {
        if (depth === DEPTH_MAX) return false;
        lists = byte === OPEN_LIST ? lists | (1 << depth) : lists & ~(1 << depth);
        depth += 1;
      } else if (byte === CLOSE || byte === CLOSE_LIST) {
        depth -= 1;
        if (((lists >>> depth) & 1) !== (byte === CLOSE_LIST ? 1 : 0)) return false;
        if (depth === 0) return this.#note(slot, JsonValue.NESTED);
      }
    }
    return false;
  }

  #note(slot: number, value: JsonValue): boolean {
    if (slot === UNKNOWN_KEY) return true;
    if (this.#values[slot] !== JsonValue.NONE) this.repeated = slot;
    this.#values[slot] = value;
    return true;
  }
}

function isAt(bytes: Uint8Array, start: number, word: Uint8Array): boolean {
  for (let index = 0; index < word.length; index += 1) {
    if (bytes[start + index] !== word[index]) return false;
  }
  return true;
}

/** Bytes of numbers and words. */
function isWordByte(byte: number): boolean {
  return (
    (byte >= ZERO && byte <= NINE) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    (byte >= 0x41 && byte <= 0x5a) ||
    byte === 0x2d ||
    byte === 0x2e ||
    byte === 0x2b
  );
}
