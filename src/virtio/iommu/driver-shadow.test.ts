/** The driver's shadow against a plain sorted list that does what Linux' interval tree does. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { PFN_LAST } from "../../units.ts";
import { MappingShadow } from "./driver-shadow.ts";

interface Node {
  readonly start: number;
  readonly last: number;
  readonly phys: number;
}

/** The interval tree as a list. */
class PlainShadow {
  nodes: Node[] = [];

  insert(start: number, last: number, phys: number): void {
    const next = this.nodes.findIndex((node) => node.start > start);
    this.nodes.splice(next < 0 ? this.nodes.length : next, 0, { start, last, phys });
  }

  remove(start: number, last: number): number {
    let removed = 0;
    for (const node of [...this.nodes]) {
      if (node.last < start || node.start > last) continue;
      if (node.start < start) break;
      removed += node.last - node.start + 1;
      this.nodes.splice(this.nodes.indexOf(node), 1);
    }
    return removed;
  }

  physOf(pfn: number): number {
    const node = this.nodes.find(({ start, last }) => start <= pfn && pfn <= last);
    return node === undefined ? -1 : node.phys + pfn - node.start;
  }
}

function nodesOf(shadow: MappingShadow): Node[] {
  const nodes: Node[] = [];
  shadow.visit((start, last, phys) => {
    nodes.push({ start, last, phys });
    return Errno.OK;
  });
  return nodes;
}

const action = fc.record({
  kind: fc.constantFrom("insert", "insert", "remove", "phys"),
  start: fc.nat(60),
  pages: fc.integer({ min: 1, max: 12 }),
  phys: fc.nat(10_000),
});

function compare(actions: readonly { kind: string; start: number; pages: number; phys: number }[]) {
  const shadow = new MappingShadow();
  const plain = new PlainShadow();
  for (const { kind, start, pages, phys } of actions) {
    const last = start + pages - 1;
    if (kind === "insert") {
      // Nodes with the same start are told apart by nothing in the kernel's tree either.
      if (plain.nodes.some((node) => node.start === start)) continue;
      expect(shadow.insert(start, last, phys, 3)).toBe(true);
      plain.insert(start, last, phys);
    } else if (kind === "remove") {
      expect(shadow.remove(start, last)).toBe(plain.remove(start, last));
    } else expect(shadow.physOf(start)).toBe(plain.physOf(start));
    expect(nodesOf(shadow)).toEqual(plain.nodes);
    expect(shadow.count).toBe(plain.nodes.length);
  }
}

describe("the shadow equals a plain list", () => {
  it("with mappings that overlap", () => {
    fc.assert(fc.property(fc.array(action, { maxLength: 60 }), compare), {
      seed: 78,
      numRuns: 200,
    });
  });

  it("with mappings side by side", () => {
    const aligned = fc.array(
      action.map((one) => ({ ...one, start: one.start * 16 })),
      { maxLength: 60 },
    );
    fc.assert(fc.property(aligned, compare), { seed: 79, numRuns: 200 });
  });
});

it("the whole 64-bit space is one mapping", () => {
  const shadow = new MappingShadow();
  expect(shadow.insert(0, PFN_LAST, 0, 3)).toBe(true);
  expect(shadow.physOf(PFN_LAST)).toBe(PFN_LAST);
  expect(shadow.remove(1, PFN_LAST)).toBe(0);
  expect(shadow.remove(0, 0)).toBe(2 ** 52);
});

it("a visitor's errno stops the round and is given back", () => {
  for (const overlapping of [false, true]) {
    const shadow = new MappingShadow();
    for (const start of [1, 2, 3]) shadow.insert(start, start, start, 3);
    if (overlapping) shadow.insert(0, 9, 0, 3);
    const seen: number[] = [];
    const errno = shadow.visit((start) => {
      seen.push(start);
      return start === 2 ? Errno.EINVAL : Errno.OK;
    });
    expect(errno).toBe(Errno.EINVAL);
    expect(seen).toEqual(overlapping ? [0, 1, 2] : [1, 2]);
    shadow.clear();
    expect([shadow.count, shadow.physOf(2)]).toEqual([0, -1]);
  }
});
