/** `iommukit tables` as a process, and the page that shows it. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { descriptionKinds } from "../src/firmware/table-kinds.ts";
import { buildOnce, Files, root, runCli } from "./run-cli.ts";

const files = new Files();
const example = (name: string) => join(root, "examples", "tables", name);

beforeAll(() => buildOnce());
afterAll(() => files.dispose());

describe("docs/tables.md", () => {
  const text = readFileSync(join(root, "docs", "tables.md"), "utf8");
  const samples = [
    ...text.matchAll(/^```console\n\$ iommukit (.+)\n([^`]*(?:`[^`\n]+`[^`]*)*)```$/gm),
  ];

  it("shows three answers", () => {
    expect(samples).toHaveLength(3);
  });

  it.each(samples.map(([, command = "", output = ""]) => ({ command, output })))(
    "prints what $command prints",
    ({ command, output }) => {
      const done = spawnSync(process.execPath, ["bin/iommukit.js", ...command.split(" ")], {
        cwd: root,
        encoding: "utf8",
        env: { ...process.env, NO_COLOR: "1", COLUMNS: "100" },
      });
      expect(output).toBe(done.stdout);
    },
  );
});

describe("tables build", () => {
  it("writes what dump reads back as the same topology", async () => {
    const built: string[] = [];
    for (const kind of ["srat", "slit", "mcfg", "viot"]) {
      const path = join(files.folder, `${kind}.aml`);
      const run = await runCli(["tables", "build", example("vm.yaml"), "--as", kind, "-o", path]);
      expect([run.status, run.stdout]).toEqual([0, ""]);
      expect(run.stderr).toMatch(/bytes/);
      built.push(path);
    }
    const dumped = await runCli(["tables", "dump", "--yaml", ...built]);
    expect([dumped.status, dumped.stderr]).toEqual([0, ""]);
    const yaml = files.write("again.yaml", dumped.stdout);
    const again = await runCli(["tables", "build", yaml, "--as", "viot", "-o", "-"]);
    const bytes = readFileSync(built[3]!).toString("utf8");
    expect([again.status, again.stdout]).toEqual([0, bytes]);
    const checked = await runCli(["tables", "check", "--strict", ...built]);
    expect([checked.status, checked.stderr]).toEqual([0, ""]);
  });

  it("takes the ids of a table that it shall replace, one revision up", async () => {
    const path = join(files.folder, "like.aml");
    const words = ["tables", "build", example("vm.yaml"), "--as", "srat", "-o", path];
    const written = await runCli([...words, "--like", example("SRAT")]);
    expect(written.stderr).toMatch(/kernel\/firmware\/acpi\/like.aml: replaces/);
    const viot = ["tables", "build", example("vm.yaml"), "--as", "viot", "-o", path];
    expect((await runCli(viot)).stderr).toMatch(/like.aml: refused, .*Unknown signature/);
    await runCli([...words, "--like", example("SRAT")]);
    const run = await runCli(["tables", "dump", path]);
    expect(run.stdout).toMatch(/oemId +"BOCHS "/);
    expect(run.stdout).toMatch(/oemRevision +2 /);
  });

  it.each([
    ["a kind that nobody knows", ["--as", "vio"], /did you mean "viot"/],
    ["binary output to nowhere", ["--as", "viot"], /-o viot\.aml/],
    ["a machine without the unit", ["--as", "dmar", "-o", "-"], /no VT-d unit/],
    ["a folder that is not there", ["--as", "viot", "-o", "/nowhere/x"], /cannot be written/],
    ["text to be like", ["--as", "viot", "-o", "-", "--like", example("vm.yaml")], /no VIOT/],
    ["a SRAT to be like", ["--as", "viot", "-o", "-", "--like", example("SRAT")], /no VIOT/],
  ])("refuses %s with status 2", async (_what, words, message) => {
    const run = await runCli(["tables", "build", example("vm.yaml"), ...words]);
    expect([run.status, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toMatch(message);
  });

  it("names every kind in its help", async () => {
    const { stdout } = await runCli(["tables", "build", "--help"]);
    for (const { name } of descriptionKinds) expect(stdout).toContain(name);
  });
});

describe("tables dump and check", () => {
  it("print one object, from a folder", async () => {
    const dumped = await runCli([
      "tables",
      "dump",
      "--json",
      join(root, "examples", "tables", "VIOT"),
    ]);
    const { schema, result } = JSON.parse(dumped.stdout);
    expect(schema).toBe("iommukit/tables-dump@1");
    expect(result.tables[0].tree.items[0]).toMatchObject({
      at: 48,
      length: 16,
      name: "virtio-iommu-pci",
    });
    const checked = await runCli(["tables", "check", "--json", example("VIOT-damaged")]);
    expect(checked.status).toBe(1);
    expect(JSON.parse(checked.stdout)).toMatchObject({
      schema: "iommukit/tables-check@1",
      result: { errors: 1, warnings: 2, topology: null },
    });
  });

  it("end with 1 on warnings only when strict", async () => {
    const warned = files.write("warned", patch(readFileSync(example("VIOT")), 9, 1));
    expect((await runCli(["tables", "check", warned])).status).toBe(0);
    expect((await runCli(["tables", "check", "--strict", warned])).status).toBe(1);
  });

  it("hold tables against a topology", async () => {
    const yaml = await runCli(["inspect", "examples/hosts/q35-2node-intel-iommu.tar.gz", "--yaml"]);
    const path = files.write("intel.yaml", yaml.stdout);
    const run = await runCli(["tables", "check", "--topology", path, example("VIOT")]);
    expect(run.status).toBe(1);
    expect(run.stdout).toMatch(/topology\/iommu-other: 0000:00:04\.0 is/);
    const right = await runCli(["tables", "check", "--topology", path, example("DMAR")]);
    expect(right.status).toBe(0);
  });

  it("name what is no table in a folder, read the rest, and end with 2", async () => {
    const folder = join(files.write("only.txt", new Uint8Array([0x41])), "..");
    files.write("VIOT", readFileSync(example("VIOT")));
    for (const verb of ["dump", "check"]) {
      const run = await runCli(["tables", verb, folder]);
      expect(run.status).toBe(2);
      expect(run.stdout).toMatch(/VIOT {2}VIOT/);
      expect(run.stderr).toMatch(/only\.txt: skipped: This is none of:/);
    }
  });

  it("read gzip from standard input, and a folder", async () => {
    const run = await runCli(["tables", "check", "-"], {
      input: gzipSync(readFileSync(example("SLIT"))),
    });
    expect([run.status, run.stdout]).toEqual([0, "(standard input)  SLIT  nothing to say\n"]);
    const folder = await runCli(["tables", "check", "src/firmware/acpi/vectors/qemu-intel"]);
    expect(folder.stdout.split("\n").length).toBe(10);
  });

  it.each([
    ["a missing file", () => join(files.folder, "none"), /no such file/],
    ["an empty file", () => files.write("empty", ""), /none of/],
    ["text", () => example("vm.yaml"), /none of/],
    [
      "a cut header",
      () => files.write("cut", readFileSync(example("VIOT")).subarray(0, 20)),
      /36 bytes/,
    ],
    [
      "a file of many megabytes",
      () => files.write("big", Buffer.alloc(17 * 2 ** 20, 65)),
      /more than/,
    ],
  ])("refuse %s with status 2", async (_what, pathOf, message) => {
    const run = await runCli(["tables", "dump", pathOf()]);
    expect([run.status, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toMatch(message);
    expect(run.stderr).not.toMatch(/\n\s+at /);
  });
});

function patch(bytes: Buffer, at: number, value: number): Buffer {
  const copy = Buffer.from(bytes);
  copy[at] = value;
  return copy;
}
