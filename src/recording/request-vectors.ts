/**
 * Reads JSON-lines vectors of virtio-iommu requests: see request-vector.ts for the lines.
 *
 * Target: 1 M lines/s from gzip to result. A request line is taken apart by hand, keys in any
 * order, unknown keys skipped; only the line that describes the device goes through JSON.parse.
 */
import { ascii, Cursor, Literal, nibbleOf } from "./ascii.ts";
import { LineSplitter } from "./line-splitter.ts";
import { ReadingNotes } from "./notes.ts";
import { parseVectorDevice, RequestRow, type VectorDevice } from "./request-vector.ts";

/** Vectors carry whole PROBE replies, twice as long in hexadecimal. */
const VECTOR_LINE_BYTES_MAX = 1024 * 1024;

/** Receives the lines; the row is only valid during the call. */
export interface VectorSink {
  device(device: VectorDevice): void;
  row(row: RequestRow): void;
}

const LF = 0x0a;
const CR = 0x0d;
const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const COLON = 0x3a;
const COMMA = 0x2c;
const MINUS = 0x2d;
const NULL = new Literal("null");

/** The keys that are used. */
const Key = {
  none: 0,
  other: 1,
  index: 2,
  req: 3,
  tail: 4,
  usedLen: 5,
  status: 6,
  buf: 7,
} as const;

const keyNames: readonly (readonly [string, number])[] = [
  ["i", Key.index],
  ["req", Key.req],
  ["tail", Key.tail],
  ["used_len", Key.usedLen],
  ["status", Key.status],
  ["buf", Key.buf],
];

/** The keys by their length. */
const keyByBytes = Array.from({ length: 10 }, (_, bytes) =>
  keyNames
    .filter(([name]) => name.length === bytes)
    .map(([name, key]) => ({ bytes: ascii(name), key })),
);

/** Keys of a line whose text is remembered, and how long that may be. */
const KNOWN_KEYS_MAX = 16;
const KNOWN_TEXT_BYTES_MAX = 64;
/** How often a text is learned before a writer counts as too fickle. */
const LEARN_MAX = 1000;

/** The byte that each pair of letters stands for, −1 for a pair that is no number. */
const hexPairs = Int16Array.from({ length: 65_536 }, (_, pair) => {
  const high = nibbleOf(pair >>> 8);
  const low = nibbleOf(pair & 0xff);
  return high < 0 || low < 0 ? -1 : (high << 4) | low;
});

const decoder = new TextDecoder("utf-8");

/** Reads vectors; call `push` for each chunk and `end` once. */
export class RequestVectorReader {
  readonly notes: ReadingNotes = new ReadingNotes();
  readonly #splitter = new LineSplitter(this, VECTOR_LINE_BYTES_MAX);
  readonly #sink: VectorSink;
  readonly #cursor = new Cursor();
  readonly #row = new RequestRow();

  constructor(sink: VectorSink) {
    this.#sink = sink;
  }

  push(chunk: Uint8Array): void {
    this.#splitter.push(chunk);
  }

  end(): void {
    this.#splitter.end();
    this.notes.lines = this.#splitter.lines;
  }

  /** {@link LineSink.longLine} */
  longLine(line: number): void {
    this.notes.unreadableLine(line, "too long");
  }

  /** {@link LineSink.line} */
  line(bytes: Uint8Array, start: number, end: number, line: number): void {
    const cursor = this.#cursor;
    cursor.set(bytes, start, end);
    cursor.skipBlanks();
    if (cursor.at === end) return;
    if (this.#readObject() && cursor.at === end) {
      this.#emit(line);
      return;
    }
    const device = parseVectorDevice(decoder.decode(bytes.subarray(start, end)), line);
    if (device === null) this.notes.unreadableLine(line, "torn");
    else this.#sink.device(device);
  }

  /** {@link LineSink.quickLine} */
  quickLine(bytes: Uint8Array, start: number, limit: number, line: number): number {
    const cursor = this.#cursor;
    cursor.set(bytes, start, limit);
    if (!this.#readObject()) return -1;
    let { at } = cursor;
    if (at < limit && bytes[at] === CR) at += 1;
    if (at >= limit || bytes[at] !== LF || at - start > VECTOR_LINE_BYTES_MAX) return -1;
    this.#emit(line);
    return at + 1;
  }

  #emit(line: number): void {
    this.#row.line = line;
    this.notes.events += 1;
    this.#sink.row(this.#row);
  }

  /** Reads an object with a request in it, and the blanks behind it. Stops at a LF. */
  #readObject(): boolean {
    const cursor = this.#cursor;
    const row = this.#row;
    row.requestBytes = -1;
    row.replyBytes = -1;
    row.status = -1;
    row.writableBytes = -1;
    row.usedBytes = -1;
    row.index = 0;
    this.#hasStatus = false;
    if (!this.#take(OPEN)) return false;
    for (let position = 0; ; position += 1) {
      const key = this.#nextKey(position);
      if (key === Key.none || !this.#readValue(key)) return false;
      cursor.skipBlanks();
      if (cursor.at >= cursor.end) return false;
      const next = cursor.bytes[cursor.at]!;
      cursor.at += 1;
      if (next === COMMA) continue;
      if (next !== CLOSE) return false;
      cursor.skipBlanks();
      return this.#isWhole();
    }
  }

  #hasStatus = false;

  /** Whether the object told all that a row needs; a status is missing only where nothing came. */
  #isWhole(): boolean {
    const { requestBytes, writableBytes, usedBytes, status } = this.#row;
    if (requestBytes < 0 || writableBytes < 0 || usedBytes < 0) return false;
    return this.#hasStatus && (status >= 0 || usedBytes === 0);
  }

  /**
   * Reads a key up to its value. A writer writes the same keys in the same way line by line, so the
   * text that stood at this position of an earlier line is tried first.
   */
  #nextKey(position: number): number {
    const cursor = this.#cursor;
    const known = this.#known[position];
    if (known !== undefined && cursor.take(known.text)) {
      cursor.skipBlanks();
      return known.key;
    }
    const start = cursor.at;
    const key = this.#readKey();
    if (key === Key.none || !this.#take(COLON)) return Key.none;
    cursor.skipBlanks();
    const isWorth = position < KNOWN_KEYS_MAX && cursor.at - start <= KNOWN_TEXT_BYTES_MAX;
    if (isWorth && this.#learned < LEARN_MAX) {
      this.#learned += 1;
      this.#known[position] = { text: new Literal(cursor.bytes.subarray(start, cursor.at)), key };
    }
    return key;
  }

  readonly #known: { readonly text: Literal; readonly key: number }[] = [];
  #learned = 0;

  #take(byte: number): boolean {
    const cursor = this.#cursor;
    if (cursor.at < cursor.end && cursor.bytes[cursor.at] === byte) {
      cursor.at += 1;
      return true;
    }
    cursor.skipBlanks();
    if (cursor.at >= cursor.end || cursor.bytes[cursor.at] !== byte) return false;
    cursor.at += 1;
    return true;
  }

  /** Reads a quoted key: which it is, or that it is none. */
  #readKey(): number {
    const cursor = this.#cursor;
    if (!this.#skipString()) return Key.none;
    const end = cursor.at - 1;
    const start = this.#stringStart;
    for (const candidate of keyByBytes[Math.min(end - start, keyByBytes.length - 1)]!) {
      if (isAt(cursor.bytes, start, candidate.bytes)) return candidate.key;
    }
    return Key.other;
  }

  #stringStart = 0;

  /** Skips a string without escapes; where its text starts is noted. */
  #skipString(): boolean {
    if (!this.#take(QUOTE)) return false;
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    this.#stringStart = at;
    while (at < end && bytes[at] !== QUOTE && bytes[at] !== BACKSLASH && bytes[at] !== LF) at += 1;
    cursor.at = at + 1;
    return at < end && bytes[at] === QUOTE;
  }

  #readValue(key: number): boolean {
    const row = this.#row;
    const cursor = this.#cursor;
    switch (key) {
      case Key.req:
        row.requestBytes = this.#takeHexString(false);
        return row.requestBytes >= 0;
      case Key.buf:
        if (cursor.take(NULL)) return true;
        row.replyBytes = this.#takeHexString(true);
        return row.replyBytes >= 0;
      case Key.status:
        this.#hasStatus = true;
        if (cursor.take(NULL)) return true;
        if (!this.#takeCount(255)) return false;
        row.status = cursor.value;
        return true;
      case Key.tail:
        if (!this.#takeCount(VECTOR_LINE_BYTES_MAX)) return false;
        row.writableBytes = cursor.value;
        return true;
      case Key.usedLen:
        if (!this.#takeCount(0xffff_ffff)) return false;
        row.usedBytes = cursor.value;
        return true;
      case Key.index:
        if (!this.#takeCount(Number.MAX_SAFE_INTEGER)) return false;
        row.index = cursor.value;
        return true;
      default:
        return this.#skipValue();
    }
  }

  #takeCount(limit: number): boolean {
    const cursor = this.#cursor;
    return cursor.takeDecimal() && cursor.value <= limit;
  }

  /** Takes a string of pairs of hexadecimal digits; returns the number of bytes, −1 on an error. */
  #takeHexString(isReply: boolean): number {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    if (cursor.at >= end || bytes[cursor.at] !== QUOTE) return -1;
    const row = this.#row;
    let out = isReply ? row.reply : row.request;
    let length = 0;
    let at = cursor.at + 1;
    for (; at + 1 < end; at += 2) {
      const byte = hexPairs[(bytes[at]! << 8) | bytes[at + 1]!]!;
      if (byte < 0) break;
      if (length === out.length) {
        const grown = new Uint8Array(length * 2);
        grown.set(out);
        out = grown;
        if (isReply) row.reply = out;
        else row.request = out;
      }
      out[length] = byte;
      length += 1;
    }
    if (at >= end || bytes[at] !== QUOTE) return -1;
    cursor.at = at + 1;
    return length;
  }

  /** Skips a number, a word or a string of a key that is not used. */
  #skipValue(): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    if (cursor.at >= end) return false;
    if (bytes[cursor.at] === QUOTE) return this.#skipString();
    let at = cursor.at;
    while (at < end && isWordByte(bytes[at]!)) at += 1;
    const skipped = at > cursor.at;
    cursor.at = at;
    return skipped;
  }
}

function isAt(bytes: Uint8Array, start: number, word: Uint8Array): boolean {
  for (let index = 0; index < word.length; index += 1) {
    if (bytes[start + index] !== word[index]) return false;
  }
  return true;
}

/** Bytes of numbers, `true`, `false` and `null`. */
function isWordByte(byte: number): boolean {
  return (
    (byte >= 0x30 && byte <= 0x39) ||
    (byte >= 0x61 && byte <= 0x7a) ||
    byte === MINUS ||
    byte === 0x2e ||
    byte === 0x2b ||
    byte === 0x45
  );
}
