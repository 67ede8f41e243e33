import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TableList } from "../iommu/gather.ts";
import { CountingMeter } from "../meter.ts";
import {
  FlushQueue,
  type FlushQueueKind,
  type FlushQueueObserver,
  type FlushQueueOptions,
} from "./flush-queue.ts";

interface Bench {
  readonly queue: FlushQueue;
  /** Everything that reached the sink, the timer and the observer, in order. */
  readonly log: string[];
  onFlush: () => void;
}

function bench(kind: FlushQueueKind, cpus: number, more: Partial<FlushQueueOptions> = {}): Bench {
  const log: string[] = [];
  const made: Bench = {
    log,
    onFlush: () => {},
    queue: new FlushQueue({
      kind,
      cpus,
      sink: {
        flushIotlbAll: () => {
          log.push("flush");
          made.onFlush();
        },
        release: (pfn, pages, tables, cpu) => {
          const list = tables === null ? "" : ` tables ${tables.join(",")}`;
          log.push(`release ${pfn}+${pages} on ${cpu}${list}`);
        },
      },
      timer: { arm: (dueMs) => log.push(`arm ${dueMs}`) },
      ...more,
    }),
  };
  return made;
}

describe("ring", () => {
  it("per CPU: 255 unmaps do not flush, the 256th flushes once, frees all, then queues (row 64)", () => {
    const { queue, log } = bench("per-cpu", 4);
    for (let pfn = 1; pfn <= 255; pfn += 1) queue.queue(2, pfn, 1, null, 0);
    expect(log).toEqual(["arm 10"]);
    expect(queue.length(2)).toBe(255);
    queue.queue(2, 256, 1, null, 0);
    expect(log.slice(1, 3)).toEqual(["flush", "release 1+1 on 2"]);
    expect(log.filter((line) => line === "flush")).toHaveLength(1);
    expect(log).toHaveLength(1 + 1 + 255);
    expect(queue.length(2)).toBe(1);
    expect(queue.counts.flushesFull).toBe(1);
  });

  it("single: 32767 unmaps of any CPUs do not flush, the 32768th does once (row 65)", () => {
    const { queue, log } = bench("single", 4);
    for (let pfn = 1; pfn <= 32_767; pfn += 1) queue.queue(pfn % 4, pfn, 1, null, 0);
    expect(log).toEqual(["arm 1000"]);
    queue.queue(1, 32_768, 1, null, 0);
    expect(log.filter((line) => line === "flush")).toHaveLength(1);
    expect(log.at(-1)).toBe("release 32767+1 on 1");
    expect(queue.length(0)).toBe(1);
  });

  it("an overflow of one CPU does not touch the others' rings, which drain at their next entry", () => {
    const { queue, log } = bench("per-cpu", 2, { entries: 4 });
    queue.queue(0, 100, 1, null, 0);
    for (let pfn = 1; pfn <= 4; pfn += 1) queue.queue(1, pfn, 1, null, 1);
    expect(queue.length(0)).toBe(1);
    queue.queue(0, 101, 1, null, 2);
    expect(log.at(-1)).toBe("release 100+1 on 0");
    expect(queue.length(0)).toBe(1);
  });

  it("an entry queued while a flush runs survives it and goes with the next (row 66)", () => {
    const made = bench("per-cpu", 2, { entries: 4 });
    const { queue, log } = made;
    made.onFlush = () => {
      made.onFlush = () => {};
      queue.queue(0, 50, 1, null, 5);
    };
    queue.queue(1, 1, 1, null, 0);
    queue.onTimer(1, 10);
    expect(log).toContain("release 1+1 on 1");
    expect(queue.length(0)).toBe(1);
    queue.onTimer(1, 20);
    expect(log.at(-1)).toBe("release 50+1 on 1");
    expect(queue.length(0)).toBe(0);
  });

  it("counters pass 2^32 flushes: an entry still waits for the next one only", () => {
    const { queue } = bench("per-cpu", 1, { flushesBefore: 2 ** 32 - 1 });
    queue.queue(0, 1, 1, null, 0);
    queue.onTimer(0, 10);
    expect(queue.flushesFinished).toBe(2 ** 32);
    queue.queue(0, 2, 1, null, 11);
    expect(queue.length(0)).toBe(1);
    queue.onTimer(0, 20);
    expect(queue.length(0)).toBe(0);
  });

  it("tables ride on their entry and are released with it (row 68)", () => {
    const { queue, log } = bench("per-cpu", 1);
    queue.queue(0, 1, 512, [70, 71], 0);
    queue.queue(0, 600, 1, null, 0);
    expect(log).toEqual(["arm 10"]);
    queue.onTimer(0, 10);
    expect(log.slice(2)).toEqual(["release 1+512 on 0 tables 70,71", "release 600+1 on 0"]);
  });

  it("a queue that ends hands its tables over and releases nothing", () => {
    const { queue, log } = bench("per-cpu", 2);
    queue.queue(0, 1, 1, [7], 0);
    queue.queue(1, 2, 1, [8, 9], 0);
    const tables: TableList = [];
    queue.dispose((list) => tables.push(...list));
    expect(tables).toEqual([7, 8, 9]);
    expect(log).toEqual(["arm 10"]);
  });
});

describe("timer", () => {
  it("one entry on CPU 3: 10 ms later one flush, freed on whatever CPU the timer runs (row 67)", () => {
    const { queue, log } = bench("per-cpu", 4);
    queue.queue(3, 9, 1, null, 100);
    expect(log).toEqual(["arm 110"]);
    queue.onTimer(1, 110);
    expect(log.slice(1)).toEqual(["flush", "release 9+1 on 1"]);
    expect(queue.timerArmed).toBe(false);
  });

  it("single: the timer is due after 1000 ms (row 67)", () => {
    const { queue, log } = bench("single", 4);
    queue.queue(3, 9, 1, null, 100);
    expect(log).toEqual(["arm 1100"]);
  });

  it("it is armed once however much is queued, and again after it expired", () => {
    const { queue, log } = bench("per-cpu", 2);
    queue.queue(0, 1, 1, null, 0);
    queue.queue(1, 2, 1, null, 3);
    queue.onTimer(0, 10);
    queue.queue(0, 3, 1, null, 12);
    expect(log.filter((line) => line.startsWith("arm"))).toEqual(["arm 10", "arm 22"]);
  });

  it("rings are released in the order of their CPUs, each from its oldest entry", () => {
    const { queue, log } = bench("per-cpu", 3);
    queue.queue(2, 20, 1, null, 0);
    queue.queue(0, 1, 1, null, 1);
    queue.queue(2, 21, 1, null, 2);
    queue.queue(1, 10, 1, null, 3);
    queue.onTimer(1, 10);
    expect(log.slice(2)).toEqual([
      "release 1+1 on 1",
      "release 10+1 on 1",
      "release 20+1 on 1",
      "release 21+1 on 1",
    ]);
  });

  it("an entry that arrives after the flag is cleared arms again, yet goes with this flush", () => {
    const { queue, log } = bench("per-cpu", 1);
    queue.queue(0, 1, 1, null, 0);
    queue.clearTimer();
    queue.queue(0, 2, 1, null, 11);
    queue.flush("timer", 11);
    queue.releaseRing(0, 0, 11);
    expect(log).toEqual(["arm 10", "arm 21", "flush", "release 1+1 on 0", "release 2+1 on 0"]);
    expect(queue.timerArmed).toBe(true);
  });

  it("sizes and timeout can be set: 8 places, 3 ms", () => {
    const { queue, log } = bench("per-cpu", 1, { entries: 8, timeoutMs: 3 });
    for (let pfn = 1; pfn <= 8; pfn += 1) queue.queue(0, pfn, 1, null, 0);
    expect(log[0]).toBe("arm 3");
    expect(queue.counts.flushesFull).toBe(1);
  });

  it("a size that is no power of two is refused", () => {
    const { queue } = bench("per-cpu", 1, { entries: 100 });
    expect(() => queue.queue(0, 1, 1, null, 0)).toThrow("power of two");
  });
});

describe("exposure", () => {
  it("pages stay reachable from their queueing to the next flush, and are reused later", () => {
    const events: string[] = [];
    const observer: FlushQueueObserver = {
      flushed: (cause, entries, pages, oldestMs, nowMs) =>
        events.push(`${cause}: ${entries} entries ${pages} pages ${oldestMs}..${nowMs}`),
      released: (pfn, pages, queuedMs, nowMs) =>
        events.push(`${pfn}+${pages} queued ${queuedMs} released ${nowMs}`),
    };
    const meter = new CountingMeter();
    const { queue } = bench("per-cpu", 2, { entries: 4, observer, meter });
    queue.queue(0, 1, 10, null, 0);
    queue.queue(1, 2, 5, null, 4);
    queue.queue(1, 3, 5, null, 4);
    queue.queue(1, 4, 5, null, 4);
    // Full: 25 pages were reachable, the oldest for 6 ms. CPU 0's entry is not reused yet.
    queue.queue(1, 5, 1, null, 6);
    expect(events[0]).toBe("full: 4 entries 25 pages 0..6");
    expect(queue.counts.exposedPageMs).toBe(10 * 4 + 25 * 2);
    expect(queue.counts.exposedPages).toBe(1);
    expect(queue.counts.queuedPages).toBe(11);
    queue.onTimer(0, 10);
    expect(events.slice(-3)).toEqual([
      "timer: 1 entries 1 pages 6..10",
      "1+10 queued 0 released 10",
      "5+1 queued 6 released 10",
    ]);
    const { counts } = queue;
    expect(counts.exposedPageMs).toBe(10 * 4 + 25 * 2 + 1 * 4);
    expect([counts.peakExposedPages, counts.longestExposureMs]).toEqual([25, 6]);
    expect([counts.flushesFull, counts.flushesTimer, counts.queuedPages]).toEqual([1, 1, 0]);
    expect(meter.events("flushQueueAdd")).toBe(5);
    expect(meter.events("flushFull") + meter.events("flushTimer")).toBe(2);
    expect(meter.events("flushTimerArm")).toBe(1);
  });
});

/** The queue as arrays, written from the facts alone. */
class PlainQueue {
  readonly rings: { pfn: number; count: number }[][];
  readonly log: string[] = [];
  readonly places: number;
  readonly timeout: number;
  flushes = 0;
  armed = false;

  constructor(rings: number, places: number, timeout: number) {
    this.rings = Array.from({ length: rings }, () => []);
    this.places = places;
    this.timeout = timeout;
  }

  #free(ring: number, cpu: number): void {
    const entries = this.rings[ring]!;
    while (entries.length > 0 && entries[0]!.count < this.flushes)
      this.log.push(`release ${entries.shift()!.pfn}+1 on ${cpu}`);
  }

  queue(cpu: number, pfn: number, now: number): void {
    const ring = cpu % this.rings.length;
    this.#free(ring, cpu);
    if (this.rings[ring]!.length === this.places - 1) {
      this.flushes += 1;
      this.log.push("flush");
      this.#free(ring, cpu);
    }
    this.rings[ring]!.push({ pfn, count: this.flushes });
    if (this.armed) return;
    this.armed = true;
    this.log.push(`arm ${now + this.timeout}`);
  }

  timer(cpu: number): void {
    this.armed = false;
    this.flushes += 1;
    this.log.push("flush");
    for (let ring = 0; ring < this.rings.length; ring += 1) this.#free(ring, cpu);
  }
}

describe("against plain arrays", () => {
  it("any history of queueing and timers gives the same flushes, releases and order", () => {
    const step = fc.record({
      cpu: fc.nat(3),
      timer: fc.integer({ min: 0, max: 30 }).map((value) => value === 0),
    });
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 300 }),
        fc.constantFrom("per-cpu" as const, "single" as const),
        fc.constantFrom(2, 4, 16),
        (steps, kind, entries) => {
          const { queue, log } = bench(kind, 4, { entries, timeoutMs: 7 });
          const plain = new PlainQueue(kind === "single" ? 1 : 4, entries, 7);
          for (const [now, { cpu, timer }] of steps.entries()) {
            if (timer) {
              queue.onTimer(cpu, now);
              plain.timer(cpu);
            } else {
              queue.queue(cpu, now + 1, 1, null, now);
              plain.queue(cpu, now + 1, now);
            }
          }
          expect(log).toEqual(plain.log);
          const waiting = plain.rings.reduce((sum, ring) => sum + ring.length, 0);
          expect(queue.counts.queuedPages).toBe(waiting);
        },
      ),
      { seed: 3, numRuns: 400 },
    );
  });

  it("a clone goes on as the original would, and does not reach its sink", () => {
    const original = bench("per-cpu", 2, { entries: 8 });
    for (let pfn = 1; pfn <= 12; pfn += 1) original.queue.queue(pfn % 2, pfn, 1, null, pfn);
    const before = original.log.length;
    const cloneLog: string[] = [];
    const copy = original.queue.clone(
      {
        flushIotlbAll: () => cloneLog.push("flush"),
        release: (pfn, pages, _, cpu) => cloneLog.push(`release ${pfn}+${pages} on ${cpu}`),
      },
      { arm: (dueMs) => cloneLog.push(`arm ${dueMs}`) },
    );
    for (let pfn = 13; pfn <= 20; pfn += 1) copy.queue(pfn % 2, pfn, 1, null, pfn);
    copy.onTimer(1, 30);
    expect(original.log).toHaveLength(before);
    for (let pfn = 13; pfn <= 20; pfn += 1) original.queue.queue(pfn % 2, pfn, 1, null, pfn);
    original.queue.onTimer(1, 30);
    expect(cloneLog).toEqual(original.log.slice(before));
  });
});
