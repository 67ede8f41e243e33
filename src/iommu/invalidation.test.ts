import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { PFN_LAST } from "../units.ts";
import { blockMask, MASK_ALL } from "./invalidation.ts";

/** The mask as calculate_psi_aligned_address computes it: with bit operations on 64 bits. */
function maskByBits(firstPfn: number, lastPfn: number): number {
  const pages = BigInt(lastPfn - firstPfn + 1);
  let aligned = 1n;
  let mask = 0;
  while (aligned < pages) {
    aligned <<= 1n;
    mask += 1;
  }
  if ((BigInt(firstPfn) & (aligned - 1n)) === 0n) return mask;
  const shared = BigInt.asUintN(64, ~(BigInt(firstPfn) ^ BigInt(lastPfn)) & ~(aligned - 1n));
  let bit = 0;
  while (((shared >> BigInt(bit)) & 1n) === 0n) bit += 1;
  return Math.min(bit, MASK_ALL);
}

describe("blockMask", () => {
  it.each([
    [0x1000, 0x1000, 0],
    [0x1000, 0x1001, 1],
    [0x1001, 0x1002, 2],
    [0x0fff, 0x1000, 13],
    [0, PFN_LAST, MASK_ALL],
    [2 ** 51 - 1, 2 ** 51, MASK_ALL],
    [PFN_LAST, PFN_LAST, 0],
  ])("of frames %d … %d is %d", (first, last, mask) => {
    expect(blockMask(first, last)).toBe(mask);
  });

  it("covers the range, is no wider than needed, and is what the kernel's bit arithmetic gives", () => {
    const anyPfn = fc.oneof(
      fc.integer({ min: 0, max: PFN_LAST }),
      fc.integer({ min: 0, max: 4096 }).map((low) => 2 ** 32 - 2048 + low),
    );
    const length = fc
      .integer({ min: 0, max: 40 })
      .chain((bits) => fc.integer({ min: 1, max: 2 ** bits }));
    const property = fc.property(anyPfn, length, (first, pages) => {
      const last = Math.min(first + pages - 1, PFN_LAST);
      const mask = blockMask(first, last);
      const start = Math.floor(first / 2 ** mask) * 2 ** mask;
      expect(start + 2 ** mask - 1).toBeGreaterThanOrEqual(last);
      const half = 2 ** mask / 2;
      if (mask > 0) expect(Math.floor(first / half)).not.toBe(Math.floor(last / half));
      expect(mask).toBe(maskByBits(first, last));
    });
    fc.assert(property, { seed: 20261121, numRuns: 2000 });
  });
});
