/** Verifiers against mutated recordings: whatever comes, rows add up and only StackError is thrown. */
import { describe, expect, it } from "vitest";
import { StackError } from "../../errors.ts";
import { Random } from "../../random.ts";
import { MapEvents } from "../map-events.ts";
import type { Checker } from "./checker.ts";
import { exampleText } from "./checking.suite.ts";
import { QemuChecker } from "./qemu-checker.ts";
import { RequestChecker } from "./request-checker.ts";
import { TraceChecker } from "./trace-checker.ts";
import { VfioMapTimeChecker } from "./vfio-map-time-checker.ts";
import { VfioType1Checker } from "./vfio-type1-checker.ts";

const ROUNDS = 150;
const LINES = 400;

const sources: readonly (readonly [string, string, () => Checker])[] = [
  ["traces", "boot-lazy-2cpu.txt.gz", () => new TraceChecker("trace", null)],
  ["QEMU logs", "qemu-virtio-iommu-strict.log.gz", () => new QemuChecker("log")],
  ["requests", "virtio-iommu-requests.jsonl.gz", () => new RequestChecker("requests")],
  ["VFIO calls", "vfio-type1-amd.jsonl.gz", () => new VfioType1Checker("calls")],
];

/** Lines of a recording, some dropped, doubled, swapped, or with digits changed. */
function mutated(random: Random, lines: readonly string[]): string {
  const start = random.chance(1, 2) ? 0 : random.below(lines.length);
  const picked = lines.slice(start, start + LINES);
  const out: string[] = [];
  for (const line of picked) {
    const sort = random.below(40);
    if (sort === 0) continue;
    if (sort === 1) out.push(line);
    if (sort === 2 && out.length > 0) out.splice(random.below(out.length), 0, line);
    if (sort < 8) {
      const at = random.below(line.length + 1);
      const digit = random.below(16).toString(16);
      out.push(line.slice(0, at) + digit + line.slice(at + 1));
    } else {
      out.push(line);
    }
  }
  return out.join("\n");
}

/** A verifier of mappings with their times that has a trace beside it. */
function withTrace(random: Random): Checker {
  const checker = new VfioMapTimeChecker("map-time");
  const lines = exampleText("vfio-map-time-events.txt.gz").split("\n");
  const events = new MapEvents();
  events.push(new TextEncoder().encode(mutated(random, lines)));
  events.end();
  const offer = () => checker.offer({ file: "trace", events });
  return {
    lines: 0,
    push: (chunk) => checker.push(chunk),
    end: () => {
      offer();
      return checker.end();
    },
  };
}

/** A 64-bit number of any size, as recordings write it. */
function wide(random: Random): string {
  const bits = BigInt(random.below(65));
  const word = (BigInt(random.below(2 ** 32)) << 32n) | BigInt(random.below(2 ** 32));
  const value = bits === 0n ? 0n : word >> (64n - bits);
  return `0x${(random.chance(1, 2) ? (value >> 12n) << 12n : value).toString(16)}`;
}

/** The two first lines of a container that no machine has, and calls on it. */
function oddContainer(random: Random): string {
  const pages = 1 + random.below(40);
  const sorts = Array.from({ length: pages }, () => "rwnx"[random.below(4)]!).join("");
  const edges = new Set(Array.from({ length: random.below(8) }, () => wide(random)));
  const sorted = [...edges].sort((a, b) => (BigInt(a) < BigInt(b) ? -1 : 1));
  const pairs = sorted.flatMap((last, at) => (at % 2 === 1 ? [[sorted[at - 1]!, last]] : []));
  const open = {
    op: "open",
    type: random.chance(3, 4) ? 3 : random.below(9),
    memlock: random.chance(1, 2) ? -1 : random.below(2 ** 20),
    api: 0,
    group_flags: 1,
    regions: { buf: { pages, sort: sorts } },
  };
  const caps = [
    { id: 3, version: 1, dma_avail: random.below(9) },
    { id: 1, version: 1, iova_ranges: pairs },
  ];
  const lines: object[] = [open, { op: "info", flags: 3, pgsizes: wide(random), caps }];
  for (let count = 30; count > 0; count -= 1) {
    const range = { iova: wide(random), size: wide(random), errno: 0 };
    const flags = random.below(8);
    const bitmap = { pgsize: wide(random), bitmap_size: random.below(2 ** 20) };
    const sort = random.below(4);
    if (sort < 2) {
      lines.push({ op: "map", argsz: 32, region: "buf", offset: "0x0", ...range, flags: 3 });
    } else if (sort === 2) {
      lines.push({ op: "unmap", ...range, flags, unmapped: "0x0", ...(flags & 1 ? bitmap : {}) });
    } else {
      lines.push({ op: "dirty", argsz: 48, ...range, ...bitmap, flags: 1 << random.below(3) });
    }
  }
  lines.push({ op: "final", dma_avail: 0 });
  return lines.map((line) => `${JSON.stringify(line)}\n`).join("");
}

describe("the verifier of VFIO calls", () => {
  it("takes containers that no machine has", () => {
    const random = new Random(13);
    let compared = 0;
    for (let round = 0; round < 4 * ROUNDS; round += 1) {
      const checker = new VfioType1Checker("odd");
      checker.push(new TextEncoder().encode(oddContainer(random)));
      const { tally } = checker.end();
      expect(tally.matched + tally.unwaived).toBe(tally.compared);
      compared += tally.compared;
    }
    expect(compared).toBeGreaterThan(ROUNDS * 20);
  });
});

describe("the verifier of VFIO mappings", () => {
  it("takes mutated recordings and mutated traces", () => {
    const random = new Random(12);
    const lines = exampleText("vfio-map-time.jsonl.gz").split("\n");
    let compared = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const checker = withTrace(random);
      checker.push(new TextEncoder().encode(mutated(random, lines)));
      const { tally } = checker.end();
      expect(tally.matched + tally.waived + tally.unwaived).toBe(tally.compared);
      compared += tally.compared;
    }
    expect(compared).toBeGreaterThan(ROUNDS * 4);
  });
});

describe.each(sources)("the verifier of %s", (_name, example, make) => {
  it("takes mutated recordings: every row is counted once", () => {
    const random = new Random(11);
    const lines = exampleText(example).split("\n");
    let compared = 0;
    for (let round = 0; round < ROUNDS; round += 1) {
      const bytes = new TextEncoder().encode(mutated(random, lines));
      const checker = make();
      try {
        checker.push(bytes);
        const { tally } = checker.end();
        expect(tally.matched + tally.waived + tally.unwaived).toBe(tally.compared);
        expect(tally.unwaived).toBeGreaterThanOrEqual(0);
        compared += tally.compared;
      } catch (error) {
        if (!(error instanceof StackError)) throw error;
        expect(error.kind).toBe("input");
      }
    }
    expect(compared).toBeGreaterThan(ROUNDS * 20);
  });
});
