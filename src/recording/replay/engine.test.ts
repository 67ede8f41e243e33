import { describe, expect, it } from "vitest";
import { policyNamed } from "../../dma/policy.ts";
import { Operation, OperationKind } from "../operation.ts";
import { ReplayEngine } from "./engine.ts";
import { PolicyRun } from "./policy-run.ts";
import type { PolicyStack } from "./policy-stack.ts";
import { RunMeter } from "./run-meter.ts";

/** A stack that writes down what it is asked to do. */
class NotingStack implements PolicyStack {
  readonly calls: string[] = [];
  readonly refused = new Set<string>();
  dueNs = Number.POSITIVE_INFINITY;
  hasReach = false;
  #next = 1000;

  map(physPfn: number, pages: number, cpu: number): number {
    return this.#take(`map ${physPfn}+${pages} cpu${cpu}`, pages);
  }
  begin(pages: number, cpu: number): number {
    return this.#take(`begin ${pages} cpu${cpu}`, pages);
  }
  link(iovaPfn: number, physPfn: number, pages: number): boolean {
    return this.#note(`link ${iovaPfn} ${physPfn}+${pages}`);
  }
  commit(iovaPfn: number, pages: number): boolean {
    return this.#note(`commit ${iovaPfn}+${pages}`);
  }
  unmap(iovaPfn: number, pages: number, cpu: number): void {
    this.#note(`unmap ${iovaPfn}+${pages} cpu${cpu}`);
  }
  unlink(iovaPfn: number, pages: number): void {
    this.#note(`unlink ${iovaPfn}+${pages}`);
  }
  release(iovaPfn: number, pages: number, cpu: number): void {
    this.#note(`release ${iovaPfn}+${pages} cpu${cpu}`);
  }
  advance(nowNs: number): void {
    if (this.dueNs > nowNs) return;
    this.#note(`timer ${this.dueNs}`);
    this.dueNs = Number.POSITIVE_INFINITY;
  }
  mapCommands(): number {
    return 0;
  }
  unmapCommands(): number {
    return 0;
  }
  below4GiBPeakPages(): number {
    return 0;
  }
  flushCounts(): null {
    return null;
  }
  invalidationCounts(): null {
    return null;
  }
  tableCounts(): null {
    return null;
  }
  #note(call: string): boolean {
    this.calls.push(call);
    return !this.refused.has(call);
  }
  #take(call: string, pages: number): number {
    if (!this.#note(call)) return -1;
    this.#next += 100;
    return pages > 0 ? this.#next - 100 : -1;
  }
}

function setUp(options: { joinPieces?: boolean; cpus?: number } = {}) {
  const stack = new NotingStack();
  const run = new PolicyRun(policyNamed("lazy-mq")!, stack, new RunMeter());
  const engine = new ReplayEngine({
    runs: [run],
    cpus: options.cpus ?? 4,
    knowsCpus: true,
    joinPieces: options.joinPieces ?? false,
  });
  const feed = (kind: number, fields: Partial<Operation>) =>
    engine.operation(Object.assign(new Operation(), { kind, ...fields }));
  return { stack, run, engine, feed };
}

const { allocate, extend, free, freeBefore, shrink } = OperationKind;
const span = { durationNs: 1000, knowsTime: true };

describe("ReplayEngine", () => {
  it("maps a buffer of one piece whole and unmaps it on the CPU of the unmap", () => {
    const { stack, feed } = setUp();
    feed(allocate, { allocation: 5, pages: 4, segmentPages: 4, physPfn: 77, cpu: 1 });
    feed(free, { allocation: 5, pages: 4, cpu: 3 });
    expect(stack.calls).toEqual(["map 77+4 cpu1", "unmap 1000+4 cpu3"]);
  });

  it("links the pieces of a buffer and waits after the last", () => {
    const { stack, engine, feed } = setUp();
    const whole = { allocation: 0, iovaPfn: 50, pages: 6 };
    feed(allocate, { ...whole, segmentPfn: 50, segmentPages: 2, physPfn: 7 });
    feed(allocate, { allocation: 1, iovaPfn: 9, pages: 1, segmentPages: 1, physPfn: 1 });
    feed(extend, { ...whole, segmentPfn: 52, segmentPages: 1, physPfn: 9 });
    feed(extend, { ...whole, segmentPfn: 53, segmentPages: 3, physPfn: 10 });
    expect(stack.calls).toEqual([
      "begin 6 cpu0",
      "link 1000 7+2",
      "map 1+1 cpu0",
      "link 1002 9+1",
      "link 1003 10+3",
      "commit 1000+6",
    ]);
    expect([engine.allocations, engine.scattered]).toEqual([2, 1]);
  });

  it("joins pieces that a request log had cut", () => {
    const { stack, engine, feed } = setUp({ joinPieces: true });
    const whole = { allocation: 0, iovaPfn: 0, pages: 5 };
    feed(allocate, { ...whole, segmentPfn: 0, segmentPages: 1, physPfn: 7 });
    feed(extend, { ...whole, segmentPfn: 1, segmentPages: 2, physPfn: 8 });
    feed(extend, { ...whole, segmentPfn: 3, segmentPages: 2, physPfn: 99 });
    expect(stack.calls).toEqual([
      "begin 5 cpu0",
      "link 1000 7+3",
      "link 1003 99+2",
      "commit 1000+5",
    ]);
    expect(engine.scattered).toBe(1);
  });

  it("maps what is older than the recording uncounted, then unmaps it", () => {
    const { stack, engine, run, feed } = setUp();
    feed(freeBefore, { allocation: -1, iovaPfn: 40, pages: 2, cpu: 2 });
    expect(stack.calls).toEqual(["map 40+2 cpu2", "unmap 1000+2 cpu2"]);
    expect([engine.inferred, engine.frees, engine.allocations]).toEqual([1, 1, 0]);
    expect(run.meter.counting).toBe(true);
  });

  it("unmaps what is left of a buffer after parts of it went", () => {
    const { stack, feed } = setUp();
    const whole = { allocation: 0, iovaPfn: 50, pages: 8 };
    feed(allocate, { ...whole, segmentPfn: 50, segmentPages: 8, physPfn: 7 });
    feed(shrink, { allocation: 0, iovaPfn: 52, pages: 2 });
    feed(shrink, { allocation: 0, iovaPfn: 49, pages: 2 });
    feed(free, { allocation: 0, iovaPfn: 50, pages: 8, cpu: 1 });
    expect(stack.calls.slice(1)).toEqual([
      "unlink 1002+2",
      "unlink 1000+1",
      "unlink 1001+1",
      "unlink 1004+4",
      "release 1000+8 cpu1",
    ]);
  });

  it("counts a failed map, and then leaves the buffer alone", () => {
    const { stack, feed, run } = setUp();
    stack.refused.add("map 7+1 cpu0");
    feed(allocate, { allocation: 0, pages: 1, segmentPages: 1, physPfn: 7 });
    feed(free, { allocation: 0, pages: 1 });
    expect(stack.calls).toEqual(["map 7+1 cpu0"]);
    expect(run.result(span, "virtio").requests.syncsPerUnmap).toBe(0);
  });

  it("unmaps only the pieces that could be linked", () => {
    const { stack, feed } = setUp();
    stack.refused.add("link 1002 9+1");
    const whole = { allocation: 0, iovaPfn: 50, pages: 6 };
    feed(allocate, { ...whole, segmentPfn: 50, segmentPages: 2, physPfn: 7 });
    feed(extend, { ...whole, segmentPfn: 52, segmentPages: 1, physPfn: 9 });
    feed(extend, { ...whole, segmentPfn: 53, segmentPages: 3, physPfn: 10 });
    feed(free, { allocation: 0, iovaPfn: 50, pages: 6 });
    expect(stack.calls.slice(-3)).toEqual([
      "unlink 1000+2",
      "unlink 1003+3",
      "release 1000+6 cpu0",
    ]);
  });

  it("runs timers at their own time, before the operation that is later", () => {
    const { stack, engine, feed } = setUp();
    feed(allocate, { allocation: 0, pages: 1, segmentPages: 1, physPfn: 7, timeUs: 10 });
    stack.dueNs = 5_000;
    feed(free, { allocation: 0, pages: 1, timeUs: 30 });
    stack.dueNs = 90_000;
    engine.end();
    expect(stack.calls).toEqual(["map 7+1 cpu0", "timer 5000", "unmap 1000+1 cpu0", "timer 90000"]);
  });

  it("measures how long unmapped memory stays reachable", () => {
    const { stack, run, engine, feed } = setUp();
    stack.hasReach = true;
    for (const allocation of [0, 1]) {
      feed(allocate, { allocation, pages: 2, segmentPages: 2, physPfn: 7 });
    }
    feed(free, { allocation: 0, pages: 2, timeUs: 1 });
    feed(free, { allocation: 1, pages: 2, timeUs: 3 });
    feed(allocate, { allocation: 2, pages: 1, segmentPages: 1, physPfn: 7, timeUs: 5 });
    run.meter.onReachEnds();
    engine.end();
    expect(run.result({ durationNs: 5000, knowsTime: true }, "virtio").exposure).toEqual({
      unmaps: 2,
      peakBytes: 4 * 4096,
      meanBytes: ((4000 * 2 + 2000 * 2) / 5000) * 4096,
      meanNs: 3000,
      longestNs: 4000,
    });
  });

  it("keeps CPUs inside what the stack was built for", () => {
    const { stack, engine, feed } = setUp({ cpus: 2 });
    feed(allocate, { allocation: 0, pages: 1, segmentPages: 1, physPfn: 7, cpu: 1_000_001 });
    expect(stack.calls).toEqual(["map 7+1 cpu1"]);
    expect(engine.cpusSeen).toBe(1);
  });
});
