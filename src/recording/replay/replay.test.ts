import { readFileSync } from "node:fs";
import { gunzipSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { policies, policyNamed } from "../../dma/policy.ts";
import { type ReplayOptions, type ReplayOutcome, replayRecording } from "./replay.ts";
import type { PolicyResult } from "./result.ts";

async function* chunksOf(bytes: Uint8Array, size: number) {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function replayText(text: string, options: Partial<ReplayOptions> = {}): Promise<ReplayOutcome> {
  const bytes = new TextEncoder().encode(text);
  return replayRecording("trace", chunksOf(bytes, 1000), { policies, iommu: "virtio", ...options });
}

function replayExample(name: string, options: Partial<ReplayOptions> = {}) {
  const packed = readFileSync(new URL(`../../../examples/${name}`, import.meta.url));
  const chunks = chunksOf(gunzipSync(packed), 65_536);
  return replayRecording(name, chunks, { policies, iommu: "virtio", ...options });
}

function byName(outcome: ReplayOutcome, name: string): PolicyResult {
  return outcome.replay.policies.find(({ policy }) => policy === name)!;
}

const hex = (pfn: number) => `${pfn.toString(16)}000`;

/** Lines of a trace that is made as it goes. */
class Trace {
  text = "# tracer: nop\n# entries-in-buffer/entries-written: 9/9   #P:4\n";
  us = 1_000_000;

  map(pfn: number, pages: number, phys: number, cpu = 0): this {
    const range = `iova=0x${hex(pfn)} - 0x${hex(pfn + pages)} paddr=0x${hex(phys)}`;
    return this.#line(cpu, ".....", `map: IOMMU: ${range} size=${pages * 4096}`);
  }

  unmap(pfn: number, pages: number, cpu = 0): this {
    const range = `iova=0x${hex(pfn)} - 0x${hex(pfn + pages)} size=${pages * 4096}`;
    return this.#line(cpu, "d.h..", `unmap: IOMMU: ${range} unmapped_size=${pages * 4096}`);
  }

  wait(us: number): this {
    this.us += us;
    return this;
  }

  #line(cpu: number, flags: string, event: string): this {
    const time = `${Math.floor(this.us / 1e6)}.${String(this.us % 1e6).padStart(6, "0")}`;
    this.text += `  fio-${cpu + 7}  [00${cpu}] ${flags}  ${time}: ${event}\n`;
    return this;
  }
}

describe("requests under each policy, virtio", () => {
  // Counts of the recorded QEMU log; see iova-replay-notes, section 7.
  it("strict sends the requests that the recorded device saw, from a trace", async () => {
    const outcome = await replayExample("boot-strict-1cpu.txt.gz");
    const { map, unmap } = byName(outcome, "strict").requests;
    expect({ map, unmap }).toEqual({ map: 5966, unmap: 4607 });
  });

  it("strict sends them from the device's own log, too", async () => {
    const outcome = await replayExample("qemu-virtio-iommu-strict.log.gz");
    const { map, unmap } = byName(outcome, "strict").requests;
    expect({ map, unmap }).toEqual({ map: 5966, unmap: 4607 });
    expect(byName(outcome, "lazy-mq").flushes?.timer).toBeNull();
    expect(byName(outcome, "lazy-mq").exposure?.longestNs).toBeNull();
    expect(outcome.diagnostics.map(({ code }) => code)).toEqual([
      "recording/unused-events",
      "replay/no-time",
      "replay/no-cpus",
    ]);
  });

  it("lazy sends the recorded ones of a lazy boot", async () => {
    const outcome = await replayExample("boot-lazy-2cpu.txt.gz");
    const { map, unmap } = byName(outcome, "lazy-mq+map").requests;
    expect({ map, unmap }).toEqual({ map: 4912, unmap: 4623 });
  });

  it("one buffer of two runs: what each policy waits for", async () => {
    // Three pages from an odd frame on: runs of one and two pages.
    const trace = new Trace().map(0xffffd, 3, 0x10001).wait(5).unmap(0xffffd, 3);
    const outcome = await replayText(trace.text);
    const waits = (name: string) => {
      const { requests, exposure } = byName(outcome, name);
      const { map, unmap, kicks, syncs, batch } = requests;
      return [map, unmap, kicks, syncs, batch.max, exposure?.unmaps ?? null];
    };
    expect(waits("passthrough")).toEqual([0, 0, 0, 0, null, null]);
    const runs = byName(outcome, "strict").requests.map;
    expect(waits("strict")).toEqual([runs, 1, runs + 1, runs + 1, 1, 0]);
    expect(waits("strict+map")).toEqual([runs, 1, 2, 2, runs, 0]);
    expect(waits("lazy-mq+map")).toEqual([runs, 1, 2, 2, runs, 1]);
    expect(waits("lazy-mq")).toEqual([runs, 1, runs + 1, runs + 1, 1, 1]);
  });

  it("a lazily unmapped buffer is reachable until the next request is kicked", async () => {
    const trace = new Trace().map(0xfffff, 1, 7).wait(10).unmap(0xfffff, 1).wait(3000);
    trace.map(0xffffe, 1, 8);
    const { exposure } = byName(await replayText(trace.text), "lazy-mq+map");
    expect(exposure).toMatchObject({ unmaps: 1, peakBytes: 4096, longestNs: 3e6, meanNs: 3e6 });
    expect(exposure?.meanBytes).toBeCloseTo((4096 * 3000) / 3010, 6);
  });

  it("or until its flush queue's timer expires, a tick after its whole ticks", async () => {
    const trace = new Trace().map(0xfffff, 1, 7).wait(10).unmap(0xfffff, 1);
    const outcome = await replayText(trace.text);
    // Ticks of 4 ms, the first event at 0: 10 ms are 3 ticks, 1 s are 250, and one more each.
    expect(byName(outcome, "lazy-mq").exposure?.longestNs).toBe(16e6 - 10e3);
    expect(byName(outcome, "lazy-sq").exposure?.longestNs).toBe(1004e6 - 10e3);
  });
});

describe("requests under each policy, hardware", () => {
  it("strict invalidates and waits in each unmap, lazy by the domain", async () => {
    const trace = new Trace().map(0xffff0, 16, 0x100).map(0xfffe0, 16, 0x200);
    trace.unmap(0xffff0, 16).unmap(0xfffe0, 16);
    const outcome = await replayText(trace.text, { iommu: "hardware" });
    expect(byName(outcome, "strict").invalidations).toEqual({ range: 2, domain: 0, global: 0 });
    expect(byName(outcome, "lazy-mq").invalidations).toEqual({ range: 0, domain: 1, global: 0 });
    expect(byName(outcome, "strict").requests).toMatchObject({ syncs: 2, kicks: null });
    expect(byName(outcome, "lazy-mq").exposure).toMatchObject({ unmaps: 2, peakBytes: 131_072 });
    expect(byName(outcome, "strict").tables?.pagesByLevel).toEqual([1, 1, 1, 1]);
  });

  it("+map changes nothing where new mappings need no sync", async () => {
    const outcome = await replayExample("boot-lazy-2cpu.txt.gz", { iommu: "hardware" });
    for (const name of ["strict", "lazy-sq", "lazy-mq"]) {
      const { policy: _, verdict: __, ...plain } = byName(outcome, name);
      expect(byName(outcome, `${name}+map`)).toMatchObject(plain);
    }
  });

  it("a full queue flushes before its timer", async () => {
    const trace = new Trace();
    for (let index = 0; index < 40; index += 1) {
      trace.map(0x1000 + index, 1, 0x100 + index).unmap(0x1000 + index, 1);
    }
    const options = { iommu: "hardware", flushQueueSlots: 8 } as const;
    const { flushes } = byName(await replayText(trace.text, options), "lazy-mq");
    // Seven of eight places are used; the flush for the eighth entry frees all seven.
    expect(flushes).toEqual({ queued: 40, full: 5, timer: 1 });
  });
});

/** A workload without a plan: buffers of any size and place, in pieces or whole. */
const steps = fc.array(
  fc.record({
    pages: fc.integer({ min: 1, max: 40 }),
    cut: fc.integer({ min: 0, max: 39 }),
    cpu: fc.integer({ min: 0, max: 3 }),
    waitUs: fc.integer({ min: 0, max: 30_000 }),
    free: fc.option(fc.nat(), { nil: null }),
  }),
  { minLength: 1, maxLength: 60 },
);

function traceOf(
  script: readonly (typeof steps extends fc.Arbitrary<infer T> ? T : never)[number][],
) {
  const trace = new Trace();
  const live: [number, number][] = [];
  const scattered = new Set<number>();
  let next = 0x1000;
  let maps = 0;
  for (const { pages, cut, cpu, waitUs, free } of script) {
    trace.wait(waitUs);
    if (free !== null && live.length > 0) {
      const [[pfn, count]] = live.splice(free % live.length, 1) as [[number, number]];
      trace.unmap(pfn, count, cpu);
      continue;
    }
    maps += 1;
    live.push([next, pages]);
    if (cut > 0 && cut < pages) {
      scattered.add(next);
      trace.map(next, cut, next * 3, cpu).map(next + cut, pages - cut, next * 5, cpu);
    } else {
      trace.map(next, pages, next * 3, cpu);
    }
    next += 64;
  }
  // Only its unmap tells for certain what belongs to a buffer of several pieces.
  for (const [pfn, count] of live) if (scattered.has(pfn)) trace.unmap(pfn, count);
  const left = live.filter(([pfn]) => !scattered.has(pfn)).length;
  return { text: trace.text, maps, live: left };
}

describe("whatever the workload", () => {
  it.each(["virtio", "hardware"] as const)("counts agree with each other, %s", async (iommu) => {
    await fc.assert(
      fc.asyncProperty(steps, async (script) => {
        const { text, maps, live } = traceOf(script);
        if (maps === 0) return;
        const outcome = await replayText(text, { iommu });
        const { workload } = outcome.replay;
        expect(workload).toMatchObject({ allocations: maps, frees: maps - live, liveAtEnd: live });
        const of = (name: string) => byName(outcome, name);
        const strict = of("strict");
        for (const { name, mode, queue, syncMap } of policies) {
          const { requests, flushes, iova, exposure } = of(name);
          if (mode === "passthrough") {
            expect([requests.map, requests.unmap, requests.syncs]).toEqual([0, 0, 0]);
            expect([iova, exposure, flushes]).toEqual([null, null, null]);
            continue;
          }
          // A buffer of three pages is two runs: one of two pages, one of one.
          expect(requests.unmap).toBeGreaterThanOrEqual(workload.frees);
          expect([name, requests.unmap]).toEqual([name, strict.requests.unmap]);
          expect([name, iova?.allocations, iova?.failed]).toEqual([name, maps, 0]);
          expect(requests.syncs).toBeLessThanOrEqual(strict.requests.syncs + (flushes?.timer ?? 0));
          if (mode === "strict") {
            expect(exposure).toMatchObject({ unmaps: 0, peakBytes: 0 });
            expect(requests.syncs).toBeGreaterThanOrEqual(workload.frees);
            expect(flushes).toBeNull();
          } else {
            expect(flushes?.queued).toBe(workload.frees);
            expect(exposure!.unmaps).toBeLessThanOrEqual(workload.frees);
            expect(exposure!.peakBytes).toBeLessThanOrEqual(maps * 40 * 4096);
            const limitNs = queue === "single" ? 1004e6 : 16e6;
            expect(exposure!.longestNs ?? 0).toBeLessThanOrEqual(limitNs);
            expect(exposure!.meanNs ?? 0).toBeLessThanOrEqual(exposure!.longestNs ?? 0);
          }
          if (iommu === "virtio") {
            const { batch } = requests;
            expect(requests.kicks).toBe(requests.syncs);
            expect(Math.round((batch.mean ?? 0) * requests.syncs)).toBe(
              requests.map + requests.unmap,
            );
            if (mode === "strict") {
              const perMap = syncMap ? maps : requests.map;
              expect([name, requests.syncs]).toEqual([name, perMap + workload.frees]);
            }
          }
        }
      }),
      { seed: 20, numRuns: 25 },
    );
  });

  it("the result does not depend on how the file is cut into chunks", async () => {
    const { text } = traceOf([{ pages: 9, cut: 4, cpu: 1, waitUs: 5, free: null }]);
    const bytes = new TextEncoder().encode(text);
    const options = { policies, iommu: "virtio" } as const;
    const whole = await replayRecording("t", chunksOf(bytes, bytes.length), options);
    expect(await replayRecording("t", chunksOf(bytes, 1), options)).toEqual(whole);
  });

  it("a policy gives the same alone as among all", async () => {
    const all = await replayExample("boot-lazy-2cpu.txt.gz", { iommu: "hardware" });
    for (const name of ["lazy-sq", "strict+map"]) {
      const alone = await replayExample("boot-lazy-2cpu.txt.gz", {
        iommu: "hardware",
        policies: [policyNamed(name)!],
      });
      const { verdict: _, ...numbers } = byName(all, name);
      expect(byName(alone, name)).toMatchObject(numbers);
    }
  });

  it("a small window gives the numbers of a large one", async () => {
    const large = await replayExample("nvme-randwrite.txt.gz", {
      policies: [policyNamed("strict")!],
    });
    const small = await replayExample("nvme-randwrite.txt.gz", {
      policies: [policyNamed("strict")!],
      window: 4096,
    });
    expect(small.replay).toEqual(large.replay);
  });
});

describe("what a recording lacks", () => {
  it("marks lost events in the result and by line", async () => {
    const text = `${new Trace().map(0xfffff, 1, 7).text}CPU:0 [LOST 12 EVENTS]\n`;
    const outcome = await replayText(text);
    expect(outcome.replay.workload).toMatchObject({ lostEvents: 12, lostMarkers: 1 });
    expect(outcome.diagnostics).toMatchObject([{ code: "recording/lost-events", line: 4 }]);
  });

  it("request vectors hold nothing to replay", async () => {
    await expect(replayExample("virtio-iommu-requests.jsonl.gz")).rejects.toMatchObject({
      code: "replay/no-workload",
    });
  });

  it("a physical address that no table can hold is a failed mapping, not the end", async () => {
    const trace = new Trace().map(0xfffff, 1, 2 ** 51).unmap(0xfffff, 1);
    const outcome = await replayText(trace.text, { iommu: "hardware" });
    expect(byName(outcome, "strict").iova).toMatchObject({ failed: 1 });
  });
});
