import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import { beforeAll, describe, expect, it } from "vitest";
import type { IovaRules } from "../../dma/iova-rules.ts";
import { AllocationReader } from "../allocations.ts";
import { OperationColumns } from "../operation-columns.ts";
import { TraceTextReader } from "../trace-text.ts";
import { type FreeRunOptions, freeRun } from "./free-run.ts";
import { inferSchedule } from "./infer-schedule.ts";
import type { Schedule } from "./schedule.ts";
import { eventsOf, type ScheduleEvents } from "./schedule-events.ts";
import { verifyTrace } from "./verify-trace.ts";

interface Recording {
  readonly operations: OperationColumns;
  readonly events: ScheduleEvents;
  readonly cpus: number;
}

/** Reads a bundled recording, its first `lines` lines only if a number is given. */
function read(file: string, lines = Number.POSITIVE_INFINITY): Recording {
  let text = gunzipSync(readFileSync(`examples/${file}`)).toString();
  if (Number.isFinite(lines)) text = `${text.split("\n").slice(0, lines).join("\n")}\n`;
  const operations = new OperationColumns();
  const grouping = new AllocationReader((operation) => operations.add(operation));
  const reader = new TraceTextReader((event) => grouping.event(event));
  reader.push(Buffer.from(text));
  reader.end();
  grouping.end();
  return { operations, events: eventsOf(operations, reader.cpus), cpus: reader.cpus };
}

const share = (schedule: Schedule, options: FreeRunOptions = {}): number => {
  const { matched, compared } = freeRun(schedule, options);
  return matched / compared;
};

const brokenRules: readonly [string, Partial<IovaRules>][] = [
  ["a FIFO cache", { fifo: true }],
  ["no cache", { noCache: true }],
  ["no alignment", { noAlignment: true }],
  ["every search from the top", { searchFromTop: true }],
];

describe.each([
  { mode: "strict", file: "boot-strict-1cpu.txt.gz", deferred: false, allocations: 4613 },
  { mode: "lazy", file: "boot-lazy-2cpu.txt.gz", deferred: true, allocations: 4631 },
])("a recorded $mode boot", ({ file, deferred, allocations }) => {
  let recording: Recording;
  let schedule: Schedule;

  beforeAll(() => {
    recording = read(file);
    schedule = inferSchedule(recording.events, { deferred });
  });

  it("runs freely to every recorded address under the inferred schedule", () => {
    const result = freeRun(schedule);
    expect(result).toEqual({ compared: allocations, matched: allocations, misses: [] });
    expect(schedule.unexplained).toBe(0);
    expect(schedule.moves).toBeLessThan(100);
    expect(schedule.flushesInferred > 0).toBe(deferred);
  });

  it("is recognised by its mode, and verified whole", () => {
    const facts = { fromBoot: true, cpus: recording.cpus, lostEvents: false };
    const outcome = verifyTrace(recording.operations, facts)!;
    expect(outcome).toMatchObject({ compared: allocations, matched: allocations, divergences: [] });
    expect(outcome.flushesInferred !== undefined).toBe(deferred);
  });

  it.each(brokenRules)("matches less than 75 %% with %s, schedule frozen", (_, rules) => {
    expect(share(schedule, { rules })).toBeLessThan(0.75);
  });

  it.each(brokenRules)("matches less than 75 %% with %s, schedule inferred anew", (_, rules) => {
    const refitted = inferSchedule(recording.events, { deferred, rules, width: 2 });
    expect(share(refitted, { rules })).toBeLessThan(0.75);
  });

  it("is not verified after lost events", () => {
    const facts = { fromBoot: true, cpus: recording.cpus, lostEvents: true };
    expect(verifyTrace(recording.operations, facts)).toBeNull();
  });
});

describe("a recorded lazy boot on two CPUs", () => {
  const { events } = read("boot-lazy-2cpu.txt.gz");
  const schedule = inferSchedule(events, { deferred: true });

  it("matches less than 75 % when freed at the unmap, schedule frozen or inferred anew", () => {
    expect(share(schedule, { immediateFree: true })).toBeLessThan(0.75);
    expect(share(inferSchedule(events, { deferred: false }))).toBeLessThan(0.75);
  });

  it("matches less than 75 % with one cache for all CPUs, schedule frozen or inferred anew", () => {
    const rules = { oneCacheForAllCpus: true };
    expect(share(schedule, { rules })).toBeLessThan(0.75);
    expect(
      share(inferSchedule(events, { deferred: true, rules, width: 2 }), { rules }),
    ).toBeLessThan(0.75);
  });
});

describe("a recording that starts in the middle", () => {
  it("compares what it can know and counts what was free before", () => {
    const { operations, cpus } = read("nvme-randwrite.txt.gz");
    const facts = { fromBoot: false, cpus, lostEvents: false };
    const outcome = verifyTrace(operations, facts)!;
    expect(outcome.matched).toBe(outcome.compared);
    expect(outcome.compared).toBeGreaterThan(16_000);
    expect(outcome.remarks?.join()).toContain("free before the recording began");
  });

  it("leaves out the end where unmaps are missing that would tell sizes, and says so", () => {
    const { operations, cpus } = read("nvme-randwrite.txt.gz", 4000);
    const outcome = verifyTrace(operations, { fromBoot: false, cpus, lostEvents: false })!;
    expect(outcome.divergences).toEqual([]);
    expect(outcome.compared).toBeGreaterThan(1200);
    expect(outcome.remarks?.join()).toContain("are not compared: the recording ends");
  });
});

describe("a boot with one address changed", () => {
  it("reports the allocation with its line, what was expected and what came", () => {
    const { operations, cpus } = read("boot-strict-1cpu.txt.gz");
    const { allocateAt, freeAt, iovaPfn, line, pages } = operations;
    const changed = 2000;
    const at = allocateAt[changed]!;
    // A page that no allocation of the recording ever takes.
    iovaPfn[at] = 0x1000;
    iovaPfn[freeAt[changed]!] = 0x1000;
    const outcome = verifyTrace(operations, { fromBoot: true, cpus, lostEvents: false })!;
    const row = outcome.divergences.find((divergence) => divergence.line === line[at]);
    expect(row).toMatchObject({ expected: "0x1000000", waivedBy: null });
    expect(row?.what).toBe(`allocation of ${pages[at]} ${pages[at] === 1 ? "page" : "pages"}`);
  });
});
