import { existsSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { machineFromYaml } from "../config/read-machine.ts";
import { type FindingCode, findingKinds } from "../host/findings.ts";
import { inspectMachine } from "../host/inspect.ts";
import { openHost } from "../host/open-host.ts";
import { capturePath, realHost } from "../host/real-hosts.suite.ts";
import { readHost } from "../host/sysfs.ts";
import { renderInspected } from "../report/inspect-text.ts";
import { runCommandLine } from "./command-line.ts";

const host = capturePath("q35-2node-intel-iommu");
const out = join(tmpdir(), `inspect-${process.pid}.tar.gz`);
afterAll(() => rmSync(out, { force: true }));

async function run(...words: string[]) {
  let stdout = "";
  let stderr = "";
  const terminal = {
    width: 80,
    style: (_role: string, text: string) => text,
    print(text: string): void {
      stdout += text;
    },
    note(text: string): void {
      stderr += `${text}\n`;
    },
    progress(): void {},
  };
  const status = await runCommandLine(["inspect", ...words], terminal, false);
  return { status, stdout, stderr };
}

describe("iommukit inspect", () => {
  it("prints totals, devices, groups and page tables of a capture, and ends with 0", async () => {
    const { status, stdout, stderr } = await run(host);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(
      /2 NUMA nodes, 1 IOMMU, 17 devices in 15 groups; each is what the rules/,
    );
    expect(stdout).toMatch(/groups 7-10 \(DMA\): on node 1/);
  });

  it("--json prints one object with exactly the documented keys", async () => {
    const { stdout } = await run(host, "--json");
    const document = JSON.parse(stdout);
    expect(Object.keys(document)).toEqual(["schema", "result"]);
    expect(document.schema).toBe("iommukit/inspect@1");
    expect(Object.keys(document.result)).toEqual([
      "nodes",
      "iommus",
      "devices",
      "groups",
      "findings",
    ]);
    expect(
      document.result.devices.find(({ bdf }: { bdf: string }) => bdf === "0000:81:00.0"),
    ).toMatchObject({ bdf: "0000:81:00.0", node: 1, iommu: "dmar0", group: 9 });
    expect(document.result.groups[6]).toMatchObject({
      id: 6,
      type: "DMA",
      devices: ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"],
      recorded: ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"],
      derived: ["0000:00:1f.0", "0000:00:1f.2", "0000:00:1f.3"],
      agrees: true,
    });
  });

  it("documents every key of its JSON", async () => {
    const page = readFileSync("docs/inspect.md", "utf8");
    const { stdout } = await run(host, "--json");
    const keys = new Set(stdout.match(/(?<=^\s+")\w+(?=":)/gm));
    expect([...keys].filter((key) => !page.includes(`\`${key}\``))).toEqual([]);
  });

  it("is documented with what it prints, and with findings that exist", () => {
    const page = readFileSync("docs/inspect.md", "utf8");
    const shown = /<!-- output of: inspect (\S+) -->\n```\n([\s\S]*?)\n```/.exec(page)!;
    const opened = openHost(shown[1]!);
    if (opened.kind !== "tree") throw new Error("the example is a capture");
    const { machine, findings } = readHost(opened.tree);
    const heading = {
      name: shown[1]!,
      release: machine.kernel!.release,
      architecture: machine.architecture,
    };
    const plain = (_role: string, text: string) => text;
    const lines = renderInspected(inspectMachine(machine, { findings }), heading, 100, plain);
    expect(shown[2]).toBe(lines.join("\n"));
    const codes = [...page.matchAll(/^\| `([a-z-]+)` \| (error|warning|note) \|/gm)];
    expect(codes.length).toBeGreaterThan(10);
    for (const [, code, severity] of codes) {
      expect(findingKinds[code as FindingCode].severity).toBe(severity);
    }
  });

  it("--yaml prints a topology file that reads back as the machine", async () => {
    const { stdout } = await run(host, "--yaml");
    const { machine } = readHost(realHost("q35-2node-intel-iommu"));
    expect(machineFromYaml(stdout, "x")).toEqual(machine);
  });

  it("--svg prints a drawing", async () => {
    const { stdout } = await run(host, "--svg");
    expect(stdout).toMatch(/^<svg [^>]*>\n<title>Topology of/);
  });

  it("--capture writes an archive that inspects to the same", async () => {
    const { status, stdout, stderr } = await run(host, "--capture", out);
    expect([status, stdout]).toEqual([0, ""]);
    expect(stderr).toContain(out);
    expect(existsSync(out)).toBe(true);
    expect((await run(out, "--json")).stdout).toBe((await run(host, "--json")).stdout);
  });

  it("inspects the system it runs on, whatever that is", async () => {
    const { status, stdout } = await run("--json");
    expect(status).toBe(0);
    expect(JSON.parse(stdout).schema).toBe("iommukit/inspect@1");
  });

  it.each([
    [[host, "--json", "--yaml"], /exclude each other/],
    [[host, "--root", "/"], /exclude each other/],
    [["--root", "/nowhere"], /no such file or directory/],
    [[host, "--capture", "/nowhere/x.tar.gz"], /cannot be written \(ENOENT\)/],
    [["package.json"], /\+0x0: this is no readable tar archive/],
    [[host, host], /./],
  ])("%j is refused with status 2", async (words, message) => {
    const { status, stdout, stderr } = await run(...words);
    expect(stderr).toMatch(message);
    expect([status, stdout]).toEqual([2, ""]);
  });
});
