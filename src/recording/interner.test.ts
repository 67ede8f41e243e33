import { describe, expect, it } from "vitest";
import { ascii } from "./ascii.ts";
import { Interner } from "./interner.ts";

function intern(interner: Interner, text: string): number {
  const bytes = ascii(`<${text}>`);
  return interner.intern(bytes, 1, bytes.length - 1);
}

describe("Interner", () => {
  it("numbers strings by first appearance and knows them again", () => {
    const interner = new Interner();
    expect(["fio", "kworker/0:1H", "fio", ""].map((text) => intern(interner, text))).toEqual([
      0, 1, 0, 2,
    ]);
    expect(interner.name(1)).toBe("kworker/0:1H");
    expect(interner.name(99)).toBe("");
  });

  it("keeps thousands apart", () => {
    const interner = new Interner(10_000);
    for (let index = 0; index < 5000; index += 1) {
      expect(intern(interner, `task-${index}`)).toBe(index);
    }
    for (let index = 0; index < 5000; index += 1) {
      expect(intern(interner, `task-${index}`)).toBe(index);
    }
  });

  it("gives every string past the limit one last number", () => {
    const interner = new Interner(2);
    expect(["a", "b", "c", "d", "a"].map((text) => intern(interner, text))).toEqual([
      0, 1, 2, 2, 0,
    ]);
    expect(interner.name(2)).toBe("(others)");
    expect(interner.size).toBe(3);
  });

  it("counts what it is told to, most frequent first", () => {
    const interner = new Interner();
    for (const text of ["x", "y", "y", "z"]) interner.count(intern(interner, text));
    intern(interner, "never");
    expect(interner.counts()).toEqual([
      { name: "y", count: 2 },
      { name: "x", count: 1 },
      { name: "z", count: 1 },
    ]);
  });
});
