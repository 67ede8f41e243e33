/** Plans, job files, fio's words and their summary. */
import { describe, expect, it } from "vitest";
import { parseFio } from "./fio-result.ts";
import { fitJobs, jobNames, type Mode, planRuns } from "./plan.ts";
import { type Counts, median, type Sample, summarize } from "./summary.ts";

const disk = { name: "nvme0", kind: "nvme", pci: "0000:00:05.0" } as const;

describe("a plan", () => {
  it("visits all modes in each round and starts with another one each time", () => {
    const runs = planRuns([disk], ["a", "b"], 2);
    expect(runs.map(({ mode, job, round }) => `${round}${mode[0]}${job}`).join(" ")).toBe(
      "0ia 0ib 0la 0lb 0sa 0sb 1la 1lb 1sa 1sb 1ia 1ib",
    );
  });
});

describe("a job file", () => {
  const text =
    "[global]\nfilename=/dev/nvme0n1\nruntime=10\nioengine=libaio\n\n[one]\nbs=4k\n size = 1G\n";
  const sizes = { filename: "/dev/vda", runtimeSeconds: 2, sizeBytes: 4096 };

  it("cut to fit keeps all but the disk, the time and the size", () => {
    expect(fitJobs(text, sizes)).toBe(
      "[global]\nfilename=/dev/vda\nruntime=2\nsize=4096\nioengine=libaio\n\n[one]\nbs=4k\n",
    );
    expect(fitJobs("[one]\nbs=4k", sizes)).toMatch(/^\[global\]\nfilename=/);
    expect(jobNames(text, "a.fio")).toEqual(["one"]);
  });

  it("without a job is refused", () => {
    expect(() => jobNames("[global]\nbs=4k\n", "a.fio")).toThrow("no job");
  });
});

const side = (ios: number, mean: number) => ({
  total_ios: ios,
  iops: ios / 2,
  bw_bytes: ios * 2048,
  lat_ns: { mean },
  clat_ns: { percentile: { "50.000000": mean, "99.000000": mean * 3 } },
});

describe("fio's output", () => {
  it("becomes figures over reads and writes of all jobs", () => {
    const text = `note: x\n${JSON.stringify({ jobs: [{ read: side(100, 10), write: side(300, 20), total_err: 0 }] })}`;
    expect(parseFio(text)).toEqual({
      ios: 400,
      iops: 200,
      bytesPerSecond: 400 * 2048,
      latencyNsMean: 17.5,
      latencyNsP50: 20,
      latencyNsP99: 60,
      errors: 0,
    });
  });

  it.each(["", "fio: pid=0, err=2/file:filesetup.c", "{", '{"jobs": []}', '{"jobs": [{}]}'])(
    "%j is no result",
    (text) => {
      expect(() => parseFio(text)).toThrow("fio gave no result in the guest");
    },
  );
});

/** A sample of a machine where an I/O takes 50 us and each sync 30 us more. */
function sample(mode: Mode, round: number): Sample {
  const syncs = { identity: 0, lazy: 1, strict: 2 }[mode];
  const ios = 1000;
  const ns = 50_000 + 30_000 * syncs + round * 100;
  const counts: Counts = {
    maps: ios,
    unmaps: ios,
    kicks: syncs * ios,
    syncs: syncs * ios,
    messages: ios,
    interrupts: ios / 2,
  };
  const fio = {
    ios,
    iops: 1e9 / ns,
    bytesPerSecond: 4096e9 / ns,
    latencyNsMean: ns,
    latencyNsP50: ns,
    latencyNsP99: ns,
    errors: 0,
  };
  return { disk: "nvme0", kind: "nvme", mode, job: "j", round, fio, counts };
}

describe("a summary", () => {
  const samples = [0, 1, 2].flatMap((round) => [
    sample("strict", round),
    sample("identity", round),
    sample("lazy", round),
  ]);

  it("relates each mode to identity within its round", () => {
    const { rows } = summarize(samples);
    expect(rows.map(({ mode }) => mode)).toEqual(["identity", "lazy", "strict"]);
    expect(rows.map(({ bandwidthRelative }) => bandwidthRelative.toFixed(3))).toEqual([
      "1.000",
      "0.625",
      "0.455",
    ]);
    expect(rows.map(({ latencyRelative }) => latencyRelative.toFixed(2))).toEqual([
      "1.00",
      "1.60",
      "2.20",
    ]);
    expect(rows[2]!.perIo).toMatchObject({ maps: 1, kicks: 2, interrupts: 0.5 });
  });

  it("finds what a sync costs", () => {
    const [fit] = summarize(samples).fits;
    expect(fit!.syncNs).toBeCloseTo(30_000, -1);
    expect(fit!.baseNs).toBeCloseTo(50_100, -1);
    expect(fit!.determination).toBeGreaterThan(0.999);
  });

  it("fits nothing where no mode syncs", () => {
    expect(summarize(samples.filter(({ mode }) => mode === "identity")).fits).toEqual([]);
  });

  it("takes the middle of an odd, and the mean of two of an even number", () => {
    expect([median([3, 1, 2]), median([4, 1, 2, 3])]).toEqual([2, 2.5]);
  });
});
