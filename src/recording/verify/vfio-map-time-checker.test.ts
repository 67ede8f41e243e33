import { describe, expect, it } from "vitest";
import { MapEvents } from "../map-events.ts";
import type { CheckOutcome } from "./checker.ts";
import { exampleText, unwaivedOf } from "./checking.suite.ts";
import { vectorText } from "./vfio-checking.suite.ts";
import { VfioMapTimeChecker } from "./vfio-map-time-checker.ts";

function eventsOf(text: string): MapEvents {
  const events = new MapEvents();
  events.push(new TextEncoder().encode(text));
  events.end();
  return events;
}

function check(text: string, ...traces: readonly string[]): CheckOutcome {
  const checker = new VfioMapTimeChecker("map-time.jsonl");
  checker.push(new TextEncoder().encode(text));
  for (const [index, trace] of traces.entries()) {
    checker.offer({ file: `trace${index}.txt`, events: eventsOf(trace) });
  }
  return checker.end();
}

const event = (iova: number, phys: number, pages: number, task = 7) => {
  const hex = (pfn: number) => `0x${(pfn * 4096).toString(16)}`;
  return `  vm-${task}  [000] .....  1.000000: map: IOMMU: iova=${hex(iova)} - ${hex(iova + pages)} paddr=${hex(phys)} size=${pages * 4096}\n`;
};
const anon = '{"kind":"anon","thp":0,"size":"0x5000","errno":0,"map_s":0.1,"unmap_s":0.1}\n';
const bar = '{"bar":2,"size":"0x40000000","flags":7}\n';
const barMapping = '{"kind":"bar","size":"0x200000","errno":0,"map_s":0.1,"unmap_s":0.1}\n';

const virtio = vectorText("vfio-map-time-virtio.jsonl.gz");
const virtioEvents = vectorText("vfio-map-time-virtio-events.txt.gz");

describe("VfioMapTimeChecker", () => {
  it("behind a virtio-iommu: each call of iommu_map and iommu_unmap is that of Linux 7.2", () => {
    const outcome = check(virtio, virtioEvents);
    expect(unwaivedOf(outcome)).toEqual([]);
    const events = virtioEvents.match(/: (map|unmap): IOMMU/g)!.length;
    const calls = virtio.match(/"kind"/g)!.length;
    expect(outcome.tally).toMatchObject({ compared: events + calls, waived: 0 });
  });

  it("behind VT-d, map events only", () => {
    const trace = exampleText("vfio-map-time-events.txt.gz");
    const outcome = check(exampleText("vfio-map-time.jsonl.gz"), trace);
    expect(unwaivedOf(outcome)).toEqual([]);
    expect(outcome.tally.compared).toBe(9 + trace.match(/: map: IOMMU/g)!.length);
  });

  it("runs that lie side by side and came as two calls diverge: ours is one", () => {
    const outcome = check(anon, event(0x100, 0x500, 2) + event(0x102, 0x502, 3));
    expect(unwaivedOf(outcome)).toEqual([
      "1: anonymous memory, 0x5000 bytes, event at line 1 of trace0.txt: map of 0x2000 bytes at 0x500000, map of 0x5000 bytes at 0x500000",
      "1: anonymous memory, 0x5000 bytes, event at line 2 of trace0.txt: map of 0x3000 bytes at 0x502000, no further call",
    ]);
  });

  it("runs that lie apart are calls of their own", () => {
    const trace = event(0x100, 0x500, 2) + event(0x102, 0x400, 3);
    expect(check(anon, trace).tally).toMatchObject({ compared: 3, matched: 3 });
  });

  it("a BAR that came in pieces diverges: device memory is one run", () => {
    const trace = event(0x100, 0xf80000, 256) + event(0x200, 0xf80100, 256);
    const outcome = check(bar + barMapping, trace);
    expect(outcome.tally).toMatchObject({ compared: 3, matched: 1 });
    expect(check(bar + barMapping, event(0x100, 0xf80000, 512)).tally.unwaived).toBe(0);
  });

  it("errno and what was unmapped are compared, without a trace too", () => {
    const text = anon.replace('"errno":0', '"errno":12,"unmap_errno":22,"unmapped":"0x1000"');
    expect(unwaivedOf(check(text))).toEqual([
      "1: anonymous memory, 0x5000 bytes: map ENOMEM, unmap EINVAL, unmapped 0x1000, map OK, unmap OK, unmapped 0x5000",
    ]);
    const { tally, diagnostics } = check(anon);
    expect(tally).toMatchObject({ compared: 1, matched: 1 });
    expect(diagnostics.map(({ code, severity }) => [code, severity])).toEqual([
      ["verify/map-events", "note"],
    ]);
  });

  it("of several traces the one that holds the events is taken", () => {
    const others = exampleText("boot-lazy-2cpu.txt.gz");
    const outcome = check(virtio, others, virtioEvents, event(0x100, 0x500, 2));
    expect(unwaivedOf(outcome)).toEqual([]);
    expect(outcome.diagnostics[0]!.message).toMatch(/task \d+ in trace1\.txt/);
  });

  it("of two runs of the same program the trace with the more alike name is taken", () => {
    for (const names of [
      ["data/amd-events.txt", "data/vtd-events.txt"],
      ["data/vtd-events.txt", "data/amd-events.txt"],
    ]) {
      const checker = new VfioMapTimeChecker("data/vtd.jsonl");
      checker.push(new TextEncoder().encode(anon));
      for (const file of names) checker.offer({ file, events: eventsOf(event(1, 9, 5)) });
      expect(checker.events?.file).toBe("data/vtd-events.txt");
    }
  });

  it("a trace that only meets some sizes by chance is not taken", () => {
    const text = anon + anon.replace("0x5000", "0x9000") + anon.replace("0x5000", "0x7000");
    const { tally, diagnostics } = check(text, event(0x100, 0x500, 9));
    expect(tally.compared).toBe(3);
    expect(diagnostics[0]!.hint).toMatch(/as a further file/);
  });

  const recorded = exampleText("vfio-map-time.jsonl.gz");
  const events = exampleText("vfio-map-time-events.txt.gz").split("\n");
  /** An event in the middle of one of 2 MiB that came page by page, by its line from 1. */
  const MIDDLE = 113;
  const at = events[MIDDLE - 1]!;
  const changed = (line: number, count: number, ...lines: readonly string[]) => {
    const all = [...events];
    all.splice(line - 1, count, ...lines);
    return all.join("\n");
  };
  const twice = events[MIDDLE]!.match(/paddr=(\S+)/)![1]!;

  it.each([
    ["comes twice", changed(MIDDLE, 1, at, at), 1],
    ["is missing", changed(MIDDLE, 1), 1],
    ["changes places with the next", changed(MIDDLE, 2, events[MIDDLE]!, at), 1],
    ["lies elsewhere", changed(MIDDLE, 1, at.replace(/iova=0x0000001/, "iova=0x0000002")), 1],
    ["is larger", changed(MIDDLE, 1, at.replace(/size=4096/, "size=8192")), 1],
    ["holds a frame of another", changed(MIDDLE, 1, at.replace(/paddr=\S+/, `paddr=${twice}`)), 1],
    ["is that of another task", changed(MIDDLE, 1, at.replace(/-118 /, "-119 ")), 1],
    ["is the first of a call and comes twice", changed(14, 0, events[13]!), 1],
    ["is the whole of a call and is missing", changed(15, 1), 1],
    ["is the last and comes twice", changed(events.length, 0, events.at(-2)!), 1],
  ])("an event that %s: its call diverges, the others are compared", (_what, trace, count) => {
    const outcome = check(recorded, trace);
    expect(unwaivedOf(outcome)).toHaveLength(count);
    expect(outcome.tally.waived).toBe(0);
    // At least all the other calls' events: the largest has 500.
    expect(outcome.tally.compared).toBeGreaterThan(9 + 20);
    const compared = outcome.tally.compared - 9 - count;
    expect(outcome.diagnostics[0]!.message).toContain(` ${compared} events of `);
  });

  it("a divergence of events names the line of the call and that of the event", () => {
    const [text] = unwaivedOf(check(recorded, changed(MIDDLE, 1, at, at)));
    expect(text).toMatch(/^\d+: anonymous memory.*line 114 does not fit, calls of iommu_map/);
    const [orphan] = unwaivedOf(check(recorded, changed(14, 0, events[13]!)));
    expect(orphan).toMatch(/event at line \d+ of trace0.txt: map of .*, no call that makes it/);
  });

  it("an unmap event elsewhere, or one that removed less, diverges", () => {
    const lines = virtioEvents.split("\n");
    const unmap = lines.findIndex(
      (line) => line.includes(" unmap: ") && line.includes("size=4096"),
    );
    const change = (from: RegExp | string, to: string) => {
      const trace = lines.with(unmap, lines[unmap]!.replace(from, to)).join("\n");
      return unwaivedOf(check(virtio, trace));
    };
    expect(change("unmapped_size=4096", "unmapped_size=2048")).toHaveLength(1);
    expect(change(/iova=\S+ - \S+/, "iova=0x0000001000000000 - 0x0000001000001000")).toHaveLength(
      1,
    );
  });

  it("a trace that says it lost events, or begins later: waived by name, and told", () => {
    const lost = changed(MIDDLE, 1, "CPU:0 [LOST 1 EVENTS]");
    const outcome = check(recorded, lost);
    expect(unwaivedOf(outcome)).toEqual([]);
    expect(outcome.tally.waivers).toEqual([{ name: "trace-lost-events", rows: 1 }]);
    const later = check(recorded, changed(13, 1));
    expect(unwaivedOf(later)).toEqual([]);
    expect(later.tally.waivers).toEqual([{ name: "trace-begins-later", rows: 1 }]);
    for (const { diagnostics } of [outcome, later]) {
      expect(diagnostics.map(({ message }) => message)).toContain(
        "1 mappings have no map events that make up their size",
      );
    }
    // What is lost behind a call does not excuse it.
    const behind = [...changed(MIDDLE, 1).split("\n"), "CPU:0 [LOST 1 EVENTS]", events.at(-2)!];
    expect(unwaivedOf(check(recorded, behind.join("\n"))).length).toBeGreaterThan(0);
  });

  it("a trace of another run with other sizes: the calls that it does not hold diverge", () => {
    const larger = '{"kind":"anon","thp":0,"size":"0x2000000","errno":0,"map_s":0,"unmap_s":0}\n';
    const outcome = check(recorded + larger.repeat(3), events.join("\n"));
    expect(unwaivedOf(outcome)).toHaveLength(3);
    const fewer = recorded.trimEnd().split("\n").slice(0, -1).join("\n");
    expect(unwaivedOf(check(fewer, events.join("\n")))).toHaveLength(1);
  });

  it("a trace whose events make up too few calls is refused, with its name", () => {
    const { tally, diagnostics } = check(anon, event(0x100, 0x500, 2) + event(0x103, 0x502, 3));
    expect(tally.compared).toBe(1);
    expect(diagnostics[0]).toMatchObject({ severity: "warning" });
    expect(diagnostics[0]!.message).toMatch(/trace0\.txt do not make up.*of 1 mappings only what/);
  });

  it.each([
    ["frame 0", event(0x100, 0, 5)],
    ["a frame twice", event(0x100, 0x500, 2) + event(0x102, 0x501, 3)],
    ["frames past the end", event(0x100, 2 ** 52 - 4, 5)],
  ])("memory that no process has, %s, diverges", (_what, trace) => {
    const outcome = check(anon, trace);
    expect(outcome.tally).toMatchObject({ compared: 2, matched: 1 });
    expect(unwaivedOf(outcome)[0]).toMatch(/no memory of a process/);
  });

  it("the size unmapped is compared to the byte", () => {
    const text = barMapping.replace('"map_s"', '"unmapped":"0x200fff","map_s"');
    expect(unwaivedOf(check(bar + text))).toHaveLength(1);
    expect(unwaivedOf(check(bar + text.replace("fff", "000")))).toEqual([]);
  });

  it.each([
    ["is smaller than a mapping of it", bar.replace("0x40000000", "0x100000")],
    ["has no bytes", bar.replace("0x40000000", "0x0")],
    ["cannot be mapped", bar.replace(":7", ":3")],
  ])("a BAR that %s: the mapping diverges", (_what, line) => {
    expect(unwaivedOf(check(line + barMapping))).toEqual([
      "2: BAR, 0x200000 bytes: map OK, map EFAULT",
    ]);
  });

  it.each([0, 1, 2])("one call of three that finds the BAR elsewhere diverges, call %i", (odd) => {
    const trace = [0, 1, 2].map((call) => event(0x100, call === odd ? 0xf8000 : 0xf9000, 512));
    const outcome = check(bar + barMapping.repeat(3), trace.join(""));
    expect(unwaivedOf(outcome)).toHaveLength(1);
    expect(unwaivedOf(outcome)[0]).toMatch(new RegExp(`^${odd + 2}: .*at 0xf8000000, `));
  });

  it("sizes beyond reason are told and left out", () => {
    const huge = anon.replace("0x5000", "0xfffffffffffff000") + barMapping;
    const { tally, diagnostics } = check(huge);
    expect(tally.compared).toBe(0);
    expect(diagnostics.some(({ message }) => message.endsWith("2 in all"))).toBe(true);
  });
});
