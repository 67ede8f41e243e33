/** Memory of a run does not grow with the time that it simulates. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, it } from "vitest";
import { policyNamed } from "../../dma/policy.ts";
import { flushQueueGuest } from "../profiles/flush-queue-desktop.ts";
import { broadwell } from "../profiles/pcie-bench.ts";
import { fioJobs } from "./fio-job.ts";
import { runFio } from "./fio-run.ts";
import { runWindow } from "./random-window.ts";
import { SliceRecorder } from "./slices.ts";

setFlagsFromString("--expose-gc");
const collect = runInNewContext("gc") as () => void;
const MIB = 2 ** 20;

/** Looks at what is reachable early in a run and late in it. */
class Scales extends SliceRecorder {
  readonly weights: number[] = [];
  readonly #at: readonly number[];
  #heard = 0;

  constructor(at: readonly number[]) {
    super(0, Number.POSITIVE_INFINITY);
    this.#at = at;
  }

  override add(): void {
    this.#heard += 1;
    if (!this.#at.includes(this.#heard)) return;
    collect();
    const { heapUsed, arrayBuffers } = process.memoryUsage();
    this.weights.push(heapUsed + arrayBuffers);
  }
}

function expectLevel({ weights }: Scales): void {
  const [early, late] = weights;
  expect(weights).toHaveLength(2);
  expect(late! - early!).toBeLessThan(4 * MIB);
}

describe("a run several times as long", () => {
  it("of a device keeps no more than early in it", () => {
    const slices = new Scales([20_000, 300_000]);
    runWindow({
      machine: broadwell,
      windowBytes: 16 * MIB,
      pageShift: 12,
      isWarm: false,
      isWrite: false,
      isSingle: false,
      seed: 1,
      accesses: 400_000,
      slices,
    });
    expectLevel(slices);
  });

  it("of a disk keeps no more than early in it", () => {
    const slices = new Scales([60_000, 200_000]);
    const text = "[j]\nrw=randwrite\nioengine=libaio\ndirect=1\niodepth=16\nnumjobs=4\nbs=64k";
    runFio({
      jobs: fioJobs(text, "t.fio").groups[0]!,
      machine: flushQueueGuest,
      policy: policyNamed("strict")!,
      seed: 1,
      windows: 200,
      windowPs: 8e9,
      slices,
    });
    expectLevel(slices);
  });
});
