/** Readers give the same events however a recording is cut into chunks. */
import { describe, expect, it } from "vitest";
import { familyExcerpts, readWith } from "./reading.suite.ts";

describe.each(Object.entries(familyExcerpts))("the reader of %s", (_name, { family, text }) => {
  const bytes = new TextEncoder().encode(text);
  const whole = readWith(family, [bytes]);

  it("gives events and notes that are worth comparing", () => {
    expect(whole.filter((entry) => entry.startsWith("event")).length).toBeGreaterThan(1);
    expect(whole.at(-1)).toContain("unreadable");
  });

  it("gives the same when cut in two at every byte", () => {
    for (let cut = 0; cut <= bytes.length; cut += 1) {
      expect(readWith(family, [bytes.subarray(0, cut), bytes.subarray(cut)])).toEqual(whole);
    }
  });

  it("gives the same in chunks of one to fifty bytes", () => {
    for (let size = 1; size <= 50; size += 1) {
      const chunks: Uint8Array[] = [];
      for (let at = 0; at < bytes.length; at += size) chunks.push(bytes.slice(at, at + size));
      expect(readWith(family, chunks)).toEqual(whole);
    }
  });
});
