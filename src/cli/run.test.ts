import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCommandLine } from "./command-line.ts";

const folder = mkdtempSync(join(tmpdir(), "run-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function file(name: string, text: string): string {
  const path = join(folder, name);
  writeFileSync(path, text);
  return path;
}

async function run(...words: string[]) {
  let stdout = "";
  let stderr = "";
  const terminal = {
    width: 100,
    style: (_role: string, text: string) => text,
    print(text: string): void {
      stdout += text;
    },
    note(text: string): void {
      stderr += `${text}\n`;
    },
    progress(): void {},
  };
  const status = await runCommandLine(["run", ...words], terminal, false);
  return { status, stdout, stderr };
}

const JOB = `[global]
ioengine=libaio
direct=1
bs=4k
iodepth=16

[pages]
rw=randread
fancy=1

[one]
stonewall
rw=randread
iodepth=1
rate_iops=100
`;
const job = file("job.fio", JOB);
const QUICK = ["--machine", "this-qemu", "--policy", "passthrough,strict"];

describe("iommukit run", () => {
  it("prints each group of jobs, and warns by line", async () => {
    const { status, stdout, stderr } = await run(job, ...QUICK);
    expect(status).toBe(0);
    expect(stderr).toMatch(/job.fio:9:1: warning: .*fancy/);
    expect(stderr).toMatch(/job.fio:11:\d+: warning: rate_iops of one is not followed/);
    expect(stdout.match(/^Jobs: /gm)).toHaveLength(2);
    for (const title of ["Throughput", "Latency", "Where the time went", "What would help most"]) {
      expect(stdout).toContain(title);
    }
    expect(stdout).toMatch(/passthrough +not the IOMMU .*half the software/);
    expect(stdout).toMatch(/strict +most helps: virtqueueKick free/);
  });

  it("--json prints one object, the same bytes for the same seed", async () => {
    const words = [job, ...QUICK, "--section", "pages", "--json"];
    const [first, again] = [await run(...words), await run(...words)];
    expect(first.stdout).toBe(again.stdout);
    const other = await run(...words, "--seed", "2");
    expect(other.stdout).not.toBe(first.stdout);
    const { schema, result } = JSON.parse(first.stdout);
    expect(schema).toBe("iommukit/run@1");
    expect(result.groups).toHaveLength(1);
    const [passthrough, strict] = result.groups[0].policies;
    expect(passthrough).toMatchObject({ policy: "passthrough", steady: true, translationGain: 0 });
    expect(strict.throughput.requestsPerSecond).toBeLessThan(
      passthrough.throughput.requestsPerSecond,
    );
    const sum = strict.where.reduce((all: number, { share }: { share: number }) => all + share, 0);
    expect(sum).toBeCloseTo(1, 9);
    expect(strict.perRequest).toMatchObject({ kicks: expect.closeTo(2, 1) });
  });

  it("--csv has a line for each policy of each group", async () => {
    const { stdout } = await run(job, ...QUICK, "--csv");
    const lines = stdout.trimEnd().split("\n");
    expect(lines).toHaveLength(5);
    expect(lines[0]).toMatch(/^jobs,policy,throughput.requestsPerSecond,/);
  });

  it("--html prints one file that fetches nothing", async () => {
    const evil = file("evil.fio", JOB.replace("[pages]", "[<script>alert(1)</script>]"));
    const { stdout } = await run(evil, ...QUICK, "--html");
    expect(stdout).toMatch(/^<!doctype html>/);
    expect(stdout.match(/<svg /g)).toHaveLength(5);
    expect(stdout).not.toMatch(/<script|<link|src=|url\(/);
    expect(stdout.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
  });

  it("--perfetto writes a timeline beside the result", async () => {
    const path = join(folder, "out.pftrace");
    const { status, stdout } = await run(job, ...QUICK, "--section", "pages", "--perfetto", path);
    expect([status, stdout.length > 0]).toEqual([0, true]);
    const bytes = readFileSync(path);
    expect(bytes.length).toBeGreaterThan(1000);
    expect(bytes.includes("virtio-iommu request lock")).toBe(true);
  });

  it("--print-machine prints a profile that it takes", async () => {
    const { stdout } = await run("--machine", "this-qemu", "--print-machine");
    const mine = file("mine.yaml", stdout.replace("name: this-qemu", "name: mine"));
    const words = [job, "--section", "one", "--policy", "strict", "--json"];
    const ours = await run(...words, "--machine", mine);
    const theirs = await run(...words, "--machine", "this-qemu");
    const groups = (text: string) => JSON.parse(text).result.groups;
    expect(groups(ours.stdout)).toEqual(groups(theirs.stdout));
  });

  it("takes a scenario, whose paths are beside it, and flags win over it", async () => {
    const text = `schema: iommukit/scenario@1
machine: two-node-server
policies: [strict]
seed: 3
workload: { fio: job.fio, sections: [pages], cpus: 16-31 }
`;
    const scenario = file("s.yaml", text);
    const { status, stdout } = await run(scenario);
    expect(status).toBe(0);
    expect(stdout).toMatch(/seed 3/);
    expect(stdout).toMatch(/strict +1 +\S+ us +(?!0\.0 )\d\S* %/);
    const flags = await run(scenario, "--policy", "lazy-mq", "--seed", "4");
    expect(flags.stdout).toMatch(/seed 4[\s\S]*lazy-mq/);
    expect(flags.stdout).not.toMatch(/^strict/m);
  });

  it("says so when a run does not settle, and prints no mean", async () => {
    const { status, stdout, stderr } = await run(job, ...QUICK, "--time", "1ms", "--json");
    expect(status).toBe(1);
    expect(stderr).toMatch(/no steady state, so no mean: passthrough, strict/);
    const [policy] = JSON.parse(stdout).result.groups[0].policies;
    expect(policy).toMatchObject({ steady: false, reason: "too-short", best: null });
    expect(policy.throughput.requestsPerSecond).toBeNull();
    expect(policy.latency.meanNs).toBeNull();
  });
});

describe("docs/run.md", () => {
  const page = readFileSync("docs/run.md", "utf8");
  it("documents every key of the JSON", async () => {
    const { stdout } = await run(job, ...QUICK, "--json");
    const keys = new Set(stdout.match(/(?<=^\s+")\w+(?=":)/gm));
    expect([...keys].filter((key) => !page.includes(`\`${key}\``) && key !== "result")).toEqual([
      "schema",
    ]);
  });
});

describe("iommukit run refuses", () => {
  const base = "schema: iommukit/scenario@1\n";
  const scenario = (name: string, text: string) => file(name, base + text);
  it.each([
    ["no file", [], /Nothing to run/],
    ["a job without a machine", [job], /needs a machine.*\n.*two-node-server/],
    ["a machine that is not there", [job, "--machine", "this-qem"], /did you mean "this-qemu"/],
    ["a profile that is not there", [job, "--machine", "./none.yaml"], /none.yaml: There is no/],
    ["two formats", [job, ...QUICK, "--json", "--csv"], /exclude each other/],
    ["a bad seed", [job, ...QUICK, "--seed", "-1"], /seed/],
    [
      "a section that is not there",
      [job, ...QUICK, "--section", "none"],
      /job.fio:1: .*no section/,
    ],
    [
      "a timeline where nothing can be written",
      [job, ...QUICK, "--section", "one", "--perfetto", "/nowhere/x"],
      /cannot be written/,
    ],
    [
      "too many requests in flight",
      [file("many.fio", "[m]\nioengine=libaio\niodepth=65536\nnumjobs=2"), ...QUICK],
      /many.fio:1.*more than 65535 requests/i,
    ],
    [
      "a huge request",
      [file("huge.fio", "[m]\nioengine=libaio\nbs=1g"), ...QUICK],
      /huge.fio:1.*1073741824/,
    ],
    [
      "huge buffers",
      [file("buffers.fio", "[m]\nioengine=libaio\niodepth=4096\nbs=2m"), ...QUICK],
      /more than 4 GiB/,
    ],
    [
      "a scenario of an unknown machine",
      [scenario("a.yaml", "machine: this-qem\nworkload: { fio: job.fio }\n")],
      /a.yaml:2:10: machine: there is no machine "this-qem"; did you mean/,
    ],
    [
      "a scenario with CPUs that are not there",
      [scenario("b.yaml", "machine: this-qemu\nworkload: { fio: job.fio, cpus: 0-1 }\n")],
      /b.yaml:3:33: workload.cpus: there is no CPU 1/,
    ],
    [
      "a scenario whose jobs are bad",
      [scenario("c.yaml", "machine: this-qemu\nworkload: { jobs: '[a' }\n")],
      /c.yaml \(workload.jobs\):1/,
    ],
  ])("%s, with status 2", async (_what, words, message) => {
    const { status, stdout, stderr } = await run(...words);
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(message);
  });
});
