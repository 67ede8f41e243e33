import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import type { PolicyResult, RecordingReplay } from "../recording/replay/result.ts";
import { replayCsv, replayJson, replaySections, terminalSections } from "./replay-report.ts";
import { renderReplay } from "./replay-text.ts";

const spread = { mean: 1.5, p50: 1, p90: 2, p99: 3, max: 4 };
const lazy: PolicyResult = {
  policy: "lazy-mq",
  requests: {
    map: 10,
    unmap: 5,
    kicks: 7,
    syncs: 7,
    syncsPerUnmap: 1.4,
    kicksPerUnmap: 1.4,
    batch: spread,
  },
  invalidations: null,
  flushes: { queued: 5, full: 0, timer: 1 },
  iova: {
    allocations: 6,
    cacheHits: 4,
    cacheHitShare: 4 / 6,
    treeSearches: 2,
    treeSteps: 3,
    below4GiBPeakBytes: 8192,
    above4GiB: 0,
    failed: 0,
  },
  tables: null,
  exposure: { unmaps: 5, peakBytes: 4096, meanBytes: 100, meanNs: 5e6, longestNs: 12e6 },
  verdict: "Saves half; leaves 4 KiB reachable.",
};
const passthrough: PolicyResult = {
  ...lazy,
  policy: "passthrough",
  requests: { ...lazy.requests, map: 0, unmap: 0, kicks: 0, syncs: 0 },
  flushes: null,
  iova: null,
  exposure: null,
  verdict: "Nothing protects memory.",
};
const replay: RecordingReplay = {
  file: "trace.txt",
  kind: "ftrace",
  iommu: "virtio",
  workload: {
    lines: 20,
    events: 18,
    durationNs: 2.5e9,
    cpus: 2,
    mapEvents: 12,
    unmapEvents: 6,
    allocations: 6,
    frees: 6,
    inferred: 1,
    liveAtEnd: 1,
    peakLiveBytes: 65536,
    bytesMean: 6000.5,
    scattered: 3,
    lostEvents: 4,
    lostMarkers: 1,
  },
  policies: [passthrough, lazy],
};

describe("a replay's report", () => {
  it("is documented key by key", () => {
    const page = readFileSync(new URL("../../docs/replay.md", import.meta.url), "utf8");
    const keys = replaySections.flatMap((section) => [
      section.key,
      ...section.columns.map(({ key }) => key),
    ]);
    const levels = /^level[2-4]Pages$/;
    const missing = [...keys, ...Object.keys(replay.workload)].filter(
      (key) => !levels.test(key) && !page.includes(`\`${key}\``),
    );
    expect(missing).toEqual([]);
  });

  it("every column says in a sentence what it is", () => {
    const columns = replaySections.flatMap((section) => section.columns);
    expect(columns.filter(({ doc }) => doc.length < 4)).toEqual([]);
    expect(new Set(columns.map(({ doc }) => doc)).size).toBe(columns.length);
  });

  it("has exact values in JSON, and null for what does not apply", () => {
    const json = replayJson([{ replay, diagnostics: [] }]);
    expect(json).toMatchObject({
      schema: "iommukit/replay@1",
      result: {
        recordings: [
          {
            file: "trace.txt",
            workload: { bytesMean: 6000.5 },
            policies: [
              { policy: "passthrough", iova: { cacheHits: null }, exposure: { peakBytes: null } },
              { policy: "lazy-mq", iova: { cacheHitShare: 4 / 6 }, batches: { p99: 3 } },
            ],
          },
        ],
      },
    });
  });

  it("has as many cells in each line of CSV as in its heading", () => {
    const lines = replayCsv([replay]).trim().split("\n");
    const columns = replaySections.reduce((sum, section) => sum + section.columns.length, 3);
    expect(lines.map((line) => line.split(",").length)).toEqual([columns, columns, columns]);
    expect(lines[2]).toMatch(/^trace\.txt,virtio,lazy-mq,10,5,7,7,1\.4,/);
  });

  it("shows no column that holds nothing", () => {
    const sections = terminalSections("virtio", [passthrough]);
    expect(sections.map(({ key }) => key)).toEqual(["requests", "batches"]);
  });

  it("reads well in a terminal", () => {
    const text = renderReplay(replay, 80, (_role, piece) => piece).join("\n");
    expect(text).toMatchInlineSnapshot(`
      "trace.txt  ftrace
        18 events in 2.50 s on 2 CPUs
        LOST: the recording says that 4 events are missing, in 1 place: every count
        below is too low
        6 buffers mapped of 5.86 KiB on average, 3 of several pieces; 6 unmapped; at
        most 64 KiB at once
        1 was mapped before the recording began, 1 still is at its end
        Replayed on a virtio-iommu: the guest's driver, its request queue and the
        device

      Requests
                                             waits/  kicks/
      policy       MAP  UNMAP  kicks  waits   unmap   unmap
      passthrough    0      0      0      0    1.40    1.40
      lazy-mq       10      5      7      7    1.40    1.40

      Requests that one wait completed
      policy       mean  p50  p90  p99  max
      passthrough  1.50    1    2    3    4
      lazy-mq      1.50    1    2    3    4

      Flush queue
                   entries  flushes:  flushes:
      policy        queued      full     timer
      passthrough        -         -         -
      lazy-mq            5         0         1

      I/O virtual addresses
                              cache              tree     peak     left
      policy       allocated   hits   share  searches  < 4 GiB  32 bits  failed
      passthrough          -      -   -             -    -            -       -
      lazy-mq              6      4  66.7 %         2    8 KiB        0       0

      Still reachable by the device after unmap
                                         mean
      policy       unmaps   peak   mean  time  longest
      passthrough       -  -        -    -        -
      lazy-mq           5  4 KiB  100 B  5 ms    12 ms

      What each policy buys and risks here
      passthrough  Nothing protects memory.
      lazy-mq      Saves half; leaves 4 KiB reachable."
    `);
  });
});
