import { describe, expect, it } from "vitest";
import { alignmentOf, roomOf } from "./gap.ts";

/** Whether a size fits at a start aligned to it, tried start by start. */
function fits(start: number, end: number, size: number): boolean {
  let alignment = 1;
  while (alignment < size) alignment *= 2;
  for (let at = start; at + size <= end; at += 1) if (at % alignment === 0) return true;
  return false;
}

describe("room of a gap", () => {
  it("every gap in 0 … 80: exactly the sizes up to the room fit", () => {
    for (let start = 0; start <= 80; start += 1) {
      for (let end = start; end <= 80; end += 1) {
        const room = roomOf(start, end);
        for (let size = 1; size <= 81; size += 1) {
          if (fits(start, end, size) === size <= room) continue;
          expect({ start, end, size, room }).toBe("consistent");
        }
      }
    }
  });

  it("an empty gap has none, the whole 64-bit space holds 2^52 pages", () => {
    expect(roomOf(7, 7)).toBe(0);
    expect(roomOf(0, 2 ** 52)).toBe(2 ** 52);
    expect(roomOf(1, 2 ** 52)).toBe(2 ** 51);
  });

  it("near the top of the space it is exact to the page", () => {
    expect(roomOf(2 ** 52 - 3, 2 ** 52)).toBe(2);
    expect(roomOf(2 ** 52 - 4, 2 ** 52 - 1)).toBe(3);
  });

  it("sizes 1, 2, 3, 33 and 2^40 + 1 are aligned to 1, 2, 4, 64 and 2^41", () => {
    expect([1, 2, 3, 33, 2 ** 40 + 1].map(alignmentOf)).toEqual([1, 2, 4, 64, 2 ** 41]);
  });
});
