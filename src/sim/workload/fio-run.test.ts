import { describe, expect, it } from "vitest";
import { policies, policyNamed } from "../../dma/policy.ts";
import { type Price, PriceList } from "../price-list.ts";
import { fioJobs } from "./fio-job.ts";
import { type FioMachine, type FioResult, runFio } from "./fio-run.ts";

const LOCK = "request queue lock";

function price(step: Price["step"], on: string, eachNs: number): Price {
  return { step, on, eachNs, unitNs: 0, remoteUnitNs: 0, source: "test", fittedOn: null };
}

const prices = new PriceList([
  price("iovaCacheHit", "cpu", 30),
  price("virtqueueAdd", LOCK, 100),
  price("virtqueueKick", LOCK, 4000),
  price("rangeInsert", LOCK, 4000),
  price("rangeRemove", LOCK, 4000),
]);

const machine: FioMachine = {
  cpus: 4,
  disk: { channels: 32, readNs: 80_000, writeNs: 10_000, bytesPerSecond: 2.5 * 2 ** 30 },
  prices,
  submitNs: 1000,
  completeNs: 1000,
  scatter: { breaksPerMille: 70 },
  host: null,
};

const PAGES = "[j]\nrw=randrw\nioengine=libaio\ndirect=1\niodepth=64\nbs=4k";
const BLOCKS = "[j]\nrw=randwrite\nioengine=libaio\ndirect=1\niodepth=8\nnumjobs=8\nbs=64k";

function run(policy: string, text: string, changed: Partial<FioMachine> = {}, seed = 1) {
  return runFio({
    jobs: fioJobs(text, "t.fio").groups[0]!,
    machine: { ...machine, ...changed },
    policy: policyNamed(policy)!,
    seed,
    windows: 120,
    windowPs: 1e9,
  });
}

function rate({ requests }: FioResult): number {
  if (requests.kind !== "steady") throw new Error(`no steady state: ${requests.reason}`);
  return requests.mean;
}

describe("a simulated fio run", () => {
  it("is the same for the same seed, and another for another", () => {
    const again = [run("lazy-mq", BLOCKS), run("lazy-mq", BLOCKS)];
    expect(again[0]!.hash).toBe(again[1]!.hash);
    expect(run("lazy-mq", BLOCKS, {}, 2).hash).not.toBe(again[0]!.hash);
  });

  it("obeys Little's law: requests in flight = rate times latency", () => {
    for (const policy of ["passthrough", "lazy-sq", "strict"]) {
      const result = run(policy, PAGES);
      const inFlight = (rate(result) * result.latency.mean) / 1e12;
      expect(inFlight, policy).toBeGreaterThan(64 * 0.98);
      expect(inFlight, policy).toBeLessThan(64 * 1.02);
    }
  });

  it("sends no request without translation, and is bounded by the disk's link", () => {
    const result = run("passthrough", BLOCKS);
    expect(result.charges).toEqual([]);
    expect((rate(result) * result.bytesMean) / (2.5 * 2 ** 30)).toBeCloseTo(1, 2);
  });

  it("waits once a map and once an unmap where strict, once a run where each MAP waits", () => {
    const expectKicks = (policy: string, text: string, each: number, breaksPerMille = 70) => {
      const result = run(policy, text, { scatter: { breaksPerMille } });
      const kick = result.charges.find(({ step }) => step === "virtqueueKick")!;
      // Requests still in flight at the end have kicked as well.
      expect(kick.times, policy).toBeGreaterThanOrEqual(result.completed * each * 0.999);
      expect(kick.times, policy).toBeLessThanOrEqual((result.completed + 65) * each * 1.01);
    };
    expectKicks("strict+map", PAGES, 2);
    expectKicks("strict", PAGES, 2);
    expectKicks("lazy-mq+map", PAGES, 1);
    expectKicks("strict+map", BLOCKS, 2);
    // 64 KiB without a break are one run, with a break at every page 16.
    expectKicks("strict", BLOCKS, 2, 0);
    expectKicks("strict", BLOCKS, 17, 1000);
  });

  it("keeps the order of policies: what waits less is not slower", () => {
    const rates = policies.map(({ name }) => [name, rate(run(name, BLOCKS))] as const);
    const of = new Map(rates);
    const notSlower = (fast: string, slow: string) =>
      expect(of.get(fast)! / of.get(slow)!, `${fast} : ${slow}`).toBeGreaterThan(0.99);
    notSlower("passthrough", "lazy-mq+map");
    notSlower("lazy-mq+map", "lazy-mq");
    notSlower("lazy-sq+map", "lazy-sq");
    notSlower("lazy-mq", "strict");
    notSlower("strict+map", "strict");
    expect(of.get("passthrough")! / of.get("strict")!).toBeGreaterThan(1.1);
  });
});

describe("metamorphic: a changed machine changes the result as it must", () => {
  it.each([
    ["", 1],
    ["thinktime_blocks=8\n", 8],
  ])(
    "thinktime is of a process: at depth 64, %j ends at %d requests each pause",
    (more, blocks) => {
      const text = `${PAGES}\nrw=randread\nthinktime=1ms\n${more}`;
      const result = run("passthrough", text);
      // A pause, and meanwhile the disk has nothing; then the blocks side by side.
      const perRound = rate(result) * 0.001;
      expect(perRound).toBeGreaterThan(blocks * 0.88);
      expect(perRound).toBeLessThan(blocks);
      expect(result.latency.mean).toBeLessThan(110e6);
      const two = run("passthrough", `${text}numjobs=2\n`);
      expect(rate(two) / rate(result)).toBeCloseTo(2, 1);
    },
  );

  it("a kick that costs nothing makes strict as fast as lazy", () => {
    const free = { prices: prices.with([price("virtqueueKick", LOCK, 0)]) };
    const strict = rate(run("strict", PAGES, free));
    expect(rate(run("lazy-mq", PAGES, free)) / strict).toBeCloseTo(1, 1);
    expect(rate(run("lazy-mq", PAGES)) / rate(run("strict", PAGES))).toBeGreaterThan(1.2);
  });

  it("a disk twice as fast takes the lock's policies below it", () => {
    const share = (disk: FioMachine["disk"]) =>
      rate(run("lazy-mq+map", BLOCKS, { disk })) / rate(run("passthrough", BLOCKS, { disk }));
    expect(share(machine.disk)).toBeGreaterThan(0.99);
    const { bytesPerSecond } = machine.disk;
    expect(share({ ...machine.disk, bytesPerSecond: bytesPerSecond * 4 })).toBeLessThan(0.8);
  });

  it("contiguous buffers make +map worthless", () => {
    const whole = { scatter: { breaksPerMille: 0 } };
    const gain = rate(run("strict+map", BLOCKS, whole)) / rate(run("strict", BLOCKS, whole));
    expect(gain).toBeCloseTo(1, 1);
    const scattered = { scatter: { breaksPerMille: 1000 } };
    expect(
      rate(run("strict+map", BLOCKS, scattered)) / rate(run("strict", BLOCKS, scattered)),
    ).toBeGreaterThan(1.5);
  });

  it("more CPUs do not help what a lock holds back, and help what CPUs hold back", () => {
    const pages = BLOCKS.replace("64k", "4k");
    const disk = { ...machine.disk, channels: 256, bytesPerSecond: 2 ** 40 };
    const speedUp = (policy: string) =>
      rate(run(policy, pages, { disk, cpus: 8 })) / rate(run(policy, pages, { disk, cpus: 2 }));
    expect(speedUp("strict")).toBeLessThan(1.1);
    expect(speedUp("passthrough")).toBeGreaterThan(3);
  });
});
