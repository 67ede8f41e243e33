import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { policies, policyNamed } from "../../dma/policy.ts";
import { StackError } from "../../errors.ts";
import { profileNamed } from "../profiles/catalog.ts";
import { type MachineProfile, machineOf } from "../profiles/machine-profile.ts";
import { comparePolicies, type PolicyOutcome, timelineOf } from "./compare-policies.ts";
import { fioJobs } from "./fio-job.ts";
import { runFio } from "./fio-run.ts";

const desktop = profileNamed("flush-queue-desktop")!;
const qemu = profileNamed("this-qemu")!;

function jobs(rw: string, bs: string, depth: number, processes: number) {
  const text = `[j]\nrw=${rw}\nioengine=libaio\ndirect=1\nbs=${bs}\niodepth=${depth}\nnumjobs=${processes}`;
  return fioJobs(text, "t.fio").groups[0]!;
}

function compare(profile: MachineProfile, policy: string, load = jobs("randread", "4k", 16, 1)) {
  const named = [policyNamed(policy)!];
  return comparePolicies({ jobs: load, machine: machineOf(profile), policies: named, seed: 1 })[0]!;
}

function rate({ result }: PolicyOutcome): number {
  if (result.requests.kind !== "steady") throw new Error(result.requests.reason);
  return result.requests.mean;
}

describe("a hundred drawn machines", () => {
  const ns = fc.integer({ min: 0, max: 20_000 });
  const lock = fc.constantFrom("cpu", "lock a", "lock b");
  const steps = [
    "virtqueueKick",
    "virtqueueAdd",
    "userCall",
    "entryWrite",
    "invalidateWait",
  ] as const;
  const price = (step: (typeof steps)[number]) =>
    fc.record({
      step: fc.constant(step),
      on: lock,
      eachNs: ns,
      unitNs: fc.integer({ min: 0, max: 100 }),
      remoteUnitNs: ns,
      source: fc.constant("drawn"),
      fittedOn: fc.constant(null),
    });
  const machine: fc.Arbitrary<MachineProfile> = fc.record({
    name: fc.constant("drawn"),
    about: fc.constant(""),
    iommu: fc.constantFrom("virtio", "vtd"),
    cpusByNode: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 3 }),
    software: fc.record({
      submitNs: fc.integer({ min: 100, max: 20_000 }),
      completeNs: fc.integer({ min: 100, max: 20_000 }),
      source: fc.constant(""),
    }),
    disk: fc.record({
      channels: fc.integer({ min: 1, max: 64 }),
      readNs: fc.integer({ min: 0, max: 200_000 }),
      writeNs: fc.integer({ min: 0, max: 200_000 }),
      bytesPerSecond: fc.integer({ min: 1e8, max: 1e10 }),
      source: fc.constant(""),
    }),
    buffers: fc.record({
      breaksPerMille: fc.integer({ min: 0, max: 1000 }),
      source: fc.constant(""),
    }),
    host: fc.constant(null),
    prices: fc.tuple(...steps.map(price)),
  });
  const load = fc.tuple(
    fc.constantFrom("randread", "randwrite", "randrw"),
    fc.constantFrom("4k", "16k", "64k"),
    fc.integer({ min: 1, max: 16 }),
    fc.integer({ min: 1, max: 6 }),
  );

  const EVENTS = 300_000;

  it("obey Little's law and conserve requests and time", () => {
    let judged = 0;
    fc.assert(
      fc.property(machine, load, fc.constantFrom(...policies), (profile, asked, policy) => {
        const [rw, bs, depth, processes] = asked;
        const inFlight = depth * processes;
        const drawn = machineOf(profile);
        const result = runFio({
          jobs: jobs(rw, bs, depth, processes),
          machine: drawn,
          policy,
          seed: 1,
          windows: 100,
          windowPs: 3e8,
          eventsMax: EVENTS,
        });
        const { where, resources, time, latency } = result;
        // Time: the parts of all requests add up to their latencies.
        expect(where.parts.reduce((sum, part) => sum + part.time, 0)).toBe(where.latency);
        expect(where.nodes.reduce((sum, node) => sum + node.requests, 0)).toBe(where.requests);
        // Requests: what the disk was given came back, but for those still there.
        const disk = resources.find(({ name }) => name === "disk")!;
        expect(disk.granted - result.completed).toBeGreaterThanOrEqual(0);
        expect(disk.granted - result.completed).toBeLessThanOrEqual(inFlight);
        // Nothing is held for longer than time passed.
        for (const { busyTime, servers } of resources) {
          expect(busyTime).toBeLessThanOrEqual(time * servers);
        }
        // Little: in flight = rate x latency, as nobody thinks between requests. Summed over a run,
        // the latencies miss only what is in flight at its two ends.
        if (result.events >= EVENTS) return;
        judged += 1;
        const measured = time * 0.9;
        const slack = 2 * inFlight * latency.max;
        expect(Math.abs(where.latency - inFlight * measured)).toBeLessThanOrEqual(slack);
      }),
      { seed: 11, numRuns: 100 },
    );
    expect(judged).toBeGreaterThanOrEqual(95);
  });
});

describe("a comparison of policies", () => {
  it("is the same for the same seed, to the last bit", () => {
    const hash = () => compare(qemu, "strict").result.hash;
    expect(hash()).toBe(hash());
  });

  it("says that it is not the IOMMU where the disk is what holds requests back", () => {
    const slow = { ...desktop, disk: { ...desktop.disk, bytesPerSecond: 2e8 } };
    const outcome = compare(slow, "strict", jobs("randwrite", "64k", 16, 4));
    expect(outcome.translationGain).toBeLessThan(0.02);
    expect(outcome.best).toMatchObject({ id: "disk-bandwidth", isTranslation: false });
    expect(outcome.best!.gain).toBeCloseTo(1, 1);
  });

  it("says that it is the IOMMU where the kick is, and a free kick keeps the promise", () => {
    const outcome = compare(qemu, "strict");
    expect(outcome.best).toMatchObject({ id: "free:virtqueueKick", isTranslation: true });
    const free = qemu.prices.map((price) =>
      price.step === "virtqueueKick" ? { ...price, eachNs: 0 } : price,
    );
    const promised = rate(outcome) * (1 + outcome.best!.gain!);
    expect(rate(compare({ ...qemu, prices: free }, "strict")) / promised).toBeCloseTo(1, 1);
  });

  it("says CPUs where processes share one, and promises no more than twice", () => {
    const outcome = compare(qemu, "passthrough", jobs("randread", "4k", 8, 2));
    const cpus = outcome.changes.find(({ id }) => id === "cpus")!;
    expect(cpus.gain).toBeGreaterThan(0.5);
    expect(cpus.gain).toBeLessThan(1.05);
  });

  it("says what the way to the IOMMU's node costs, and nothing of it where there is no way", () => {
    const server = profileNamed("two-node-server")!;
    const load = jobs("randread", "4k", 64, 1);
    const named = [policyNamed("strict")!];
    const options = { jobs: load, machine: machineOf(server), policies: named, seed: 1 };
    const [far] = comparePolicies({ ...options, cpus: [16] });
    const [near] = comparePolicies({ ...options, cpus: [0] });
    const local = far!.changes.find(({ id }) => id === "local")!;
    expect(rate(far!) * (1 + local.gain!)).toBeCloseTo(rate(near!), -3);
    expect(local.gain).toBeGreaterThan(0.1);
    expect(near!.changes.some(({ id }) => id === "local")).toBe(false);
  });

  it("calls a lock that nobody waits for by its name", () => {
    const outcome = compare(desktop, "strict", jobs("randwrite", "64k", 16, 16));
    const ids = outcome.changes.map(({ id }) => id);
    expect(ids).toContain("unlimited:virtio-iommu request lock");
  });

  it("has no mean where next to nothing happened, or no time for it to settle", () => {
    const machine = machineOf(qemu);
    const load = jobs("randread", "4k", 1, 1);
    const named = [policyNamed("strict")!];
    const options = { jobs: load, machine, policies: named, seed: 1, timePs: 1e9 };
    const [outcome] = comparePolicies(options);
    expect(outcome!.result.requests).toMatchObject({ kind: "unsettled", reason: "too-short" });
    expect(outcome!.changes).toEqual([]);
  });

  it("is bounded on a machine where a request takes picoseconds or hours", () => {
    const quick = {
      ...qemu,
      software: { submitNs: 1, completeNs: 0, source: "" },
      disk: { channels: 65_536, readNs: 0, writeNs: 0, bytesPerSecond: 1e15, source: "" },
    };
    expect(rate(compare(quick, "passthrough"))).toBeGreaterThan(1e8);
    const slow = { ...qemu, disk: { ...qemu.disk, readNs: 1e12 } };
    const { result } = compare(slow, "passthrough", jobs("randread", "4k", 1, 1));
    expect(result.time).toBeLessThanOrEqual(3600e12);
  });

  it("whose buffers a container does not take is an error, not a crash", () => {
    const load = jobs("randwrite", "256k", 1000, 4);
    const slow = {
      ...desktop,
      buffers: { breaksPerMille: 1000, source: "" },
      disk: { ...desktop.disk, writeNs: 1e9 },
      prices: [],
    };
    expect(() => compare(slow, "strict", load)).toThrow(StackError);
  });

  it("has a timeline in a window behind the warm-up", () => {
    const options = {
      jobs: jobs("randread", "4k", 16, 1),
      machine: machineOf(qemu),
      policies: [policyNamed("strict")!],
      seed: 1,
    };
    const [outcome] = comparePolicies(options);
    const slices = timelineOf(options, outcome!);
    expect(slices.length).toBeGreaterThan(100);
    const tracks = new Set(slices.map(({ track }) => track));
    expect([...tracks].sort()).toEqual(["CPU 0", "virtio-iommu request lock"]);
    expect(slices.every(({ start }) => start >= 20 * outcome!.windowPs)).toBe(true);
  });
});
