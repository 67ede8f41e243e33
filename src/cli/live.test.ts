/** The verbs of the live path as a process: refusals, readiness, metrics, nothing left behind. */
import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildOnce, Files, root, runCli } from "../../test/run-cli.ts";

const files = new Files();
const head = "schema: iommukit/vm@1\nmemory: 256MiB\n";
const machine = `${head}name: t\niommu: { at: 3 }\ndisks: [{ kind: nvme, name: d, at: 4, size: 1MiB }]\n`;

beforeAll(() => buildOnce());
afterAll(() => files.dispose());

describe("a machine file that is wrong", () => {
  it.each(["serve", "vm", "top"])("ends %s with status 2, its line and column", async (verb) => {
    const path = files.write(
      "bad.yaml",
      `${head}disks: [{ kind: nvme, name: d, at: 31, size: 1MiB }]\n`,
    );
    const run = await runCli([verb, path]);
    expect([run.status, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toMatch(/bad\.yaml:3:\d+: slot 31 of bus 0 has the ISA bridge of q35/);
  });

  it.each([
    ["/dev/zero", "it is no regular file"],
    ["/", "it is no regular file"],
    ["/nowhere.yaml", "ENOENT"],
  ])("that is %s ends serve with status 2", async (path, why) => {
    const run = await runCli(["serve", path]);
    expect([run.status, run.stdout]).toEqual([2, ""]);
    expect(run.stderr).toContain(why);
  });

  it("that is too long, or a pipe, ends serve with status 2", async () => {
    const long = await runCli(["serve", files.write("long.yaml", "#".repeat((1 << 20) + 1))]);
    expect([long.status, long.stderr.includes("longer than 1 MiB")]).toEqual([2, true]);
    const pipe = join(files.folder, "pipe");
    execFileSync("mkfifo", [pipe]);
    const run = await runCli(["serve", pipe]);
    expect([run.status, run.stderr.includes("no regular file")]).toEqual([2, true]);
  });

  it("with an image that is not there ends serve with status 2, and leaves no folder", async () => {
    const text = `${head}disks: [{ kind: nvme, name: d, at: 4, image: none.img }]\n`;
    const folder = join(files.folder, "run-none");
    const run = await runCli(["serve", "--runtime-dir", folder, files.write("none.yaml", text)]);
    expect(run.status).toBe(2);
    expect(run.stderr).toMatch(/none\.img.*cannot be opened|cannot be opened/);
    expect(existsSync(folder)).toBe(false);
  });
});

describe("serve", () => {
  it("is ready when --wait says so, shows itself to top, and ends cleanly by SIGTERM", async () => {
    const path = files.write("good.yaml", machine);
    const folder = join(files.folder, "run");
    const common = ["--runtime-dir", folder, path];
    const child = spawn(process.execPath, [join(root, "bin/iommukit.js"), "serve", ...common], {
      stdio: ["ignore", "pipe", "pipe"],
    });
    let printed = "";
    child.stdout.on("data", (text: Buffer) => {
      printed += text.toString();
    });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    const ready = await runCli(["serve", "--wait", ...common]);
    expect([ready.status, ready.stderr]).toEqual([0, ""]);
    const top = await runCli(["top", "--once", "--json", "--interval", "50ms", ...common]);
    const { schema, result } = JSON.parse(top.stdout);
    expect(schema).toBe("iommukit/top@1");
    expect([result.machine, result.faults, result.disks[0].name]).toEqual(["t", 0, "d"]);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
    expect(printed).toContain('"driver":"vfio-user-pci","id":"iommu0"');
    expect(existsSync(folder)).toBe(false);
  }, 60_000);

  it("refuses a machine that another process serves, and leaves that alone", async () => {
    const path = files.write("good.yaml", machine);
    const folder = join(files.folder, "run2");
    const common = ["--runtime-dir", folder, path];
    const child = spawn(process.execPath, [join(root, "bin/iommukit.js"), "serve", ...common], {
      stdio: "ignore",
    });
    const ended = new Promise((resolve) => child.on("exit", resolve));
    expect((await runCli(["serve", "--wait", ...common])).status).toBe(0);
    const second = await runCli(["serve", ...common]);
    expect(second.status).toBe(2);
    expect(second.stderr).toContain(`process ${child.pid} serves the machine t`);
    expect((await runCli(["top", "--once", "--interval", "10ms", ...common])).status).toBe(0);
    child.kill("SIGTERM");
    expect(await ended).toBe(0);
  }, 60_000);

  it("--wait gives up after its time with status 2", async () => {
    const path = files.write("good.yaml", machine);
    const folder = join(files.folder, "nobody");
    const run = await runCli([
      "serve",
      "--wait",
      "--timeout",
      "100ms",
      "--runtime-dir",
      folder,
      path,
    ]);
    expect(run.status).toBe(2);
    expect(run.stderr).toContain("Nothing serves this machine");
  });
});
