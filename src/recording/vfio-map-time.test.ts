import { describe, expect, it } from "vitest";
import { eventsOfCalls } from "./events-of-calls.ts";
import { MapEvents } from "./map-events.ts";
import { MapTimeReader, type RecordedBar, type TimedMapping } from "./vfio-map-time.ts";

function readAll(text: string) {
  const bars: RecordedBar[] = [];
  const mappings: TimedMapping[] = [];
  const reader = new MapTimeReader({
    bar: (bar) => bars.push(bar),
    mapping: (mapping) => mappings.push(mapping),
  });
  reader.push(new TextEncoder().encode(text));
  reader.end();
  const problems = reader.notes.unreadableLines.map(({ line, problem }) => `${line} ${problem}`);
  return { bars, mappings, problems };
}

describe("MapTimeReader", () => {
  it("reads the BAR and each mapping; times are not looked at", () => {
    const { bars, mappings, problems } = readAll(
      '{"bar":2,"size":"0x400000000","flags":7}\n' +
        '{"kind":"bar","size":"0x200000","errno":0,"map_s":1e-5,"unmap_s":-0.1}\n\n' +
        '{"kind":"anon","thp":1,"size":"0x200000","errno":12,"unmap_errno":22,"unmapped":"0x0","map_s":0.1}',
    );
    expect(problems).toEqual([]);
    expect(bars).toEqual([{ line: 1, index: 2, pages: 2 ** 22, flags: 7 }]);
    expect(mappings).toEqual([
      {
        line: 2,
        kind: "bar",
        isHuge: null,
        pages: 512,
        errno: 0,
        unmapErrno: null,
        unmapped: null,
      },
      {
        line: 4,
        kind: "anon",
        isHuge: true,
        pages: 512,
        errno: 12,
        unmapErrno: 22,
        unmapped: 0n,
      },
    ]);
  });

  it.each([
    ['{"kind":"bar","size":"0x200001","errno":0}', "a field is missing or wrong"],
    ['{"kind":"bar","size":"0x200000"}', "a field is missing or wrong"],
    ['{"bar":2,"size":-5,"flags":7}', "a field is missing or wrong"],
    ['{"kind":"ram","size":"0x200000","errno":0}', "not a known row"],
    ['{"size":"0x200000"}', "not a known row"],
    ['{"kind":"bar","size":"0x1000","errno":0,"unmapped":"all"}', "a field is missing or wrong"],
    ['{"kind":"bar","size":"0x1000","errno":0,"unmap_errno":-5}', "a field is missing or wrong"],
    ['{"kind":"bar","kind":"anon","size":"0x1000","errno":0}', "a key stands twice"],
    ['{"kind":"bar","size":"0x2000', "torn"],
  ])("%s: %s", (text, problem) => {
    const { mappings, problems } = readAll(`${text}\n`);
    expect(mappings).toEqual([]);
    expect(problems).toEqual([`1 ${problem}`]);
  });
});

/** Events as `task map|unmap iova pages`, in 4 KiB units. */
function eventsOf(...lines: string[]): MapEvents {
  const events = new MapEvents();
  const text = lines.map((line, index) => {
    const [task, kind, iova, pages] = line.split(" ") as [string, string, string, string];
    const start = Number.parseInt(iova, 16) * 4096;
    const bytes = Number(pages) * 4096;
    const range = `iova=0x${start.toString(16)} - 0x${(start + bytes).toString(16)}`;
    const rest =
      kind === "map" ? `paddr=0x5000 size=${bytes}` : `size=${bytes} unmapped_size=${bytes}`;
    return `  vm-${task}  [000] .....  1.${String(index).padStart(6, "0")}: ${kind}: IOMMU: ${range} ${rest}\n`;
  });
  events.push(new TextEncoder().encode(text.join("")));
  events.end();
  return events;
}

describe("eventsOfCalls", () => {
  const whole = { isWhole: true };

  it("takes the events that follow each other and make up a call, then its unmaps", () => {
    const events = eventsOf("7 map 100 2", "7 map 102 3", "7 unmap 100 5", "7 map 100 5");
    expect(eventsOfCalls(events, [5, 0, 5])).toEqual({
      window: { task: 7, startPfn: 0x100, endPfn: 0x105 },
      found: 2,
      orphans: [],
      callsBefore: 0,
      calls: [
        { first: 0, end: 2, unmapEnd: 3, ...whole },
        null,
        { first: 3, end: 4, unmapEnd: 4, ...whole },
      ],
    });
  });

  it("passes over other tasks, and over what the task maps elsewhere, between events too", () => {
    const events = eventsOf(
      "3 map 1 1",
      "7 map 90 1",
      "7 map 100 5",
      "7 map 100 2",
      "7 map 90 1",
      "3 map 2 1",
      "7 map 102 3",
    );
    expect(eventsOfCalls(events, [5, 5])).toMatchObject({
      calls: [
        { first: 2, end: 3, unmapEnd: 3, ...whole },
        { first: 3, end: 7, unmapEnd: 7, ...whole },
      ],
      orphans: [],
    });
  });

  it("events that do not make up a call are given to it, those of no call are orphans", () => {
    const events = eventsOf(
      "7 unmap 100 5",
      "7 map 100 5",
      "7 map 100 4",
      "7 map 103 1",
      "7 map 100 7",
      "7 map 101 1",
      "7 unmap 101 1",
    );
    expect(eventsOfCalls(events, [5, 6, 7])).toMatchObject({
      found: 2,
      calls: [whole, { first: 2, end: 4, unmapEnd: 4, isWhole: false }, whole],
      orphans: [
        { first: 0, last: 0, count: 1, afterCall: -1 },
        { first: 5, last: 6, count: 2, afterCall: 2 },
      ],
    });
  });

  it("tells calls that lie before the trace from those whose events are missing in it", () => {
    expect(eventsOfCalls(eventsOf("7 map 100 5"), [6, 5])!.callsBefore).toBe(1);
    expect(eventsOfCalls(eventsOf("3 map 1 1", "7 map 100 5"), [6, 5])!.callsBefore).toBe(0);
  });

  it("finds nothing where sizes do not add up", () => {
    const events = eventsOf("7 map 100 2", "7 map 102 4", "7 map 200 1");
    expect(eventsOfCalls(events, [5])).toBe(null);
    expect(eventsOfCalls(new MapEvents(), [5])).toBe(null);
  });
});
