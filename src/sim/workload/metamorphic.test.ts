/** Published machines, changed: results must follow, or they are put in by hand. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { policyNamed } from "../../dma/policy.ts";
import type { StepName } from "../../meter.ts";
import { flushQueueGuest } from "../profiles/flush-queue-desktop.ts";
import { machineOf } from "../profiles/machine-profile.ts";
import { broadwell } from "../profiles/pcie-bench.ts";
import { twoNodeServer } from "../profiles/two-node-server.ts";
import { fioJobs } from "./fio-job.ts";
import { type FioMachine, runFio } from "./fio-run.ts";
import { runWindow, type WindowMachine } from "./random-window.ts";

const BLOCKS = "[j]\nrw=randwrite\nioengine=libaio\ndirect=1\niodepth=16\nnumjobs=16\nbs=64k";
const PAGES = "[j]\nrw=randread\nioengine=libaio\ndirect=1\niodepth=64\nbs=4k\nnumjobs=4";

function rate(machine: FioMachine, policy: string, text: string, cpus?: readonly number[]) {
  const { requests } = runFio({
    jobs: fioJobs(text, "t.fio").groups[0]!,
    machine,
    policy: policyNamed(policy)!,
    seed: 1,
    windows: 120,
    windowPs: text === BLOCKS ? 2e9 : 1e8,
    ...(cpus === undefined ? {} : { cpus }),
  });
  if (requests.kind !== "steady") throw new Error(requests.reason);
  return requests.mean;
}

function priced(machine: FioMachine, change: (step: StepName) => object): FioMachine {
  const { prices } = machine;
  return {
    ...machine,
    prices: prices.with(prices.prices.map((one) => ({ ...one, ...change(one.step) }))),
  };
}

const syncs: readonly StepName[] = ["invalidateRange", "invalidateDomain", "invalidateWait"];

describe("the desktop of the flush-queue thread", () => {
  const share = (machine: FioMachine, policy: string) =>
    rate(machine, policy, BLOCKS) / rate(machine, "passthrough", BLOCKS);
  const { disk } = flushQueueGuest;
  const faster = {
    ...flushQueueGuest,
    disk: {
      ...disk,
      bytesPerSecond: disk.bytesPerSecond * 2,
      writeNs: disk.writeNs / 2,
      readNs: disk.readNs / 2,
    },
  };

  it.each(["lazy-sq+map", "lazy-mq+map"])(
    "%s is at 100 percent, and not on a disk twice as fast",
    (policy) => {
      expect(share(flushQueueGuest, policy)).toBeGreaterThan(0.985);
      expect(share(faster, policy)).toBeLessThan(0.95);
    },
  );
});

describe("a server with VT-d", () => {
  const server = machineOf(twoNodeServer);
  // A disk that does not hold anything back.
  const disk = { ...server.disk, channels: 4096, bytesPerSecond: 1e13 };
  const quick = { ...server, disk };

  it("is as fast strict as lazy where a sync costs nothing, and not where it does", () => {
    const ratio = (machine: FioMachine) =>
      rate(machine, "strict", PAGES) / rate(machine, "lazy-mq", PAGES);
    const free = priced(quick, (step) =>
      syncs.includes(step) ? { eachNs: 0, unitNs: 0, remoteUnitNs: 0 } : {},
    );
    expect(ratio(free)).toBeGreaterThan(0.98);
    expect(ratio(free)).toBeLessThan(1.06);
    expect(ratio(quick)).toBeLessThan(0.8);
  });

  it("is as fast from the other node where the way there costs nothing, and not where it does", () => {
    const ratio = (machine: FioMachine) =>
      rate(machine, "strict", PAGES, [16, 17, 18, 19]) /
      rate(machine, "strict", PAGES, [0, 1, 2, 3]);
    expect(ratio(priced(quick, () => ({ remoteUnitNs: 0 })))).toBe(1);
    expect(ratio(quick)).toBeLessThan(0.9);
  });
});

describe("a hundred drawn machines with a device", () => {
  const nanoseconds = fc.integer({ min: 0, max: 500 });
  const link = fc.record({
    latency: fc.integer({ min: 1, max: 500_000 }),
    bytesPerSecond: fc.integer({ min: 1e8, max: 1e11 }),
  });
  const speed = fc.record({
    inFlight: fc.integer({ min: 1, max: 64 }),
    gap: fc.integer({ min: 1, max: 50_000 }),
  });
  const machine: fc.Arbitrary<WindowMachine> = fc
    .record({
      miss: nanoseconds,
      hit: nanoseconds,
      entry: nanoseconds,
      iotlbEntries: fc.integer({ min: 1, max: 80 }),
      caches: fc.boolean(),
      walkers: fc.integer({ min: 1, max: 40 }),
      up: link,
      down: link,
      reads: speed,
      writes: speed,
      memoryTime: fc.integer({ min: 0, max: 1_000_000 }),
    })
    .map(({ miss, hit, entry, caches, ...rest }) => ({
      ...rest,
      prices: broadwell.prices.with(
        (["iotlbMiss", "iotlbHit", "entryRead"] as const).map((step, index) => ({
          ...broadwell.prices.prices[0]!,
          step,
          eachNs: [miss, hit, entry][index]!,
        })),
      ),
      pagingCache: caches ? { sets: 1, ways: 8, replacement: "lru" } : null,
      cacheTime: rest.memoryTime,
      cacheBytes: 0,
    }));

  it("obey Little's law, and conserve accesses and time", () => {
    const drawn = fc.property(
      machine,
      fc.integer({ min: 1, max: 300 }),
      fc.boolean(),
      fc.constantFrom(null, 12 as const, 21 as const),
      (each, pages, isWrite, pageShift) => {
        const windowBytes = pages * 4096;
        const accesses = 2000;
        const options = { windowBytes, pageShift, isWrite, accesses, seed: 1 };
        const { where, time, hits, misses } = runWindow({
          machine: each,
          isWarm: false,
          isSingle: false,
          ...options,
        });
        const { inFlight } = isWrite ? each.writes : each.reads;
        // Several can be retired at once when the run ends.
        const { requests } = where;
        expect(requests).toBeGreaterThanOrEqual(accesses);
        expect(requests).toBeLessThanOrEqual(accesses + inFlight);
        // Each access is looked up once; those in flight at the end of the time before or after it.
        const looked = pageShift === null ? requests : hits + misses;
        expect(Math.abs(looked - requests)).toBeLessThanOrEqual(inFlight);
        // Little: never more in flight than the device can have. What is in flight at the end
        // drains past `time`.
        const drained = (where.latency / requests) * inFlight;
        expect(where.latency).toBeLessThanOrEqual(inFlight * time + drained);
        // The parts miss nothing of what is done, and have of what is not what it took so far.
        const sum = where.parts.reduce((all, part) => all + part.time, 0);
        expect(sum).toBeGreaterThanOrEqual(where.latency * (1 - 1e-12));
        for (const { busyTime, servers, name } of where.queues) {
          // A link is taken ahead, by what is on its way to it.
          const ahead = name.startsWith("walkers") ? 0 : (where.latency / requests) * inFlight;
          expect(busyTime, name).toBeLessThanOrEqual(servers * time + ahead);
        }
      },
    );
    fc.assert(drawn, { seed: 17, numRuns: 100 });
  });
});
