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

  it("events of which some are missing are told, and what is there is compared", () => {
    const lines = virtioEvents.split("\n");
    const first = lines.findIndex((line) => line.includes(" map: "));
    lines.splice(first, 1);
    const outcome = check(virtio, lines.join("\n"));
    expect(unwaivedOf(outcome)).toEqual([]);
    expect(outcome.diagnostics.map(({ message }) => message)).toContain(
      "1 mappings have no map events that make up their size",
    );
  });

  it.each([
    ["frame 0", event(0x100, 0, 5)],
    ["a frame twice", event(0x100, 0x500, 2) + event(0x102, 0x501, 3)],
    ["frames past the end", event(0x100, 2 ** 52 - 4, 5)],
  ])("memory that no process has, %s: told and left out", (_what, trace) => {
    const { tally, diagnostics } = check(anon, trace);
    expect(tally.compared).toBe(0);
    expect(diagnostics.some(({ message }) => message.includes("no memory of a process"))).toBe(
      true,
    );
  });

  it("sizes beyond reason are told and left out", () => {
    const huge = anon.replace("0x5000", "0xfffffffffffff000") + barMapping;
    const { tally, diagnostics } = check(huge);
    expect(tally.compared).toBe(0);
    expect(diagnostics.some(({ message }) => message.endsWith("2 in all"))).toBe(true);
  });
});
