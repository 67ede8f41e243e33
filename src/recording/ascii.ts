/**
 * Numbers and words out of ASCII bytes, without strings: the inner loop of every reader.
 *
 * A {@link Cursor} walks one line. A 64-bit number becomes a frame of 4 KiB and an offset, since a
 * JavaScript number holds 52 bits of frame exactly but not 64 bits of address.
 */

/** The bytes of an ASCII text. */
export function ascii(text: string): Uint8Array {
  return Uint8Array.from(text, (letter) => letter.charCodeAt(0));
}

/** A text to compare with, cut into words of four bytes and a rest. */
export class Literal {
  readonly bytes: Uint8Array;
  readonly words: Int32Array;

  /** @param text - the text, or its bytes, which are copied */
  constructor(text: string | Uint8Array) {
    this.bytes = typeof text === "string" ? ascii(text) : text.slice();
    const view = new DataView(this.bytes.buffer);
    const count = this.bytes.length >> 2;
    this.words = Int32Array.from({ length: count }, (_, index) => view.getInt32(index * 4));
  }
}

const nibbles = new Int8Array(256).fill(-1);
for (let digit = 0; digit < 16; digit += 1) {
  nibbles[digit.toString(16).charCodeAt(0)] = digit;
  nibbles[digit.toString(16).toUpperCase().charCodeAt(0)] = digit;
}

/** Value of a hexadecimal digit, −1 for any other byte. */
export function nibbleOf(byte: number): number {
  return nibbles[byte]!;
}

const SPACE = 0x20;
const TAB = 0x09;
const TWO_52 = 2 ** 52;
/** The text `0000`. */
const FOUR_ZEROS = 0x3030_3030;
/** Four blanks. */
const FOUR_BLANKS = 0x2020_2020;

/** Walks a line. Every `take…` returns false, and leaves the cursor anywhere, on a mismatch. */
export class Cursor {
  bytes: Uint8Array = new Uint8Array(0);
  at = 0;
  end = 0;
  /** Frame and offset of the last hexadecimal or decimal 64-bit number taken. */
  pfn = 0;
  offset = 0;
  /** The last small number taken. */
  value = 0;

  set(bytes: Uint8Array, start: number, end: number): void {
    if (bytes !== this.bytes) {
      this.bytes = bytes;
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    }
    this.at = start;
    this.end = end;
  }

  #view: DataView = new DataView(new ArrayBuffer(0));

  /** Takes exactly the given bytes. */
  take(literal: Literal): boolean {
    const { bytes, words } = literal;
    const length = bytes.length;
    const start = this.at;
    if (this.end - start < length) return false;
    const view = this.#view;
    const count = words.length;
    let at = start;
    for (let index = 0; index < count; index += 1) {
      if (view.getInt32(at) !== words[index]) return false;
      at += 4;
    }
    for (let index = count * 4; index < length; index += 1) {
      if (this.bytes[start + index] !== bytes[index]) return false;
    }
    this.at = start + length;
    return true;
  }

  /** Skips blanks and tabs. */
  skipBlanks(): void {
    const { bytes, end } = this;
    let at = this.at;
    const view = this.#view;
    while (at + 4 <= end && view.getInt32(at) === FOUR_BLANKS) at += 4;
    while (at < end && (bytes[at] === SPACE || bytes[at] === TAB)) at += 1;
    this.at = at;
  }

  /** Takes 1 to 16 hexadecimal digits, without `0x`, into `pfn` and `offset`. */
  takeHex(): boolean {
    const { bytes, end, at: start } = this;
    let at = start;
    const half = Math.min(end, start + 8);
    let low = 0;
    let digit = 0;
    // Most addresses are printed with eight zeros in front.
    if (start + 8 < end && this.#view.getInt32(at) === FOUR_ZEROS) {
      at = this.#view.getInt32(at + 4) === FOUR_ZEROS ? start + 8 : start + 4;
    }
    for (; at < half; at += 1) {
      digit = nibbles[bytes[at]!]!;
      if (digit < 0) break;
      low = (low << 4) | digit;
    }
    let high = 0;
    if (at === start + 8) {
      // Eight digits are full: what follows shifts the first ones into the upper half.
      const first = low;
      const last = Math.min(end, start + 17);
      low = 0;
      for (; at < last; at += 1) {
        digit = nibbles[bytes[at]!]!;
        if (digit < 0) break;
        low = (low << 4) | digit;
      }
      const digits = at - start - 8;
      if (digits > 8) return false;
      if (digits === 8) {
        high = first;
      } else if (digits > 0) {
        high = first >>> (32 - 4 * digits);
        low |= first << (4 * digits);
      } else {
        low = first;
      }
    } else if (at === start) {
      return false;
    }
    this.at = at;
    this.pfn = (high >>> 0) * 0x10_0000 + (low >>> 12);
    this.offset = low & 0xfff;
    return true;
  }

  /** Takes a decimal number below 2^53 into `value`. */
  takeDecimal(): boolean {
    const { bytes, end } = this;
    let at = this.at;
    let value = 0;
    const limit = Math.min(end, at + 16);
    while (at < limit) {
      const digit = bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      at += 1;
    }
    const digits = at - this.at;
    if (digits === 0 || value > Number.MAX_SAFE_INTEGER) return false;
    if (at < end && isDigit(bytes[at]!)) return false;
    this.at = at;
    this.value = value;
    return true;
  }

  /** Takes a decimal number below 2^64 into `pfn` and `offset`. */
  takeDecimalBytes(): boolean {
    const { bytes, end } = this;
    const start = this.at;
    let at = start;
    let value = 0;
    while (at < end && at - start < 15) {
      const digit = bytes[at]! - 0x30;
      if (digit < 0 || digit > 9) break;
      value = value * 10 + digit;
      at += 1;
    }
    if (at === start) return false;
    let pfn = Math.floor(value / 4096);
    let offset = value - pfn * 4096;
    while (at < end && isDigit(bytes[at]!)) {
      offset = offset * 10 + (bytes[at]! - 0x30);
      pfn = pfn * 10 + (offset >>> 12);
      offset &= 0xfff;
      if (pfn >= TWO_52) return false;
      at += 1;
    }
    this.at = at;
    this.pfn = pfn;
    this.offset = offset;
    return true;
  }
}

/** Whether a byte is a decimal digit. */
export function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39;
}
