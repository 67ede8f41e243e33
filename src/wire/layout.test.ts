import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError, StackError } from "../errors.ts";
import { type Fields, layout, viewOf } from "./layout.ts";

const Sample = layout("sample", 32, {
  small: { kind: "u8", at: 0, doc: "one byte" },
  middle: { kind: "u16", at: 2, doc: "two bytes" },
  word: { kind: "u32", at: 4, doc: "four bytes" },
  address: { kind: "u64", at: 9, doc: "eight bytes, unaligned" },
  blob: { kind: "bytes", at: 20, length: 5, doc: "five bytes" },
});

describe("layout", () => {
  it("decodes little-endian fields of every kind at a position", () => {
    const bytes = Uint8Array.from({ length: 40 }, (_, index) => index + 1);
    const value = Sample.decode(viewOf(bytes), 8);
    expect(value.small).toBe(9);
    expect(value.middle).toBe(0x0c0b);
    expect(value.word).toBe(0x100f0e0d);
    expect(value.address).toBe(0x1918_1716_1514_1312n);
    expect([...value.blob]).toEqual([29, 30, 31, 32, 33]);
    expect(value.reserved.length).toBe(32 - 20);
    expect(value.reserved[0]).toBe(10);
  });

  it("gives back every byte, reserved ones too, when what it decoded is encoded", () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 32, maxLength: 32 }), (bytes) => {
        expect(Sample.bytesOf(Sample.decode(viewOf(bytes)))).toEqual(bytes);
      }),
      { seed: 1, numRuns: 200 },
    );
  });

  it("writes zeros for reserved bytes that are left out", () => {
    const out = new Uint8Array(32).fill(0xaa);
    const blob = new Uint8Array(5).fill(0xff);
    Sample.encode({ small: 1, middle: 2, word: 3, address: 4n, blob }, viewOf(out));
    expect(Sample.reservedAt.every((position) => out[position] === 0)).toBe(true);
  });

  it("reads and writes 64-bit addresses as frame and offset without loss", () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (address) => {
        const view = new DataView(new ArrayBuffer(40));
        Sample.set.address(view, 8, address);
        const pfn = Sample.pfn.address(view, 8);
        const offset = Sample.pageOffset.address(view, 8);
        expect((BigInt(pfn) << 12n) + BigInt(offset)).toBe(address);
        Sample.set.address(view, 8, 0n);
        Sample.setAddress.address(view, 8, pfn, offset);
        expect(Sample.get.address(view, 8)).toBe(address);
      }),
      { seed: 2, numRuns: 500 },
    );
  });

  it("reports a structure that the view cuts off, before it reads or writes anything", () => {
    const view = new DataView(new ArrayBuffer(40));
    expect(() => Sample.decode(view, 9)).toThrow(StackError);
    expect(() => Sample.decode(view, -1)).toThrow(StackError);
    const blob = new Uint8Array(5);
    const value = { small: 1, middle: 2, word: 3, address: 4n, blob };
    expect(() => Sample.encode(value, view, 9)).toThrow(/needs 32 bytes at 9, of which 31 exist/);
    expect(new Uint8Array(view.buffer).every((byte) => byte === 0)).toBe(true);
  });

  it.each([
    ["a number above its field", { small: 256 }],
    ["a negative number", { middle: -1 }],
    ["a fraction", { word: 0.5 }],
    ["an address above 64 bits", { address: 2n ** 64n }],
    ["bytes of the wrong length", { blob: new Uint8Array(4) }],
    ["reserved bytes of the wrong length", { reserved: new Uint8Array(1) }],
  ])("refuses to encode %s", (_, wrong) => {
    const right = { small: 1, middle: 2, word: 3, address: 4n, blob: new Uint8Array(5) };
    expect(() => Sample.bytesOf({ ...right, ...wrong })).toThrow(AssertionError);
  });

  it.each<[string, Fields]>([
    ["overlap", { a: { kind: "u32", at: 0, doc: "" }, b: { kind: "u8", at: 3, doc: "" } }],
    ["end outside", { a: { kind: "u64", at: 1, doc: "" } }],
    ["start outside", { a: { kind: "u8", at: -1, doc: "" } }],
    ["have no length", { a: { kind: "bytes", at: 0, length: 0, doc: "" } }],
    ["are called reserved", { reserved: { kind: "u8", at: 0, doc: "" } }],
  ])("stops at load when fields %s", (_, fields) => {
    expect(() => layout("wrong", 8, fields)).toThrow(AssertionError);
  });

  it("documents itself, reserved bytes included, in order of position", () => {
    const Head = layout("head", 8, {
      flags: { kind: "u32", at: 4, doc: "rights" },
      type: { kind: "u8", at: 0, doc: "what to do" },
    });
    expect(Head.describe()).toBe(
      [
        "head, 8 bytes, little endian",
        "",
        "| offset | bytes | field | kind | meaning |",
        "|---|---|---|---|---|",
        "| 0 | 1 | type | u8 | what to do |",
        "| 1 | 3 | reserved | bytes | kept as found |",
        "| 4 | 4 | flags | u32 | rights |",
        "",
      ].join("\n"),
    );
  });
});
