import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { runCommandLine } from "./command-line.ts";

const folder = mkdtempSync(join(tmpdir(), "run-study-"));
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

const HEAD = "schema: iommukit/scenario@1\n";
const scenario = (name: string, text: string) => file(name, HEAD + text);

const examples = {
  window: scenario(
    "window.yaml",
    "machine: broadwell\npolicies: [none, 4k]\nworkload: { window: { bytes: 1MiB, accesses: 10000 } }\n",
  ),
  "all-reduce": scenario(
    "all-reduce.yaml",
    "machine: { like: all-reduce-host, bufferBytes: 16MiB }\n" +
      "workload: { allReduce: { mapperNode: 1, shareBytes: 256KiB } }\n",
  ),
  accelerator: scenario(
    "accelerator.yaml",
    "machine: kunpeng-vfio\nworkload: { accelerator: { messageBytes: 64KiB, times: 4 } }\n",
  ),
  "vm-start": scenario(
    "vm-start.yaml",
    "machine: vm-host\npolicies: [by-page, dma-buf]\n" +
      "workload: { vmStart: { ram: { bytes: 256MiB }, bars: [{ bytes: 64MiB }] } }\n",
  ),
};
const kinds = Object.keys(examples) as (keyof typeof examples)[];

describe("iommukit run of devices' workloads", () => {
  it.each([
    ["window", "{ like: broadwell, up: { latencyNs: 100, bytesPerSecond: 1 } }", "{ bytes: 1MiB }"],
    ["window", "{ like: broadwell, memoryNs: 1e12 }", "{ bytes: 1MiB, single: true }"],
    [
      "vmStart",
      "{ like: vm-host, startNs: 1e12, prices: { map: [{ step: pagePin, unitNs: 1e12 }] } }",
      "{ ram: { bytes: 1GiB } }",
    ],
  ])("%s on the machine %s is refused or does not settle", async (kind, machine, body) => {
    const text = `machine: ${machine}\nworkload: { ${kind}: ${body} }\n`;
    const path = scenario("slow.yaml", text);
    const { status, stderr } = await run(path);
    expect([1, 2]).toContain(status);
    if (status === 2) expect(stderr).toContain(`${path}:2:10: the run would take more than 2^53`);
    else expect(stderr).toContain("no steady state");
  });

  it.each([
    ["{ window: { bytes: 4100 } }", "broadwell", "4100 bytes are no whole pages"],
    ["{ allReduce: { nodes: [0, 0] } }", "all-reduce-host", "node 0 is there twice"],
  ])("the workload %s is refused by name", async (body, machine, message) => {
    const path = scenario("refused.yaml", `machine: ${machine}\nworkload: ${body}\n`);
    const { status, stderr } = await run(path);
    expect([status, stderr]).toEqual([2, expect.stringContaining(message)]);
  });

  it.each(kinds)("%s prints figures, where the time went, and what would help", async (kind) => {
    const { status, stdout, stderr } = await run(examples[kind]);
    expect([status, stderr]).toEqual([0, ""]);
    for (const title of ["Where the time went", "What would help most"]) {
      expect(stdout).toContain(title);
    }
    expect(stdout).toMatch(/most helps|nothing that was tried helps/);
  });

  it.each(kinds)(
    "%s prints one object, whose keys are documented, twice the same",
    async (kind) => {
      const first = await run(examples[kind], "--json");
      expect((await run(examples[kind], "--json")).stdout).toBe(first.stdout);
      const { schema, result } = JSON.parse(first.stdout);
      expect(schema).toBe("iommukit/run@1");
      const [group] = result.groups;
      expect(group.workload).toBe(kind);
      for (const policy of group.policies) {
        expect(policy.steady).toBe(true);
        const shares = policy.where.reduce(
          (sum: number, { share }: { share: number }) => sum + share,
          0,
        );
        expect(shares).toBeCloseTo(1, 9);
      }
      const page = readFileSync("docs/run.md", "utf8");
      const keys = new Set(first.stdout.match(/(?<=^\s+")\w+(?=":)/gm));
      keys.delete("schema");
      keys.delete("result");
      expect([...keys].filter((key) => !page.includes(`\`${key}\``))).toEqual([]);
    },
  );

  it("takes policies by their name, and the seed, from flags", async () => {
    const words = [examples.window, "--policy", "4k", "--csv"];
    const { stdout } = await run(...words);
    expect(stdout.trimEnd().split("\n")).toHaveLength(2);
    expect((await run(...words, "--seed", "2")).stdout).not.toBe(stdout);
  });

  it.each(kinds)("%s is one file that fetches nothing, with the machine in it", async (kind) => {
    const { stdout } = await run(examples[kind], "--html");
    expect(stdout).toMatch(/^<!doctype html>/);
    expect(stdout).toContain("<title>the machine</title>");
    expect(stdout.match(/<svg /g)).toHaveLength(3);
    expect(stdout).not.toMatch(/<script|<link|src=|url\(/);
    expect(stdout.replaceAll("http://www.w3.org/2000/svg", "")).not.toMatch(/https?:/);
  });

  it("--html escapes names", async () => {
    const evil = scenario(
      "evil.yaml",
      'machine: { like: broadwell, name: "<script>alert(1)</script>" }\n' +
        "workload: { window: { bytes: 64KiB } }\n",
    );
    expect((await run(evil, "--html", "--policy", "none")).stdout).not.toContain("<script");
  });

  it.each([
    ["window", "walker of dmar0 1"],
    ["all-reduce", "walker of dmar0 1"],
    ["accelerator", "moving data"],
    ["vm-start", "map RAM"],
  ] as const)("%s writes a timeline", async (kind, track) => {
    const path = join(folder, `${kind}.pftrace`);
    await run(examples[kind], "--perfetto", path, "--csv");
    expect(readFileSync(path).includes(track)).toBe(true);
  });

  it("says so when a run does not settle, and prints no mean", async () => {
    // An IOTLB that fills up for longer than the run lasts.
    const slow = scenario(
      "slow.yaml",
      "machine: { like: broadwell, iotlbEntries: 65536 }\n" +
        "workload: { window: { bytes: 256MiB } }\n",
    );
    const { status, stdout, stderr } = await run(slow, "--json", "--policy", "4k");
    expect(status).toBe(1);
    expect(stderr).toMatch(/no steady state, so no mean: 4k/);
    const [policy] = JSON.parse(stdout).result.groups[0].policies;
    expect(policy).toMatchObject({ steady: false, best: null });
    expect(policy.throughput.accessesPerSecond).toBeNull();
  });
});

describe("iommukit run refuses, by name and place,", () => {
  const window = "workload: { window: { bytes: 1MiB } }\n";
  const reduce = "workload: { allReduce: {} }\n";
  it.each([
    [
      "a key that is not there",
      `machine: broadwell\nworkload: { window: { bytes: 1MiB, byte: 1 } }`,
      /:3:36: there is no key "byte" in workload.window\n.*bytes/,
    ],
    [
      "no walkers",
      `machine: { like: broadwell, walkers: 0 }\n${window}`,
      /:2:38: there is no walker in the IOMMU of the machine "like broadwell"/,
    ],
    [
      "no entries",
      `machine: { like: broadwell, iotlbEntries: 0 }\n${window}`,
      /:2:43: there is no entry/,
    ],
    [
      "a dead link",
      `machine: { like: broadwell, up: { latencyNs: 1, bytesPerSecond: 0 } }\n${window}`,
      /:2:65: the PCIe link up of .* its bandwidth is 0/,
    ],
    [
      "no requests",
      `machine: { like: broadwell, reads: { inFlight: 0, gapNs: 1 } }\n${window}`,
      /:2:48: no reads can be in flight/,
    ],
    [
      "a run without time",
      `machine: { like: broadwell, up: { latencyNs: 0, bytesPerSecond: 1e15 }, reads: { inFlight: 1, gapNs: 0 } }\n${window}`,
      /take no time/,
    ],
    [
      "a step that is not there",
      `machine: { like: broadwell, prices: [{ step: entryRad, eachNs: 1 }] }\n${window}`,
      /:2:46: prices\[0\].step.*"entryRad"[\s\S]*entryRead/,
    ],
    [
      "a resource that is not there",
      `machine: { like: broadwell, prices: [{ step: entryRead, on: walkers, eachNs: 1 }] }\n${window}`,
      /:2:61: prices\[0\].on: there is no resource "walkers"\n.*known are walker$/m,
    ],
    [
      "a machine of another workload",
      `machine: this-qemu\n${window}`,
      /:2:10: machine: there is no machine "this-qemu" for this workload/,
    ],
    [
      "a policy of another workload",
      `machine: broadwell\npolicies: [4k, strict]\n${window}`,
      /:3:16: policies\[1\]: there is no policy "strict" for this workload/,
    ],
    [
      "a tiny window",
      "machine: broadwell\nworkload: { window: { bytes: 64 } }",
      /:3:30: .*a window of 64 bytes/,
    ],
    [
      "a huge window",
      "machine: broadwell\nworkload: { window: { bytes: 1TiB } }",
      /a window of 1099511627776 bytes/,
    ],
    [
      "page requests without ATS",
      "machine: broadwell\nworkload: { window: { bytes: 1MiB, faults: { kind: pri } } }",
      /:3:52: .*page requests without ATS/,
    ],
    [
      "an IOMMU without devices",
      `machine: { like: all-reduce-host, units: [{ name: lone, node: 0 }] }\n${reduce}`,
      /:2:43: the IOMMU "lone" of .* has no device behind it/,
    ],
    [
      "devices on no node",
      `machine: { like: all-reduce-host, nodes: 2, units: [{ name: a, node: 2, nics: 1 }] }\n${reduce}`,
      /:2:70: the IOMMU "a" .* and its devices are on node 2, which is none/,
    ],
    ["no IOMMU", `machine: { like: all-reduce-host, units: [] }\n${reduce}`, /has no IOMMU/],
    [
      "an IOMMU twice",
      `machine: { like: all-reduce-host, units: [{ name: a, node: 0, nics: 1 }, { name: a, node: 0, nics: 1 }] }\n${reduce}`,
      /is there twice/,
    ],
    [
      "too many devices",
      `machine: { like: all-reduce-host, units: [{ name: a, node: 0, nics: 200, gpus: 200 }] }\n${reduce}`,
      /has 400 devices/,
    ],
    [
      "a wire of nothing",
      `machine: { like: all-reduce-host, nic: { bytesPerSecond: 0 } }\n${reduce}`,
      /the wire of a NIC of .* carries nothing/,
    ],
    [
      "a node without NICs",
      "machine: all-reduce-host\nworkload: { allReduce: { nodes: [3] } }",
      /nodes\[0\]: nothing is on node 3/,
    ],
    [
      "nothing to reduce",
      `machine: { like: all-reduce-host, hosts: 1, units: [{ name: a, node: 0, nics: 1 }] }\n${reduce}`,
      /1 ranks have nothing to reduce/,
    ],
    [
      "a message of half a page",
      "machine: kunpeng-sva\nworkload: { accelerator: { messageBytes: 2KiB, times: 1 } }",
      /a message of 2048 bytes/,
    ],
    [
      "an accelerator that stands still",
      "machine: { like: kunpeng-sva, bytesPerSecond: 0 }\nworkload: { accelerator: { messageBytes: 4KiB, times: 1 } }",
      /the accelerator of .* carries nothing/,
    ],
    [
      "RAM of a page",
      "machine: vm-host\nworkload: { vmStart: { ram: { bytes: 4KiB } } }",
      /a guest with 4096 bytes/,
    ],
    [
      "a BAR of five pages",
      "machine: vm-host\nworkload: { vmStart: { bars: [{ bytes: 20KiB }] } }",
      /bars\[0\].bytes: a BAR of 20480 bytes/,
    ],
    [
      "two workloads",
      "machine: broadwell\nworkload: { window: { bytes: 1MiB }, allReduce: {} }",
      /there is no key "allReduce"/,
    ],
  ])("%s, with status 2", async (_what, text, message) => {
    const { status, stdout, stderr } = await run(scenario("bad.yaml", text));
    expect([status, stdout]).toEqual([2, ""]);
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/bad\.yaml:\d+:\d+: /);
    expect(stderr).toMatch(/\n {2}hint: /);
  });

  it("flags that only jobs have", async () => {
    const { status, stderr } = await run(examples.window, "--time", "1s");
    expect(status).toBe(2);
    expect(stderr).toMatch(/--time is for fio jobs/);
  });
});
