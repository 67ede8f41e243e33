import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type AllocationOptions, AllocationReader, type Oddity } from "./allocations.ts";
import { Operation, OperationKind } from "./operation.ts";
import { OperationColumns } from "./operation-columns.ts";
import { TraceEvent, TraceKind } from "./trace-event.ts";

const kindNames = Object.keys(OperationKind);

interface Step {
  readonly map?: readonly [iova: number, pages: number];
  readonly unmap?: readonly [iova: number, pages: number, removed?: number];
  readonly cpu?: number;
  readonly pid?: number;
}

interface Grouped {
  /** `kind allocation iova+pages`, with `segment` for map events and `?` for open ones. */
  readonly texts: string[];
  readonly oddities: string[];
  readonly reader: AllocationReader;
}

function eventOf(step: Step, line: number): TraceEvent {
  const event = new TraceEvent();
  const [iova, pages, removed] = step.map ?? step.unmap!;
  event.kind = step.map === undefined ? TraceKind.unmap : TraceKind.map;
  event.line = line;
  event.timeUs = line * 10;
  event.cpu = step.cpu ?? 0;
  event.pid = step.pid ?? 1;
  event.iovaPfn = iova;
  event.physPfn = 0x1000 + line;
  event.pages = pages;
  event.unmappedPages = step.map === undefined ? (removed ?? pages) : 0;
  return event;
}

function group(steps: readonly Step[], options: AllocationOptions = {}): Grouped {
  const texts: string[] = [];
  const oddities: string[] = [];
  const reader = new AllocationReader(
    (operation) => {
      const { kind, allocation, iovaPfn, pages, segmentPfn, segmentPages, open } = operation;
      const segment = kind <= OperationKind.extend ? ` (${segmentPfn}+${segmentPages})` : "";
      texts.push(
        `${kindNames[kind]} ${allocation} ${iovaPfn}+${pages}${segment}${open ? " ?" : ""}`,
      );
    },
    { ...options, oddity: (oddity, event) => oddities.push(`${event.line}: ${oddity}`) },
  );
  for (const [index, step] of steps.entries()) reader.event(eventOf(step, index + 1));
  reader.end();
  return { texts, oddities, reader };
}

describe("grouping into allocations", () => {
  it("makes one allocation of one map and its unmap", () => {
    const { texts } = group([{ map: [100, 4] }, { unmap: [100, 4] }]);
    expect(texts).toEqual(["allocate 0 100+4 (100+4)", "free 0 100+4"]);
  });

  it("makes one allocation of all map events that one unmap covers, in the order of events", () => {
    const { texts, reader } = group([
      { map: [100, 1] },
      { map: [50, 2] },
      { map: [101, 3] },
      { unmap: [50, 2] },
      { map: [104, 4] },
      { unmap: [100, 8] },
    ]);
    expect(texts).toEqual([
      "allocate 0 100+8 (100+1)",
      "allocate 1 50+2 (50+2)",
      "extend 0 100+8 (101+3)",
      "free 1 50+2",
      "extend 0 100+8 (104+4)",
      "free 0 100+8",
    ]);
    expect(reader.counts).toMatchObject({ allocations: 2, segmented: 1, neverUnmapped: 0 });
    expect(reader.counts).toMatchObject({ livePeak: 3, livePagesPeak: 8 });
  });

  it("leaves open what is never unmapped", () => {
    const { texts, reader } = group([{ map: [10, 1] }, { map: [9, 1] }]);
    expect(texts).toEqual(["allocate 0 10+1 (10+1) ?", "allocate 1 9+1 (9+1) ?"]);
    expect(reader.counts.neverUnmapped).toBe(2);
  });

  it("takes an open event that no allocation could start at for a continuation", () => {
    const { texts } = group([{ map: [16, 4] }, { map: [20, 12] }, { map: [32, 4] }]);
    expect(texts).toEqual([
      "allocate 0 16+16 (16+4) ?",
      "extend 0 16+16 (20+12) ?",
      "allocate 2 32+4 (32+4) ?",
    ]);
  });

  it("infers what was mapped before the recording started", () => {
    const { texts, reader, oddities } = group([
      { unmap: [100, 16] },
      { map: [100, 16] },
      { unmap: [100, 16] },
    ]);
    expect(texts).toEqual(["freeBefore -1 100+16", "allocate 1 100+16 (100+16)", "free 1 100+16"]);
    expect(reader.counts).toMatchObject({ before: 1, beforePages: 16 });
    expect(oddities).toEqual([]);
  });

  it("infers the front of an allocation whose first segments came before the recording", () => {
    const { texts, reader, oddities } = group([{ map: [104, 4] }, { unmap: [100, 8] }]);
    expect(texts).toEqual(["allocate 0 104+4 (104+4) ?", "free 0 104+4", "freeBefore -1 100+4"]);
    expect(reader.counts.straddling).toBe(1);
    expect(oddities).toEqual([]);
  });

  it("tells an unmap of what was unmapped already", () => {
    const { texts, oddities } = group([
      { map: [100, 1] },
      { unmap: [100, 1] },
      { unmap: [100, 1] },
      { unmap: [7, 1] },
      { unmap: [7, 1] },
    ]);
    expect(texts).toHaveLength(3);
    expect(oddities).toEqual(["3: unmaps what is not mapped", "5: unmaps what is not mapped"]);
  });

  it("keeps the rest of a mapping that is unmapped in parts", () => {
    const { texts, oddities, reader } = group([
      { map: [100, 8] },
      { unmap: [102, 2] },
      { unmap: [100, 2] },
      { unmap: [104, 4] },
    ]);
    expect(texts).toEqual([
      "allocate 0 100+8 (100+8) ?",
      "shrink 0 102+2",
      "shrink 0 100+2",
      "free 0 100+8",
    ]);
    expect(oddities).toEqual(["2: unmaps a part of a mapping"]);
    expect(reader.live.size).toBe(0);
    expect(reader.live.totalPages).toBe(0);
    expect(reader.counts.neverUnmapped).toBe(0);
  });

  it("goes by what the driver removed where that differs from the request", () => {
    const { texts, oddities } = group([{ map: [100, 4] }, { unmap: [100, 16, 4] }]);
    expect(texts).toEqual(["allocate 0 100+4 (100+4)", "free 0 100+4"]);
    expect(oddities).toEqual(["2: driver removed another size than asked"]);
  });

  it("skips sizes of zero, parts of pages and ranges past the end", () => {
    const odd = eventOf({ map: [5, 1] }, 9);
    odd.iovaOffset = 1;
    const { texts, oddities, reader } = group([
      { map: [1, 0] },
      { map: [2 ** 52 - 1, 2] },
      { unmap: [1, 0] },
      { map: [2 ** 52 - 1, 1] },
    ]);
    reader.event(odd);
    expect(texts).toEqual(["allocate 0 4503599627370495+1 (4503599627370495+1) ?"]);
    expect(oddities).toEqual([
      "1: size is zero",
      "2: runs past the end of the address space",
      "3: size is zero",
      "9: not a whole number of pages",
    ]);
  });

  it("keeps equal addresses of two domains apart, by CPU where it can", () => {
    const { texts, oddities } = group([
      { map: [100, 1], cpu: 0 },
      { map: [100, 1], cpu: 1 },
      { unmap: [100, 1], cpu: 1 },
      { unmap: [100, 1], cpu: 0 },
    ]);
    expect(texts.slice(2)).toEqual(["free 1 100+1", "free 0 100+1"]);
    expect(oddities).toEqual(["2: overlaps a live mapping"]);
  });

  it("finds an overlap below mappings that overlap already", () => {
    const { oddities } = group([
      { map: [0x1000, 100] },
      { map: [0x1010, 4] },
      { map: [0x1020, 4] },
      { map: [0x1064, 4] },
    ]);
    expect(oddities.map((text) => text.slice(0, 2))).toEqual(["2:", "3:"]);
  });

  it("forgets the oldest of very many mappings with one address", () => {
    const steps = Array.from({ length: 1000 }, (): Step => ({ map: [100, 1] }));
    const { texts, reader } = group(steps);
    expect(texts).toHaveLength(1000);
    expect(reader.live.size).toBeLessThan(100);
    expect(reader.counts.forgotten).toBe(1000 - reader.live.size);
  });
});

describe("the window of operations", () => {
  it("lets long-lived allocations go at its bound, and frees them later", () => {
    const steps: Step[] = [{ map: [5000, 4] }];
    for (let turn = 0; turn < 300; turn += 1) {
      steps.push({ map: [10, 1] }, { unmap: [10, 1] });
    }
    steps.push({ unmap: [5000, 4] });
    const { texts } = group(steps, { window: 256 });
    expect(texts[0]).toBe("allocate 0 5000+4 (5000+4) ?");
    expect(texts.at(-1)).toBe("free 0 5000+4");
    expect(texts).toHaveLength(602);
  });

  it("counts an unmap of several allocations that were told apart at the bound", () => {
    const steps: Step[] = [{ map: [4096, 4] }, { map: [4100, 4] }];
    for (let turn = 0; turn < 300; turn += 1) {
      steps.push({ map: [10, 1] }, { unmap: [10, 1] });
    }
    steps.push({ unmap: [4096, 8] });
    const { texts, reader } = group(steps, { window: 256 });
    expect(texts.slice(-2)).toEqual(["free 0 4096+4", "free 1 4100+4"]);
    expect(reader.counts.lateGroups).toBe(1);
  });
});

/** Allocations made and freed in a way that a kernel can: no overlap, segments in ascending order. */
const lives = fc.array(
  fc.record({
    segments: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 4 }),
    at: fc.integer({ min: 0, max: 1000 }),
    length: fc.integer({ min: 1, max: 200 }),
  }),
  { minLength: 1, maxLength: 60 },
);

describe("grouping of random lives", () => {
  it("gives back every allocation with its size, times and segments", () => {
    fc.assert(
      fc.property(lives, (drawn) => {
        const events: { at: number; step: Step; life: number }[] = [];
        for (const [life, { segments, at, length }] of drawn.entries()) {
          const iova = 1000 + life * 100;
          let next = iova;
          for (const [index, pages] of segments.entries()) {
            events.push({ at: at + index, step: { map: [next, pages], pid: life }, life });
            next += pages;
          }
          const end = at + segments.length + length;
          events.push({ at: end, step: { unmap: [iova, next - iova] }, life });
        }
        events.sort((a, b) => a.at - b.at);
        const columns = new OperationColumns();
        const reader = new AllocationReader((operation) => columns.add(operation));
        for (const [index, { step }] of events.entries()) reader.event(eventOf(step, index + 1));
        reader.end();

        expect(columns.allocations).toBe(drawn.length);
        expect(columns.count).toBe(events.length);
        const lines = [...columns.line.subarray(0, columns.count)];
        expect(lines).toEqual(events.map((_, index) => index + 1));
        for (let number = 0; number < columns.allocations; number += 1) {
          const made = columns.allocateAt[number]!;
          const { life } = events[made]!;
          const pages = drawn[life]!.segments.reduce((sum, size) => sum + size, 0);
          expect(columns.iovaPfn[made]).toBe(1000 + life * 100);
          expect(columns.pages[made]).toBe(pages);
          expect(columns.kind[made]).toBe(OperationKind.allocate);
          const freed = columns.freeAt[number]!;
          expect(events[freed]).toMatchObject({
            life,
            step: { unmap: [1000 + life * 100, pages] },
          });
        }
      }),
      { seed: 4, numRuns: 100 },
    );
  });
});

describe("any sequence of events", () => {
  it("is grouped without a crash, every operation once and in order", () => {
    const step = fc.record({
      isMap: fc.boolean(),
      at: fc.integer({ min: 0, max: 40 }),
      pages: fc.integer({ min: 0, max: 12 }),
      cpu: fc.integer({ min: 0, max: 1 }),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (drawn) => {
        const seen: Operation[] = [];
        const oddities: Oddity[] = [];
        const reader = new AllocationReader(
          (operation) => seen.push(Object.assign(new Operation(), operation)),
          { window: 256, oddity: (oddity) => oddities.push(oddity) },
        );
        for (const [index, { isMap, at, pages, cpu }] of drawn.entries()) {
          const range = [at, pages] as const;
          reader.event(eventOf(isMap ? { map: range, cpu } : { unmap: range, cpu }, index + 1));
        }
        reader.end();
        const maps = seen.filter(({ kind }) => kind <= OperationKind.extend);
        const skipped = drawn.filter(({ isMap, pages }) => isMap && pages === 0).length;
        expect(maps).toHaveLength(reader.counts.maps - skipped);
        for (let index = 1; index < seen.length; index += 1) {
          expect(seen[index]!.line).toBeGreaterThanOrEqual(seen[index - 1]!.line);
        }
        const made = new Set<number>();
        const freed = new Set<number>();
        for (const { kind, allocation } of seen) {
          if (kind === OperationKind.allocate) made.add(allocation);
          if (kind === OperationKind.freeBefore) continue;
          expect(made.has(allocation)).toBe(true);
          expect(freed.has(allocation)).toBe(false);
          if (kind === OperationKind.free) freed.add(allocation);
        }
        expect(made.size).toBe(reader.counts.allocations);
        expect(made.size - freed.size).toBe(reader.counts.neverUnmapped);
      }),
      { seed: 5, numRuns: 150 },
    );
  });
});
