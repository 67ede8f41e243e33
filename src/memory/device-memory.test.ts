import { describe, expect, it } from "vitest";
import { SegmentCollector } from "./device-memory.ts";
import { GuestMemory } from "./guest-memory.ts";
import { newView } from "./memory-view.ts";

const shape = (list: SegmentCollector): number[][] =>
  list.segments.map((segment) => [segment.at, segment.bytes]);

describe("SegmentCollector", () => {
  it("joins pieces that follow each other in one view, and only those", () => {
    const list = new SegmentCollector();
    const one = newView(64);
    const other = newView(64);
    list.add(one, 0, 8);
    list.add(one, 8, 8);
    list.add(one, 24, 8);
    list.add(other, 32, 8);
    expect(shape(list)).toEqual([
      [0, 16],
      [24, 8],
      [32, 8],
    ]);
    expect(list.bytes).toBe(32);
  });

  it("goes back to any length, also into the middle of a piece", () => {
    const view = newView(64);
    for (let bytes = 0; bytes <= 32; bytes += 1) {
      const list = new SegmentCollector();
      list.add(view, 0, 16);
      list.add(view, 32, 16);
      list.truncate(bytes);
      expect(list.bytes).toBe(bytes);
      expect(list.segments.reduce((sum, segment) => sum + segment.bytes, 0)).toBe(bytes);
      list.add(view, 60, 2);
      expect(list.segments.reduce((sum, segment) => sum + segment.bytes, 0)).toBe(bytes + 2);
    }
  });

  it("is filled again with the same objects", () => {
    const list = new SegmentCollector();
    list.add(newView(8), 0, 8);
    const first = list.segments[0];
    list.clear();
    expect([list.bytes, list.segments.length]).toEqual([0, 0]);
    list.add(newView(8), 4, 4);
    expect(list.segments[0]).toBe(first);
    expect(shape(list)).toEqual([[4, 4]]);
  });
});

describe("GuestMemory.collect", () => {
  it("gives the pieces of a range across chunks and neighbouring regions, to write through", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x2_0000 });
    memory.addRegion({ start: 0x2_1000, bytes: 0x1000 });
    const list = new SegmentCollector();
    expect(memory.collect(0x1_0ff0, 0, 0x1_0100, true, list)).toBe(true);
    expect(list.bytes).toBe(0x1_0100);
    expect(list.segments.length).toBe(3);
    const last = list.segments[2]!;
    last.view.u8[last.at + last.bytes - 1] = 0x77;
    expect(memory.readU8(0x1_0ff0 + 0x1_0100 - 1)).toBe(0x77);
  });

  it("leaves the list as it was when a byte is outside memory or the budget is used up", () => {
    const memory = new GuestMemory(65_536);
    memory.addRegion({ start: 0, bytes: 0x2_0000 });
    const list = new SegmentCollector();
    expect(memory.collect(0x10, 0, 0x10, true, list)).toBe(true);
    expect(memory.collect(0x1_fff0, 0, 0x11, false, list)).toBe(false);
    expect(memory.collect(0xfff0, 0, 0x20, true, list)).toBe(false);
    expect(memory.collect(0, 1, 1, false, list)).toBe(false);
    expect(memory.collect(0xffff_ffff, 0xffff_ffff, 2, false, list)).toBe(false);
    expect(shape(list)).toEqual([[0x10, 0x10]]);
    expect(memory.collect(0xfff0, 0, 0x20, false, list)).toBe(true);
    expect(list.bytes).toBe(0x30);
  });
});
