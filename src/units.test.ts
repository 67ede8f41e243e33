import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  ADDRESS_LAST,
  addressOf,
  alignDown,
  alignUp,
  hex,
  highHalfOf,
  isAligned,
  isPowerOfTwo,
  log2Ceil,
  log2Floor,
  lowHalfOf,
  modulo,
  offsetOf,
  PFN_LAST,
  pagesOf,
  parseSize,
  pfnOf,
  pfnOfHalves,
  powerOfTwo,
  sizeText,
  trailingZeros,
} from "./units.ts";

const seed = 20_261_121;
const numRuns = 2000;
const address = fc.bigInt({ min: 0n, max: ADDRESS_LAST });
const pfn = fc.oneof(
  fc.integer({ min: 0, max: 2 ** 33 }),
  fc.maxSafeInteger().map((value) => Math.abs(value) % (PFN_LAST + 1)),
  fc.integer({ min: 0, max: 52 }).map((shift) => 2 ** shift - 1),
);
const order = fc.integer({ min: 0, max: 52 });

describe("addresses as frame and offset", () => {
  it("splits and joins every 64-bit address without loss", () => {
    fc.assert(
      fc.property(address, (value) => addressOf(pfnOf(value), offsetOf(value)) === value),
      { seed, numRuns },
    );
    expect(addressOf(pfnOf(ADDRESS_LAST), offsetOf(ADDRESS_LAST))).toBe(ADDRESS_LAST);
    expect(pfnOf(ADDRESS_LAST)).toBe(PFN_LAST);
  });

  it("refuses an address of 65 bits and a negative one", () => {
    expect(() => pfnOf(ADDRESS_LAST + 1n)).toThrow("64 bits");
    expect(() => pfnOf(-1n)).toThrow("negative");
    expect(() => addressOf(2 ** 52)).toThrow("2^52");
  });

  it("agrees with the 32-bit halves that stand on the wire", () => {
    fc.assert(
      fc.property(address, (value) => {
        const low = Number(value & 0xffff_ffffn);
        const high = Number(value >> 32n);
        const frame = pfnOfHalves(low, high);
        expect(frame).toBe(pfnOf(value));
        expect(lowHalfOf(frame)).toBe(Number(addressOf(frame) & 0xffff_ffffn));
        expect(highHalfOf(frame)).toBe(high);
      }),
      { seed, numRuns },
    );
  });
});

describe("frame arithmetic beyond 2^32", () => {
  it("aligns as bigint arithmetic does", () => {
    fc.assert(
      fc.property(pfn, order, (value, shift) => {
        const count = 2n ** BigInt(shift);
        const exact = BigInt(value);
        const down = (exact / count) * count;
        expect(BigInt(alignDown(value, Number(count)))).toBe(down);
        expect(isAligned(value, Number(count))).toBe(down === exact);
        expect(powerOfTwo(shift)).toBe(Number(count));
        expect(BigInt(modulo(value, Number(count)))).toBe(exact % count);
        const up = ((exact + count - 1n) / count) * count;
        expect(BigInt(alignUp(value, Number(count)))).toBe(up);
      }),
      { seed, numRuns },
    );
  });

  it("counts trailing zeros and logarithms as bigint arithmetic does", () => {
    fc.assert(
      fc.property(pfn, (value) => {
        const bits = value.toString(2);
        const zeros = value === 0 ? 53 : bits.length - 1 - bits.lastIndexOf("1");
        expect(trailingZeros(value)).toBe(zeros);
        if (value > 0) {
          expect(log2Floor(value)).toBe(bits.length - 1);
          expect(log2Ceil(value)).toBe(value === 1 ? 0 : (value - 1).toString(2).length);
          expect(isPowerOfTwo(value)).toBe(bits.lastIndexOf("1") === 0);
        }
      }),
      { seed, numRuns },
    );
    expect(isPowerOfTwo(0)).toBe(false);
  });

  it("counts pages of a size rounded up", () => {
    expect([0, 1, 4096, 4097].map(pagesOf)).toEqual([0, 1, 1, 2]);
  });
});

describe("sizes and addresses as text", () => {
  it.each([
    ["192GiB", 192n * 2n ** 30n],
    ["64k", 65536n],
    ["1 MB", 1048576n],
    ["4096", 4096n],
    ["0xfee0_0000", 0xfee00000n],
    ["0xFFFFFFFFFFFFFFFF", ADDRESS_LAST],
    ["16EiB", null],
    ["0x10000000000000000", null],
    ["12q", null],
    ["", null],
    ["-1", null],
    ["1.5G", null],
    ["0x10K", null],
    ["9".repeat(40), null],
  ])("reads %j as %s", (text, value) => {
    expect(parseSize(text)).toBe(value);
  });

  it.each([
    [0, "0B"],
    [1536, "1.5KiB"],
    [4096, "4KiB"],
    [206158430208, "192GiB"],
    [ADDRESS_LAST, "16EiB"],
    [1000, "1000B"],
    [100 * 1024 + 512, "100.5KiB"],
  ])("prints %s as %j", (bytes, text) => {
    expect(sizeText(bytes)).toBe(text);
  });

  it("prints hexadecimal in lower case with padding", () => {
    expect(hex(0xfee00000)).toBe("0xfee00000");
    expect(hex(0x1fn, 16)).toBe("0x000000000000001f");
  });
});
