/**
 * Cuts a stream of byte chunks into lines, in place where a line lies in one chunk, with a bounded
 * buffer where it does not: a line longer than the limit is skipped and reported, never collected.
 *
 * Lines end with LF or CR LF. A NUL ends nothing. Line numbers count from 1.
 */
import { assert } from "../errors.ts";

/** Bytes that a line may have before it is skipped. */
export const LINE_BYTES_MAX = 64 * 1024;

/** Receives lines. The bytes are only valid during the call. */
export interface LineSink {
  /**
   * @param end - exclusive; the line terminator is not part of the line
   * @param terminated - false for the last line of an input that does not end with LF
   */
  line(bytes: Uint8Array, start: number, end: number, number: number, terminated: boolean): void;
  /** A line that was longer than the limit and is skipped. */
  longLine(number: number): void;
  /**
   * Reads a line whose end has not been searched for: saves the search where parsing finds the end
   * anyway. Must not look at, or judge by, anything behind the line's LF.
   *
   * @param limit - end of the chunk
   * @returns the position behind the line's LF, or −1, with nothing done, to have the line split off
   */
  quickLine?(bytes: Uint8Array, start: number, limit: number, number: number): number;
}

const LF = 10;
const CR = 13;
/** UTF-8 text may begin with it; it is no part of the first line. */
const BYTE_ORDER_MARK = [0xef, 0xbb, 0xbf] as const;

/** Splits chunks into lines. Call `push` for each chunk and `end` once. */
export class LineSplitter {
  readonly #sink: LineSink;
  readonly #limit: number;
  /** Start of a line whose end has not arrived; grows up to the limit. */
  #carry: Uint8Array;
  #carried = 0;
  #skipping = false;
  #lines = 0;

  constructor(sink: LineSink, limit: number = LINE_BYTES_MAX) {
    assert(limit > 0, "a line may have at least one byte");
    this.#sink = sink;
    this.#limit = limit;
    this.#carry = new Uint8Array(Math.min(limit + 1, 4096));
  }

  /** Lines seen so far, skipped ones included. */
  get lines(): number {
    return this.#lines;
  }

  push(chunk: Uint8Array): void {
    // One hidden class for the hot loop, whatever subclass of Uint8Array comes in.
    const bytes =
      chunk.constructor === Uint8Array
        ? chunk
        : new Uint8Array(chunk.buffer, chunk.byteOffset, chunk.length);
    let start = 0;
    if (this.#carried > 0 || this.#skipping) {
      const end = bytes.indexOf(LF);
      if (end < 0) {
        this.#keep(bytes, 0, bytes.length);
        return;
      }
      this.#keep(bytes, 0, end);
      this.#finishCarried(true);
      start = end + 1;
    }
    const sink = this.#sink;
    const isQuick = sink.quickLine !== undefined;
    while (start < bytes.length) {
      if (isQuick && (this.#lines > 0 || bytes[start] !== BYTE_ORDER_MARK[0])) {
        const next = sink.quickLine!(bytes, start, bytes.length, this.#lines + 1);
        if (next > 0) {
          assert(bytes[next - 1] === LF, "a line read quickly ends with its terminator");
          this.#lines += 1;
          start = next;
          continue;
        }
      }
      const end = bytes.indexOf(LF, start);
      if (end < 0) {
        this.#keep(bytes, start, bytes.length);
        return;
      }
      this.#emit(bytes, start, end, true);
      start = end + 1;
    }
  }

  /** Tells that no further chunk comes; a last line without terminator is given out. */
  end(): void {
    if (this.#carried > 0 || this.#skipping) this.#finishCarried(false);
  }

  #keep(bytes: Uint8Array, start: number, end: number): void {
    if (this.#skipping) return;
    const total = this.#carried + (end - start);
    if (total > this.#limit + 1) {
      this.#skipping = true;
      this.#carried = 0;
      return;
    }
    if (total > this.#carry.length) {
      const grown = new Uint8Array(Math.min(this.#limit + 1, Math.max(total, total * 2)));
      grown.set(this.#carry.subarray(0, this.#carried));
      this.#carry = grown;
    }
    this.#carry.set(bytes.subarray(start, end), this.#carried);
    this.#carried = total;
  }

  #finishCarried(terminated: boolean): void {
    if (this.#skipping) {
      this.#skipping = false;
      this.#lines += 1;
      this.#sink.longLine(this.#lines);
      return;
    }
    const end = this.#carried;
    this.#carried = 0;
    this.#emit(this.#carry, 0, end, terminated);
  }

  #emit(bytes: Uint8Array, start: number, end: number, terminated: boolean): void {
    this.#lines += 1;
    const isMarked =
      this.#lines === 1 && BYTE_ORDER_MARK.every((mark, at) => bytes[start + at] === mark);
    const first =
      isMarked && end - start >= BYTE_ORDER_MARK.length ? start + BYTE_ORDER_MARK.length : start;
    const last = end > first && bytes[end - 1] === CR ? end - 1 : end;
    if (last - first > this.#limit) this.#sink.longLine(this.#lines);
    else this.#sink.line(bytes, first, last, this.#lines, terminated);
  }
}
