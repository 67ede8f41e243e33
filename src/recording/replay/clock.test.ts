import { describe, expect, it } from "vitest";
import { RecordingClock } from "./clock.ts";

describe("RecordingClock", () => {
  it("counts from the first event", () => {
    const clock = new RecordingClock();
    expect([clock.advance(5_000_000, 250), clock.advance(5_000_010, 300)]).toEqual([0, 10_050]);
  });

  it("waits while time runs back a little, and then goes on as recorded", () => {
    const clock = new RecordingClock();
    clock.advance(1000, 0);
    clock.advance(2000, 0);
    expect([clock.advance(1500, 0), clock.advance(2001, 0)]).toEqual([1_000_000, 1_001_000]);
  });

  it("goes on from where it stood when a second recording follows", () => {
    const clock = new RecordingClock();
    clock.advance(60_000_000, 0);
    clock.advance(60_000_100, 0);
    expect([clock.advance(7_000_000, 0), clock.advance(7_000_001, 0)]).toEqual([100_000, 101_000]);
  });
});
