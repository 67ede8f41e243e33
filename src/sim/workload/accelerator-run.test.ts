import { describe, expect, it } from "vitest";
import { passedAccelerator, sharedAccelerator } from "../profiles/kunpeng-accelerator.ts";
import { type AcceleratorRun, runAccelerator } from "./accelerator-run.ts";

const MIB = 2 ** 20;

const usual: AcceleratorRun = {
  machine: passedAccelerator,
  messageBytes: MIB,
  times: 4,
  premap: 1,
  isFaulting: true,
};

function run(change: Partial<AcceleratorRun>) {
  return runAccelerator({ ...usual, ...change });
}

describe("an accelerator that faults", () => {
  it("gives the same run again", () => {
    expect(run({})).toEqual(run({}));
  });

  it("takes no fault, and no time for any, where everything is mapped", () => {
    expect(run({ isFaulting: false })).toMatchObject({ faults: 0, faultTime: 0 });
    expect(run({ isFaulting: false, machine: sharedAccelerator })).toMatchObject({ faults: 0 });
  });

  it("takes as much longer as its faults took, and no more", () => {
    for (const machine of [passedAccelerator, sharedAccelerator]) {
      const without = run({ machine, isFaulting: false });
      const withFaults = run({ machine });
      const difference = withFaults.time - without.time - withFaults.faultTime;
      // Whole picoseconds of each page.
      expect(Math.abs(difference)).toBeLessThan(4 * 1024);
    }
  });

  it("faults once a page of two sets of buffers, however many messages come", () => {
    const counts = [1, 2, 3, 10].map((times) => run({ times }).faults);
    expect(counts).toEqual([518, 1036, 1036, 1036]);
    const shared = [1, 2, 10].map((times) => run({ times, machine: sharedAccelerator }).faults);
    expect(shared).toEqual([512, 1024, 1024]);
  });

  it("gains from mapping more at a fault, and from more accesses in flight", () => {
    const single = run({}).faultTime;
    expect(run({ premap: 512 }).faultTime).toBeLessThan(single / 2);
    const narrow = { ...passedAccelerator, messages: 1 };
    expect(run({ machine: narrow }).faultTime).toBeGreaterThan(2 * single);
    // Counts do not depend on what is in flight.
    expect(run({ machine: narrow }).faults).toBe(1036);
  });
});
