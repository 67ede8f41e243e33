import { describe, expect, it } from "vitest";
import { allReduceMachine } from "../profiles/all-reduce-host.ts";
import { type AllReduceRun, runAllReduce } from "./all-reduce.ts";

const usual: AllReduceRun = {
  machine: { ...allReduceMachine, pages: 2 ** 16 },
  nodes: [0],
  byNode: null,
  mapperNode: 1,
  seed: 1,
  shareBytes: 4 * 2 ** 20,
};

function run(change: Partial<AllReduceRun>) {
  return runAllReduce({ ...usual, ...change });
}

describe("ring all-reduce", () => {
  it("gives the same run for the same seed, and another for another", () => {
    expect(run({})).toEqual(run({}));
    expect(run({ seed: 2 }).hash).not.toBe(run({}).hash);
  });

  it("loses by tables on the other node, and nothing where that is as near", () => {
    const remote = run({});
    const local = run({ nodes: [1] });
    expect(remote.remoteShare).toBe(1);
    expect(local.remoteShare).toBe(0);
    expect(remote.algbw / local.algbw).toBeLessThan(0.8);
    const interconnect = { latency: 0, bytesPerSecond: 1e15 };
    const machine = { ...usual.machine, interconnect };
    const equal = run({ machine }).algbw / run({ machine, nodes: [1] }).algbw;
    expect(Math.abs(equal - 1)).toBeLessThan(0.005);
    const both = run({ machine, nodes: [0, 1] }).algbw;
    expect(both / run({ machine, nodes: [0, 1], byNode: 1 }).algbw).toBeCloseTo(1, 2);
  });

  it("has no remote reads with a domain for each node, wherever the VMM runs", () => {
    for (const mapperNode of [0, 1]) {
      const { remoteShare, algbw } = run({ mapperNode, nodes: [0, 1], byNode: 1 });
      // The root table stays where it was made, and is cached after the first walk.
      expect(remoteShare).toBeLessThan(0.001);
      expect(algbw).toBeGreaterThan(run({ nodes: [0, 1] }).algbw * 1.2);
    }
  });

  it("loses on the other node when the VMM maps on this one", () => {
    const here = run({ mapperNode: 0 });
    const there = run({ mapperNode: 0, nodes: [1] });
    expect(there.algbw / here.algbw).toBeLessThan(0.8);
  });

  it("is limited by the wire where walks are quick", () => {
    const machine = { ...usual.machine, walkers: 64 };
    const { algbw, busbw } = run({ machine, nodes: [1] });
    // Four NICs of 25 GB/s.
    expect(busbw).toBeLessThan(100e9);
    expect(busbw).toBeGreaterThan(90e9);
    expect(busbw / algbw).toBeCloseTo(1.875, 6);
  });

  it("is limited by the link between nodes when that is thin", () => {
    const interconnect = { latency: 71_000, bytesPerSecond: 1e9 };
    const thin = run({ machine: { ...usual.machine, interconnect } });
    expect(thin.algbw).toBeLessThan(run({}).algbw / 1.5);
  });
});
