import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { addressOf } from "../units.ts";
import { ascii, Cursor, Literal } from "./ascii.ts";

function cursorOn(text: string, start = 0): Cursor {
  const cursor = new Cursor();
  const bytes = ascii(text);
  cursor.set(bytes, start, bytes.length);
  return cursor;
}

const rest = (cursor: Cursor) =>
  String.fromCharCode(...cursor.bytes.subarray(cursor.at, cursor.end));

describe("Cursor", () => {
  it("takes every 64-bit number written in hexadecimal, padded or not", () => {
    fc.assert(
      fc.property(
        fc.bigInt(0n, 2n ** 64n - 1n),
        fc.integer({ min: 1, max: 16 }),
        (value, width) => {
          const cursor = cursorOn(`${value.toString(16).padStart(width, "0")};`);
          expect(cursor.takeHex()).toBe(true);
          expect(addressOf(cursor.pfn, cursor.offset)).toBe(value);
          expect(rest(cursor)).toBe(";");
        },
      ),
      { seed: 1, numRuns: 500 },
    );
  });

  it("takes upper-case hexadecimal and stops at the end of its range", () => {
    const cursor = cursorOn("xFFbe000 and more", 1);
    cursor.end = 8;
    expect(cursor.takeHex()).toBe(true);
    expect(cursor.pfn).toBe(0xffbe);
  });

  it("refuses hexadecimal of no digit and of 17 digits", () => {
    expect(cursorOn("g").takeHex()).toBe(false);
    expect(cursorOn("").takeHex()).toBe(false);
    expect(cursorOn("0".repeat(17)).takeHex()).toBe(false);
    expect(cursorOn("1".repeat(17)).takeHex()).toBe(false);
  });

  it("takes every 64-bit number written in decimal as frame and offset", () => {
    fc.assert(
      fc.property(fc.bigInt(0n, 2n ** 64n - 1n), (value) => {
        const cursor = cursorOn(`${value} `);
        expect(cursor.takeDecimalBytes()).toBe(true);
        expect(addressOf(cursor.pfn, cursor.offset)).toBe(value);
      }),
      { seed: 2, numRuns: 500 },
    );
  });

  it("refuses a decimal of 2^64 and beyond", () => {
    expect(cursorOn("18446744073709551616").takeDecimalBytes()).toBe(false);
    expect(cursorOn("9".repeat(40)).takeDecimalBytes()).toBe(false);
    expect(cursorOn("x").takeDecimalBytes()).toBe(false);
  });

  it("takes decimals up to 2^53 - 1 as one number and refuses more", () => {
    const cursor = cursorOn("9007199254740991:");
    expect(cursor.takeDecimal()).toBe(true);
    expect(cursor.value).toBe(Number.MAX_SAFE_INTEGER);
    expect(cursorOn("9007199254740992").takeDecimal()).toBe(false);
    expect(cursorOn("12345678901234567").takeDecimal()).toBe(false);
  });

  it("takes a literal of any length, or nothing", () => {
    for (const text of ["", "a", "abc", "abcd", "abcdefghi"]) {
      const literal = new Literal(text);
      const cursor = cursorOn(`>${text}|`, 1);
      expect(cursor.take(literal)).toBe(true);
      expect(rest(cursor)).toBe("|");
      for (let at = 0; at < text.length; at += 1) {
        const wrong = `${text.slice(0, at)}!${text.slice(at + 1)}`;
        expect(cursorOn(wrong).take(literal)).toBe(false);
      }
      if (text !== "") expect(cursorOn(text.slice(1)).take(literal)).toBe(false);
    }
  });

  it("skips blanks and tabs up to the end", () => {
    for (const blanks of ["", " ", "    ", "\t     \t", "         "]) {
      const cursor = cursorOn(`${blanks}x`);
      cursor.skipBlanks();
      expect(rest(cursor)).toBe("x");
      const empty = cursorOn(blanks);
      empty.skipBlanks();
      expect(empty.at).toBe(blanks.length);
    }
  });

  it("does not look past its end", () => {
    const cursor = cursorOn("     12");
    cursor.end = 3;
    cursor.skipBlanks();
    expect(cursor.at).toBe(3);
    expect(cursor.takeDecimal()).toBe(false);
    expect(cursor.take(new Literal(" "))).toBe(false);
  });
});
