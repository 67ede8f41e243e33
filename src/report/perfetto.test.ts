import { describe, expect, it } from "vitest";
import { perfettoTrace } from "./perfetto.ts";

type Field = number | Uint8Array;

/** A reader of protocol buffers of its own: field numbers and values in order. */
function fieldsOf(bytes: Uint8Array): [number, Field][] {
  const fields: [number, Field][] = [];
  let at = 0;
  const varint = () => {
    let value = 0;
    for (let scale = 1; ; scale *= 128) {
      const byte = bytes[at]!;
      at += 1;
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
    }
  };
  while (at < bytes.length) {
    const key = varint();
    if ((key & 7) === 0) fields.push([key >> 3, varint()]);
    else {
      expect(key & 7).toBe(2);
      const length = varint();
      fields.push([key >> 3, bytes.subarray(at, at + length)]);
      at += length;
    }
  }
  return fields;
}

const message = (bytes: Uint8Array) => new Map(fieldsOf(bytes));
const text = (field: Field | undefined) => new TextDecoder().decode(field as Uint8Array);

describe("a Perfetto trace", () => {
  const slices = [
    { track: "CPU 10", name: "map", start: 1000, end: 5_000_000_000_000 },
    { track: "CPU 2", name: "unmap", start: 2999, end: 2999 },
  ];
  const packets = fieldsOf(perfettoTrace([{ name: "strict", slices }])).map(([field, bytes]) => {
    expect(field).toBe(1);
    return message(bytes as Uint8Array);
  });

  it("has a track for each CPU below its policy, in the order of their numbers", () => {
    const tracks = packets.filter((packet) => packet.has(60));
    const described = tracks.map((packet) => message(packet.get(60) as Uint8Array));
    expect(described.map((one) => [one.get(1), text(one.get(2)), one.get(5)])).toEqual([
      [1, "strict", undefined],
      [2, "CPU 2", 1],
      [3, "CPU 10", 1],
    ]);
  });

  it("has begin and end of each slice in whole nanoseconds", () => {
    const events = packets
      .filter((packet) => packet.has(11))
      .map((packet) => [packet.get(8), message(packet.get(11) as Uint8Array)] as const);
    expect(events.map(([time, event]) => [time, event.get(9), event.get(11)])).toEqual([
      [1, 1, 3],
      [5_000_000_000, 2, 3],
      [2, 1, 2],
      [2, 2, 2],
    ]);
    expect(events.map(([, event]) => event.has(23))).toEqual([true, false, true, false]);
    expect(text(events[0]![1].get(23))).toBe("map");
  });

  it("of nothing is empty", () => {
    expect(perfettoTrace([])).toHaveLength(0);
  });
});
