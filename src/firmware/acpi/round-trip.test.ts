/** Random machines written as tables and read back are the same machines; hostile tables end. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  type AmdIommu,
  EMPTY_MACHINE,
  type Machine,
  type NumaNode,
  type RidRange,
  type SmmuIommu,
  type VirtioPciIommu,
} from "../../topology/machine.ts";
import { laterWins } from "../rid-spans.ts";
import { buildTable } from "./build.ts";
import { range } from "./rich-machine.suite.ts";
import { codesOf, le, reading, tableOf } from "./tables.suite.ts";

const common = { node: null, includesRest: false, endpoints: [], interruptSources: [] };

/** Disjoint, ascending ranges that do not touch, on some segments. */
const ranges = fc
  .array(fc.tuple(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 0, max: 40 })), {
    minLength: 1,
    maxLength: 60,
  })
  .chain((gaps) =>
    fc.record({
      gaps: fc.constant(gaps),
      ids: fc.array(fc.integer({ min: 0, max: 0xffff_0000 }), {
        minLength: gaps.length,
        maxLength: gaps.length,
      }),
    }),
  )
  .map(({ gaps, ids }) => {
    let next = 0;
    return gaps.map(([gap, more], index): RidRange => {
      const first = next + gap;
      next = first + more + 1;
      return range(first, first + more, ids[index]);
    });
  });

function again(
  machine: Partial<Machine>,
  ...kinds: ("viot" | "ivrs" | "iort" | "srat" | "slit")[]
) {
  const full = { ...EMPTY_MACHINE, ...machine };
  const { machine: found, findings } = reading(...kinds.map((kind) => buildTable(kind, full)));
  expect(findings.flat()).toEqual([]);
  return found;
}

describe("a random machine comes back", () => {
  it("from VIOT: ranges with any ids", () => {
    fc.assert(
      fc.property(ranges, (translates) => {
        const iommu: VirtioPciIommu = {
          ...common,
          kind: "virtio-pci",
          name: "0000:00:04.0",
          segment: 0,
          rid: 0x20,
          translates,
        };
        expect(again({ iommus: [iommu] }, "viot").iommus).toEqual([iommu]);
      }),
      { seed: 11, numRuns: 150 },
    );
  });

  it("from IORT: ranges with any stream ids, gaps to the ITS", () => {
    fc.assert(
      fc.property(ranges, fc.boolean(), (translates, isCoherent) => {
        const smmu: SmmuIommu = {
          ...common,
          kind: "smmuv3",
          name: "smmu3.0x0000000009050000",
          registers: { start: 0x905_0000n, last: 0x906_ffffn },
          isCoherent,
          interrupts: [1, 2, 3, 4],
          translates,
        };
        expect(again({ iommus: [smmu] }, "iort").iommus).toEqual([smmu]);
      }),
      { seed: 12, numRuns: 150 },
    );
  });

  it("from IVRS: functions and ranges under their own ids, single ones with an alias", () => {
    fc.assert(
      fc.property(ranges, fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }), (some, features) => {
        // An alias lies behind all functions, so that none of them is one, and is listed, too.
        const alias = 0xfff0;
        const translates = some.map((one) =>
          one.firstRid === one.lastRid
            ? { ...one, firstId: alias }
            : { ...one, firstId: one.firstRid },
        );
        const amd: AmdIommu = {
          ...common,
          kind: "amd",
          name: "ivhd0",
          segment: 0,
          rid: 2,
          capabilityOffset: 0x40,
          registers: { start: 0xfeb8_0000n, last: 0xfeb8_3fffn },
          features,
          features2: 0n,
          translates: [...translates, range(alias, alias)],
          interruptSources: [{ kind: "ioapic", id: 1, segment: 0, rid: 0xa0 }],
        };
        expect(again({ iommus: [amd] }, "ivrs").iommus).toEqual([amd]);
      }),
      { seed: 13, numRuns: 150 },
    );
  });

  it("from SRAT and SLIT: nodes with any domains, memory and distances", () => {
    const shape = fc.record({
      domains: fc.uniqueArray(fc.integer({ min: 0, max: 60 }), { minLength: 1, maxLength: 8 }),
      distances: fc.array(fc.integer({ min: 11, max: 255 }), { minLength: 64, maxLength: 64 }),
      sizes: fc.array(fc.bigInt({ min: 1n, max: 2n ** 40n }), { minLength: 8, maxLength: 8 }),
      architecture: fc.constantFrom("x86_64", "aarch64", "riscv64"),
      firstCpu: fc.constantFrom(0, 200, 70_000),
    });
    fc.assert(
      fc.property(shape, ({ domains, distances, sizes, architecture, firstCpu }) => {
        let next = 0n;
        const nodes = domains.map((proximityDomain, id): NumaNode => {
          const start = next;
          next += sizes[id]!;
          return {
            id,
            proximityDomain,
            memory: [{ start, last: next - 1n, hotPluggable: id === 1, nonVolatile: id === 2 }],
            memoryBytes: sizes[id]!,
            cpus: [id],
            firmwareCpuIds: [firstCpu + id],
            distances: domains.map((_domain, to) => (to === id ? 10 : distances[8 * id + to]!)),
          };
        });
        expect(again({ architecture, nodes }, "srat", "slit").nodes).toEqual(nodes);
      }),
      { seed: 14, numRuns: 150 },
    );
  });
});

describe("spans cut so that the later wins", () => {
  it("own every number as a plain painter has it", () => {
    const spans = fc.array(
      fc.tuple(fc.integer({ min: 0, max: 60 }), fc.integer({ min: 0, max: 30 })),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(spans, (given) => {
        const list = given.map(([first, more], value) => ({ first, last: first + more, value }));
        const painted = new Array<number>(100).fill(-1);
        for (const { first, last, value } of list) painted.fill(value, first, last + 1);
        const cut = new Array<number>(100).fill(-1);
        let before = -1;
        for (const { first, last, value } of laterWins(list)) {
          expect(first).toBeGreaterThan(before);
          before = last;
          cut.fill(value, first, last + 1);
        }
        expect(cut).toEqual(painted);
      }),
      { seed: 15, numRuns: 500 },
    );
  });
});

describe("a hostile table ends", () => {
  const complex = (segment: number, reference: number, count: number) => {
    const mapping = [0, 0xffff, 0, reference, 0].flatMap((value) => le(value, 4));
    const head = [2, ...le(36 + 20 * count, 2), 3, ...le(0, 4), ...le(count, 4), ...le(36, 4)];
    const fixed = [...le(1, 4), 0, 0, 0, 3, ...le(0, 4), ...le(segment, 4), 64, 0, 0, 0];
    return [...head, ...fixed, ...Array.from({ length: count }, () => mapping).flat()];
  };

  it("IORT whose nodes refer to each other by hundreds of mappings", () => {
    const other = 48 + 36 + 20 * 600;
    const head = [...le(2, 4), ...le(48, 4), ...le(0, 4)];
    const bytes = tableOf("IORT", 5, head, complex(0, other, 600), complex(1, 48, 600));
    expect(codesOf(bytes)).toEqual(["iort/cycle", "iort/too-many-steps"]);
  });

  it("IVRS whose aliases make a range of each function of many segments", () => {
    const block = (unit: number) => {
      const range = [67, 0, 0, 0, 0, 1, 0, 0, 4, 0xff, 0xff, 0];
      const head = [0x10, 0, ...le(36, 2), 2 + unit, 0, ...new Array(10).fill(0), unit];
      return [...head, ...new Array(7).fill(0), ...range];
    };
    const blocks = Array.from({ length: 6 }, (_, unit) => block(unit));
    const bytes = tableOf("IVRS", 2, new Array(12).fill(0), ...blocks);
    expect(codesOf(bytes)).toContain("ivrs/too-many-ranges");
  });

  it("VIOT whose ranges span all segments", () => {
    const head = [...le(7, 2), 48, 0, ...le(0, 8), 3, 0, 16, 0, ...new Array(12).fill(0)];
    const all = [
      1,
      0,
      24,
      0,
      ...le(0, 4),
      0,
      0,
      0xff,
      0xff,
      0,
      0,
      0xff,
      0xff,
      48,
      0,
      0,
      0,
      0,
      0,
      0,
      0,
    ];
    const bytes = tableOf("VIOT", 0, head, ...Array.from({ length: 6 }, () => all));
    expect(codesOf(bytes)).toContain("viot/too-many-segments");
  });
});
