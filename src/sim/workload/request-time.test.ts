import { describe, expect, it } from "vitest";
import { policies, policyNamed } from "../../dma/policy.ts";
import { flushQueueGuest } from "../profiles/flush-queue-desktop.ts";
import { fioJobs } from "./fio-job.ts";
import { type FioMachine, runFio } from "./fio-run.ts";
import { SliceRecorder } from "./slices.ts";

const BLOCKS = "[j]\nrw=randrw\nioengine=libaio\ndirect=1\niodepth=8\nnumjobs=8\nbs=64k";

function run(policy: string, machine: FioMachine, slices?: SliceRecorder) {
  const jobs = fioJobs(BLOCKS, "t.fio").groups[0]!;
  const more = slices === undefined ? {} : { slices };
  const named = policyNamed(policy)!;
  return runFio({ jobs, machine, policy: named, seed: 3, windows: 100, windowPs: 2e8, ...more });
}

describe("where the time of requests went", () => {
  it.each(policies.map(({ name }) => name))(
    "%s: the parts add up to the latencies, to the picosecond",
    (policy) => {
      for (const iommu of ["virtio", "vtd"] as const) {
        const { where, latency } = run(policy, { ...flushQueueGuest, iommu });
        const sum = where.parts.reduce((all, { time }) => all + time, 0);
        expect(where.requests).toBeGreaterThan(100);
        expect(sum).toBe(where.latency);
        expect(where.latency / where.requests).toBeCloseTo(latency.mean, 3);
      }
    },
  );

  it("waits for a lock only where one is taken, and not at all for one that has no limit", () => {
    const waits = (policy: string, machine: FioMachine = flushQueueGuest) =>
      run(policy, machine).where.parts.filter(({ kind }) => kind === "wait");
    const lock = "virtio-iommu request lock";
    const names = (list: readonly { resource: string }[]) => list.map(({ resource }) => resource);
    expect(names(waits("strict"))).toContain(lock);
    expect(names(waits("passthrough"))).not.toContain(lock);
    expect(names(waits("strict", { ...flushQueueGuest, unlimited: [lock] }))).not.toContain(lock);
  });

  it("is told by node, with what was paid for the way to another", () => {
    const nodeOfCpu = Array.from({ length: 16 }, (_, cpu) => cpu % 2);
    const prices = flushQueueGuest.prices.with([
      {
        step: "virtqueueKick",
        eachNs: 3600,
        unitNs: 0,
        remoteUnitNs: 500,
        on: "virtio-iommu request lock",
        source: "test",
        fittedOn: null,
      },
    ]);
    const { nodes } = run("strict", { ...flushQueueGuest, nodeOfCpu, prices }).where;
    expect(nodes.map(({ remote }) => remote > 0)).toEqual([false, true]);
    expect(nodes.every(({ requests }) => requests > 100)).toBe(true);
  });

  it("slices of one track do not overlap, and begin in their window", () => {
    const recorder = new SliceRecorder(1e9, 2e9);
    run("strict", flushQueueGuest, recorder);
    const last = new Map<string, number>();
    expect(recorder.slices.length).toBeGreaterThan(50);
    for (const { track, start, end } of recorder.slices) {
      expect(start).toBeGreaterThanOrEqual(Math.max(1e9, last.get(track) ?? 0));
      expect(end).toBeGreaterThanOrEqual(start);
      last.set(track, end);
    }
  });
});
