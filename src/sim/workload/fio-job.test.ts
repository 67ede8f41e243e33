import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { itNeeds } from "../../../test/support/tools.ts";
import { StackError } from "../../errors.ts";
import { type FioJob, fioJobs } from "./fio-job.ts";
import { JOB_FILE_BYTES_MAX } from "./job-lines.ts";

/** The job file of the flush-queue proposal's discussion. */
const PUBLISHED = `
    [global]
    filename=/dev/nvme0n1
    runtime=10
    ioengine=libaio
    direct=1
    time_based

    [randwrite_multi]
    group_reporting
    rw=randwrite
    numjobs=16
    iodepth=16
    bs=64k
    size=1G

    [randrw_page]
    rw=randrw
    rwmixread=50
    rwmixwrite=50
    iodepth=128
    bs=4k
    size=1G
`;

function job(...lines: string[]): FioJob {
  return fioJobs(["[job]", ...lines].join("\n"), "t.fio").groups[0]![0]!;
}

function errorOf(text: string): StackError {
  try {
    fioJobs(text, "t.fio");
  } catch (error) {
    if (error instanceof StackError) return error;
    throw error;
  }
  throw new Error("the job file was read");
}

describe("a published job file", () => {
  it("is read as fio reads it", () => {
    const { groups, warnings } = fioJobs(PUBLISHED, "seed.fio");
    expect(warnings).toEqual([]);
    expect(groups.map((group) => group.length)).toEqual([2]);
    expect(groups[0]).toMatchObject([
      {
        name: "randwrite_multi",
        isRandom: true,
        readPercent: 0,
        writeBlocks: [{ bytes: 65_536, percent: 100 }],
        depth: 16,
        processes: 16,
        runtimeUs: 10e6,
        isTimeBased: true,
        sizeBytes: 2 ** 30,
        filename: "/dev/nvme0n1",
      },
      { name: "randrw_page", readPercent: 50, depth: 128, processes: 1 },
    ]);
  });

  it("gives one section when asked for it, as fio --section does", () => {
    const { groups } = fioJobs(PUBLISHED, "seed.fio", ["randrw_page"]);
    expect(groups.flat().map(({ name }) => name)).toEqual(["randrw_page"]);
    expect(() => fioJobs(PUBLISHED, "seed.fio", ["absent"])).toThrow("no section absent");
  });
});

describe("sections", () => {
  it("take the options of every [global] before them, own ones last", () => {
    const text = "[global]\nbs=4k\n[a]\n[global]\nbs=8k\n[b]\n[c]\nbs=16k\n";
    const sizes = fioJobs(text, "t.fio").groups.flat();
    expect(sizes.map(({ readBlocks }) => readBlocks[0]!.bytes)).toEqual([4096, 8192, 16_384]);
  });

  it("start a new group at stonewall and at its second name", () => {
    const text = "[a]\n[b]\nstonewall\n[c]\n[d]\nwait_for_previous\n[e]\nstonewall=0\n";
    const names = fioJobs(text, "t.fio").groups.map((group) => group.map(({ name }) => name));
    expect(names).toEqual([["a"], ["b", "c"], ["d", "e"]]);
  });

  it("take comments anywhere and blanks at the ends", () => {
    expect(job("; whole", "  bs=8k  # rest", "\trw=randread\r").readBlocks[0]!.bytes).toBe(8192);
  });
});

describe("options", () => {
  it("have fio's defaults", () => {
    expect(job()).toMatchObject({
      isRandom: false,
      readPercent: 100,
      readBlocks: [{ bytes: 4096, percent: 100 }],
      depth: 1,
      processes: 1,
      runtimeUs: null,
      isTimeBased: false,
      thinkUs: 0,
      thinkBlocks: 1,
      rateIops: null,
    });
  });

  it("give reads and writes their own block size", () => {
    const both = (value: string) => {
      const { readBlocks, writeBlocks } = job(`bs=${value}`);
      return [readBlocks[0]!.bytes, writeBlocks[0]!.bytes];
    };
    expect(both("8k")).toEqual([8192, 8192]);
    expect(both("8k,32k")).toEqual([8192, 32_768]);
    expect(both(",16k")).toEqual([4096, 16_384]);
    expect(both("16k,")).toEqual([16_384, 4096]);
  });

  it("split block sizes by percentage, the rest evenly", () => {
    expect(job("bssplit=4k/10:64k:32k/40").readBlocks).toEqual([
      { bytes: 4096, percent: 10 },
      { bytes: 65_536, percent: 50 },
      { bytes: 32_768, percent: 40 },
    ]);
  });

  it.each([
    ["100", 100],
    ["100us", 100],
    ["1ms", 1000],
    ["2msec", 2000],
    ["3s", 3e6],
    ["1m", 60e6],
  ])("read thinktime=%s as %d us", (value, us) => {
    expect(job(`thinktime=${value}`).thinkUs).toBe(us);
  });

  it("let the later of rwmixread and rwmixwrite win", () => {
    expect(job("rw=randrw", "rwmixread=70").readPercent).toBe(70);
    expect(job("rw=randrw", "rwmixread=70", "rwmixwrite=40").readPercent).toBe(60);
    expect(job("rw=rw", "rwmixwrite=40", "rwmixread=70").readPercent).toBe(70);
  });

  it("count the depth only for an engine that keeps it", () => {
    expect(job("ioengine=io_uring", "direct=1", "iodepth=32").depth).toBe(32);
    const { groups, warnings } = fioJobs("[j]\ndirect=1\niodepth=32\n", "t.fio");
    expect(groups[0]![0]!.depth).toBe(1);
    expect(warnings).toMatchObject([{ code: "fio/synchronous", at: { line: 3 } }]);
  });

  it.each([
    ["[j]\n", 1],
    ["[j]\nioengine=psync\n", 2],
    ["[j]\nioengine=libaio\niodepth=4\ndirect=0\n", 4],
  ])("warn of %j that it is simulated as direct, with its line", (text, line) => {
    const { warnings } = fioJobs(text, "t.fio");
    expect(warnings).toMatchObject([{ code: "fio/buffered", at: { line } }]);
    expect(
      fioJobs(text.replace("[j]", "[j]\ndirect=1").replace("direct=0", ""), "t").warnings,
    ).toEqual([]);
  });

  it("warn of what has no effect or is unknown once, with line and suggestion", () => {
    const text = "[global]\ndirect=1\nrate=10m\nrwmixreed=3\nfoo\n[a]\n[b]\n";
    const { warnings } = fioJobs(text, "t.fio");
    expect(warnings.map(({ code, at }) => [code, at.line])).toEqual([
      ["fio/ignored-option", 3],
      ["fio/unknown-option", 4],
      ["fio/unknown-option", 5],
    ]);
    expect(warnings[1]!.message).toContain("did you mean rwmixread");
  });
});

describe("bad job files", () => {
  it.each([
    ["rw=read\n", "fio/no-section", 1, 1],
    ["[a\nrw=read\n", "fio/bad-section", 1, 1],
    ["[]\n", "fio/bad-section", 1, 1],
    ["[a]\n  rw = read\n", "fio/blank-at-equals", 2, 3],
    ["[a]\ninclude other.fio\n", "fio/include", 2, 1],
    ["[a]\nbs=\u0024{SIZE}\n", "fio/variable", 2, 1],
    ["[a]\nbsrange=4k-64k\n", "fio/bsrange", 2, 1],
    ["[a]\nioengine=http\n", "fio/bad-engine", 2, 10],
    ["[a]\nioengine=libiao\niodepth=4\n", "fio/bad-engine", 2, 10],
    ["[a]\nrw=sideways\n", "fio/bad-pattern", 2, 4],
    ["[a]\nrw=randtrim\n", "fio/bad-pattern", 2, 4],
    ["[a]\nbs=4kk\n", "fio/bad-size", 2, 4],
    ["[a]\nbs=\n", "fio/no-value", 2, 1],
    ["[a]\nbs=0\n", "fio/out-of-range", 2, 4],
    ["[a]\nsize=99999999999999999999t\n", "fio/out-of-range", 2, 6],
    ["[a]\nruntime=10sec\n", "fio/bad-time", 2, 9],
    ["[a]\ntime_based\n", "fio/no-runtime", 1, 1],
    ["[a]\niodepth=0\n", "fio/out-of-range", 2, 9],
    ["[a]\nnumjobs=4097\n", "fio/out-of-range", 2, 9],
    ["[a]\nnumjobs=4096\n[b]\n", "fio/too-many-processes", 3, 1],
    ["[a]\nrwmixread=120\nrw=rw\n", "fio/out-of-range", 2, 11],
    ["[a]\nbssplit=4k/80:64k/40\n", "fio/bad-split", 2, 9],
    ["[a]\nbssplit=4k/1/2\n", "fio/bad-split", 2, 9],
    ["[global]\nrw=read\n", "fio/no-job", 1, undefined],
    ["", "fio/no-job", 1, undefined],
  ])("%j is refused as %s at line %s, column %s", (text, code, line, column) => {
    const error = errorOf(text);
    expect(error.code).toBe(code);
    expect(error.at).toMatchObject({ file: "t.fio", line });
    expect(error.at?.column).toBe(column);
  });

  it("that are endless are refused", () => {
    expect(errorOf(" ".repeat(JOB_FILE_BYTES_MAX + 1)).code).toBe("fio/too-long");
    expect(errorOf("[a]\n".repeat(10_001)).code).toBe("fio/too-many");
  });

  it("never do more than throw a StackError", () => {
    const word = fc.constantFrom(
      "[a]",
      "[global]",
      "bs",
      "=",
      "4k",
      "/",
      ":",
      ",",
      "rw",
      "randrw",
      "\n",
    );
    const text = fc.array(fc.oneof(word, fc.string({ maxLength: 4 })), { maxLength: 40 });
    fc.assert(
      fc.property(text, (parts) => {
        try {
          fioJobs(parts.join(""), "t.fio");
        } catch (error) {
          expect(error).toBeInstanceOf(StackError);
        }
      }),
    );
  });
});

describe("beside fio itself", () => {
  const folder = mkdtempSync(join(tmpdir(), "iommukit-fio-"));
  const parse = (...lines: string[]) => {
    const file = join(folder, "t.fio");
    writeFileSync(file, `[job]\n${lines.join("\n")}\n`);
    const text = execFileSync("fio", ["--parse-only", "--debug=parse", file]).toString();
    return [...text.matchAll(/ret=0, out=(\d+)/g)].map(([, value]) => Number(value));
  };

  itNeeds("fio", "sizes are what fio makes of them", () => {
    for (const size of [
      "1",
      "0x1000",
      "4k",
      "4K",
      "4kb",
      "4ki",
      "4kib",
      "3m",
      "2G",
      "1t",
      "5mib",
    ]) {
      expect(job(`size=${size}`).sizeBytes, size).toBe(parse(`size=${size}`)[0]);
      const decimal = [`kb_base=1000`, `size=${size}`];
      expect(job(...decimal).sizeBytes, `decimal ${size}`).toBe(parse(...decimal).at(-1));
    }
  });

  itNeeds("fio", "durations are what fio makes of them", () => {
    for (const time of ["10", "10s", "2m", "1h", "1d", "100ms", "100msec", "7us", "7usec"]) {
      expect(job(`runtime=${time}`).runtimeUs, time).toBe(parse(`runtime=${time}`)[0]);
    }
    rmSync(folder, { recursive: true });
  });
});
