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

const QUOTE = 0x22;
const BACKSLASH = 0x5c;
const OPEN = 0x7b;
const CLOSE = 0x7d;
const COLON = 0x3a;
const COMMA = 0x2c;
const MINUS = 0x2d;
const NULL = new Literal("null");

const keys = {
  i: ascii("i"),
  req: ascii("req"),
  tail: ascii("tail"),
  used_len: ascii("used_len"),
  status: ascii("status"),
  buf: ascii("buf"),
};

const decoder = new TextDecoder("utf-8");

/** Reads vectors; call `push` for each chunk and `end` once. */
export class RequestVectorReader {
  readonly notes: ReadingNotes = new ReadingNotes();
  readonly #splitter = new LineSplitter(this, VECTOR_LINE_BYTES_MAX);
  readonly #sink: VectorSink;
  readonly #cursor = new Cursor();
  readonly #row = new RequestRow();
  #keyStart = 0;
  #keyEnd = 0;
  #hasRequest = false;

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
    const row = this.#row;
    row.line = line;
    this.#hasRequest = false;
    if (!this.#readObject() || !this.#hasRequest) {
      const device = parseVectorDevice(decoder.decode(bytes.subarray(start, end)), line);
      if (device === null) this.notes.unreadableLine(line, "torn");
      else this.#sink.device(device);
      return;
    }
    this.notes.events += 1;
    this.#sink.row(row);
  }

  #readObject(): boolean {
    const cursor = this.#cursor;
    const row = this.#row;
    row.requestBytes = 0;
    row.replyBytes = -1;
    row.status = -1;
    row.writableBytes = 0;
    row.usedBytes = 0;
    row.index = 0;
    if (!this.#take(OPEN)) return false;
    for (;;) {
      if (!this.#readKey() || !this.#take(COLON)) return false;
      cursor.skipBlanks();
      if (!this.#readValue()) return false;
      cursor.skipBlanks();
      if (cursor.at >= cursor.end) return false;
      const next = cursor.bytes[cursor.at]!;
      cursor.at += 1;
      if (next === COMMA) continue;
      if (next !== CLOSE) return false;
      cursor.skipBlanks();
      return cursor.at === cursor.end;
    }
  }

  #take(byte: number): boolean {
    const cursor = this.#cursor;
    cursor.skipBlanks();
    if (cursor.at >= cursor.end || cursor.bytes[cursor.at] !== byte) return false;
    cursor.at += 1;
    return true;
  }

  #readKey(): boolean {
    if (!this.#take(QUOTE)) return false;
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    let at = cursor.at;
    this.#keyStart = at;
    while (at < end && bytes[at] !== QUOTE && bytes[at] !== BACKSLASH) at += 1;
    this.#keyEnd = at;
    cursor.at = at + 1;
    return at < end && bytes[at] === QUOTE;
  }

  #keyIs(key: Uint8Array): boolean {
    const { bytes } = this.#cursor;
    if (this.#keyEnd - this.#keyStart !== key.length) return false;
    for (let index = 0; index < key.length; index += 1) {
      if (bytes[this.#keyStart + index] !== key[index]) return false;
    }
    return true;
  }

  #readValue(): boolean {
    const row = this.#row;
    const cursor = this.#cursor;
    if (this.#keyIs(keys.req)) {
      row.requestBytes = this.#takeHexString(false);
      this.#hasRequest = row.requestBytes >= 0;
      return this.#hasRequest;
    }
    if (this.#keyIs(keys.buf)) {
      if (cursor.take(NULL)) return true;
      row.replyBytes = this.#takeHexString(true);
      return row.replyBytes >= 0;
    }
    if (this.#keyIs(keys.status)) {
      if (cursor.take(NULL)) return true;
      if (!this.#takeCount(255)) return false;
      row.status = cursor.value;
      return true;
    }
    if (this.#keyIs(keys.tail)) {
      if (!this.#takeCount(VECTOR_LINE_BYTES_MAX)) return false;
      row.writableBytes = cursor.value;
      return true;
    }
    if (this.#keyIs(keys.used_len)) {
      if (!this.#takeCount(0xffff_ffff)) return false;
      row.usedBytes = cursor.value;
      return true;
    }
    if (this.#keyIs(keys.i)) {
      if (!this.#takeCount(Number.MAX_SAFE_INTEGER)) return false;
      row.index = cursor.value;
      return true;
    }
    return this.#skipValue();
  }

  #takeCount(limit: number): boolean {
    const cursor = this.#cursor;
    return cursor.takeDecimal() && cursor.value <= limit;
  }

  /** Takes a string of pairs of hexadecimal digits; returns the number of bytes, −1 on an error. */
  #takeHexString(reply: boolean): number {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    if (cursor.at >= end || bytes[cursor.at] !== QUOTE) return -1;
    const start = cursor.at + 1;
    const stop = bytes.indexOf(QUOTE, start);
    if (stop < 0 || stop >= end || (stop - start) % 2 !== 0) return -1;
    const length = (stop - start) / 2;
    const row = this.#row;
    let out = reply ? row.reply : row.request;
    if (length > out.length) {
      out = new Uint8Array(length * 2);
      if (reply) row.reply = out;
      else row.request = out;
    }
    let invalid = 0;
    for (let index = 0, at = start; index < length; index += 1, at += 2) {
      const high = nibbleOf(bytes[at]!);
      const low = nibbleOf(bytes[at + 1]!);
      invalid |= high | low;
      out[index] = (high << 4) | low;
    }
    if (invalid < 0) return -1;
    cursor.at = stop + 1;
    return length;
  }

  /** Skips a number, a word or a string of a key that is not used. */
  #skipValue(): boolean {
    const cursor = this.#cursor;
    const { bytes, end } = cursor;
    if (cursor.at >= end) return false;
    if (bytes[cursor.at] === QUOTE) return this.#readKey();
    let at = cursor.at;
    while (at < end && isWordByte(bytes[at]!)) at += 1;
    const skipped = at > cursor.at;
    cursor.at = at;
    return skipped;
  }
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
