import { describe, expect, it } from "vitest";
import { type LineSink, LineSplitter } from "./line-splitter.ts";

class Collector implements LineSink {
  readonly lines: string[] = [];
  line(bytes: Uint8Array, start: number, end: number, number: number, terminated: boolean): void {
    const text = new TextDecoder().decode(bytes.subarray(start, end));
    this.lines.push(`${number}${terminated ? "" : "~"}:${text}`);
  }
  longLine(number: number): void {
    this.lines.push(`${number}!`);
  }
}

function split(text: string, sizes: readonly number[], limit = 16): string[] {
  const bytes = new TextEncoder().encode(text);
  const collector = new Collector();
  const splitter = new LineSplitter(collector, limit);
  let at = 0;
  for (let turn = 0; at < bytes.length; turn += 1) {
    const size = sizes[turn % sizes.length]!;
    splitter.push(bytes.slice(at, at + size));
    at += size;
  }
  splitter.end();
  return collector.lines;
}

describe("LineSplitter", () => {
  it("gives LF and CR LF lines without their ends, and the last one without", () => {
    expect(split("a\r\n\nbc\n\rd\ne", [100])).toEqual(["1:a", "2:", "3:bc", "4:\rd", "5~:e"]);
  });

  it("gives nothing for nothing", () => {
    expect(split("", [1])).toEqual([]);
  });

  it("keeps a NUL inside a line", () => {
    expect(split("a\0b\n", [100])).toEqual(["1:a\0b"]);
  });

  it("skips a line over the limit and goes on with the next", () => {
    const text = `ok\n${"x".repeat(17)}\nok\n${"y".repeat(16)}\n${"z".repeat(40)}`;
    const expected = ["1:ok", "2!", "3:ok", `4:${"y".repeat(16)}`, "5!"];
    for (const size of [1, 2, 3, 7, 16, 17, 18, 1000])
      expect(split(text, [size])).toEqual(expected);
  });

  it("counts a CR before the LF not against the limit", () => {
    const text = `${"y".repeat(16)}\r\nok\n`;
    for (const size of [1, 5, 17, 18, 100]) {
      expect(split(text, [size])).toEqual([`1:${"y".repeat(16)}`, "2:ok"]);
    }
  });

  it("gives the same lines wherever the chunks are cut", () => {
    const text = "first\nsecond line\r\n\n\r\nlast";
    const whole = split(text, [1000]);
    for (let size = 1; size < text.length; size += 1) expect(split(text, [size])).toEqual(whole);
  });

  it("collects no more than the limit of a line without end", () => {
    const collector = new Collector();
    const splitter = new LineSplitter(collector, 1024);
    const chunk = new Uint8Array(65_536).fill(0x61);
    for (let count = 0; count < 1000; count += 1) splitter.push(chunk);
    splitter.push(Uint8Array.of(10));
    splitter.end();
    expect(collector.lines).toEqual(["1!"]);
  });
});
