import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { recordingKinds } from "../recording/kinds.ts";
import type { RecordingResult } from "../recording/verify/result.ts";
import { RECORDING_WAIVERS } from "../recording/verify/waivers.ts";
import { renderVerified } from "./verify-text.ts";

const result: RecordingResult = {
  file: "boot.txt",
  kind: "ftrace",
  compared: 10,
  matched: 6,
  waived: 1,
  moves: 3,
  flushesInferred: 65,
  inferredBefore: 4,
  lostEvents: 12,
  lostMarkers: 2,
  waivers: [{ name: "trace-lost-events", rows: 1 }],
  divergences: [
    { line: 7, expected: "0x1000", got: "0x2000", waivedBy: null, what: "4 pages" },
    { line: 8, expected: "a", got: "b", waivedBy: "trace-lost-events" },
  ],
  divergencesOmitted: 2,
};
const render = (changes: Partial<RecordingResult> = {}, width = 100) =>
  renderVerified({ ...result, ...changes }, width, (_role, text) => text);

describe("a verified recording in a terminal", () => {
  it("shows rows, schedule, inferences, losses, waivers and divergences", () => {
    expect(render()).toEqual([
      "boot.txt  ftrace: DIVERGES",
      "  10 rows compared: 6 match (60.00 %), 1 waived, 3 diverge",
      "  schedule inferred: 3 allocations moved before their event, 65 flushes",
      "  4 mappings from before the recording inferred",
      "  LOST: the recording says that 12 events are missing",
      "  1 waived by trace-lost-events: kernel/trace/trace.c: the ring buffer overwrites what is not read",
      "    in time",
      "  boot.txt:7: 4 pages: expected 0x1000, got 0x2000",
    ]);
  });

  it("says so when there was nothing to compare", () => {
    const lines = render({
      compared: 0,
      matched: 0,
      waived: 0,
      waivers: [],
      divergences: [],
      divergencesOmitted: 0,
    });
    expect(lines[0]).toBe("boot.txt  ftrace: nothing to compare");
    expect(lines[1]).toBe("  0 rows compared: 0 match, 0 waived, 0 diverge");
  });

  it("says 100 % only when every row matches", () => {
    const lines = render({ compared: 100_000, matched: 99_999, waived: 1, divergences: [] });
    expect(lines[0]).toBe("boot.txt  ftrace: verified");
    expect(lines[1]).toContain("99,999 match (99.99 %)");
  });
});

describe("the page on verify", () => {
  const page = readFileSync(new URL("../../docs/verify.md", import.meta.url), "utf8");

  it("names every key of a result", () => {
    for (const key of Object.keys(result)) expect(page).toContain(`\`${key}\``);
  });

  it("names every kind of recording and every waiver of recordings", () => {
    for (const { name } of recordingKinds) expect(page).toContain(`\`${name}\``);
    for (const name of Object.keys(RECORDING_WAIVERS)) expect(page).toContain(`\`${name}\``);
  });
});
