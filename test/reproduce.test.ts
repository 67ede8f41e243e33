/** The pages that show `iommukit reproduce` tell the truth: each prints what stands below it. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { buildOnce, root } from "./run-cli.ts";

beforeAll(() => buildOnce(), 180_000);

const folder = join(root, "docs");
const samples = readdirSync(folder)
  .filter((name) => name.startsWith("reproduce"))
  .flatMap((name) =>
    [
      ...readFileSync(join(folder, name), "utf8").matchAll(
        /^```console\n\$ iommukit (reproduce .+)\n([^`]*)```$/gm,
      ),
    ].map(([, command = "", output = ""]) => ({ name, command, output })),
  );

describe("pages of reproduced tables", () => {
  it("are there for every thread with figures", () => {
    const commands = samples.map(({ command }) => command);
    expect(commands.sort()).toEqual(["1", "2", "3", "5"].map((name) => `reproduce ${name}`));
  });

  it.each(samples)(
    "$name: $command prints what stands below it, and every target is met",
    ({ command, output }) => {
      const done = spawnSync(process.execPath, ["bin/iommukit.js", ...command.split(" ")], {
        cwd: root,
        encoding: "utf8",
        env: { ...process.env, NO_COLOR: "1", COLUMNS: "100" },
      });
      expect(done.stdout).toBe(output);
      expect(done.status).toBe(0);
    },
    120_000,
  );
});

describe("the host of pcie-bench that a page describes", () => {
  it("runs, and has the latency that the page's formula gives", () => {
    const page = readFileSync(join(folder, "reproduce-pcie-bench.md"), "utf8");
    const [, scenario = ""] = /^```yaml\n(schema: iommukit\/scenario@1[^`]*)```$/m.exec(page) ?? [];
    const done = spawnSync(process.execPath, ["bin/iommukit.js", "run", "-", "--json"], {
      cwd: root,
      encoding: "utf8",
      input: scenario,
    });
    expect(done.stderr).toBe("");
    const { policies } = JSON.parse(done.stdout).result.groups[0];
    const latencyOf = (name: string) =>
      policies.find(({ policy }: { policy: string }) => policy === name).latency.meanNs;
    expect(Math.abs(latencyOf("none") / 650 - 1)).toBeLessThan(0.005);
    expect(Math.abs(latencyOf("4k") / 800 - 1)).toBeLessThan(0.005);
  }, 60_000);
});
