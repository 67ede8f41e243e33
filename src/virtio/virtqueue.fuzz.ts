/** Fuzzes the device's queue against the plain one, and the fuzzer against planted bugs. */
import { expect, it } from "vitest";
import { fastDevice, fuzzOnce, plainDevice, type Tally } from "./virtqueue-fuzz.suite.ts";
import type { QueueFaultReason } from "./virtqueue-layout.ts";
import type { PlantedBug } from "./virtqueue-naive.suite.ts";

const LIVES = 8000;

const reached: readonly (QueueFaultReason | "paused")[] = [
  "paused",
  "available-index",
  "head-range",
  "next-range",
  "chain-too-long",
  "readable-after-writable",
  "buffer-outside-memory",
  "indirect-not-negotiated",
  "indirect-with-next",
  "indirect-nested",
  "indirect-length",
  "indirect-outside-memory",
];

it(`the fast device does as the plain one in ${LIVES} hostile lives`, () => {
  const tally: Tally = new Map();
  for (let seed = 1; seed <= LIVES; seed += 1)
    expect(fuzzOnce((place) => fastDevice(place, tally), seed)).toBe(null);
  // A fuzzer that never gets past the first check shows nothing: every outcome was reached.
  expect(tally.get("chain")).toBeGreaterThan(LIVES);
  for (const outcome of reached) expect(tally.get(outcome), outcome).toBeGreaterThan(LIVES / 2000);
});

const bugs: readonly PlantedBug[] = [
  "available-index-unchecked",
  "head-wraps",
  "next-wraps",
  "loop-unbounded",
  "memory-unchecked",
  "order-unchecked",
  "indirect-nested",
  "indirect-length-rounded",
  "descriptor-read-again",
  "writes-readable",
  "used-slot-unwrapped",
  "notify-always",
  "event-off-by-one",
];
for (const bug of bugs) {
  it(`the planted bug "${bug}" is found within 3000 lives`, () => {
    let found: string | null = null;
    for (let seed = 1; seed <= 3000 && found === null; seed += 1)
      found = fuzzOnce((place) => plainDevice(place, [bug]), seed);
    expect(found).not.toBe(null);
  });
}
