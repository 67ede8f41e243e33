/** Fuzzes the driver against a hostile device, and the fuzzer against a spoiled driver. */
import { expect, it } from "vitest";
import { fuzzDriver } from "./driver-fuzz.suite.ts";

const LIVES = 1000;

it(`the driver survives ${LIVES} hostile devices and recovers on an honest one`, () => {
  let dead = 0;
  let mappings = 0;
  for (let seed = 1; seed <= LIVES; seed += 1) {
    const life = fuzzDriver(seed);
    expect(life.wrong, `seed ${seed}`).toBe(null);
    if (life.wasDead) dead += 1;
    mappings += life.mappings;
  }
  // Both happen often enough: devices that die, and mappings that live through it.
  expect(dead).toBeGreaterThan(LIVES / 10);
  expect(mappings).toBeGreaterThan(LIVES);
});

it("a driver that forgets a mapping on the way is found", () => {
  let found = 0;
  for (let seed = 1; seed <= 100; seed += 1)
    if (fuzzDriver(seed, (domain) => domain.forget()).wrong !== null) found += 1;
  expect(found).toBeGreaterThan(20);
});
