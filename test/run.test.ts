/** The page that shows `iommukit run` tells the truth: each command prints what stands below it. */
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { buildOnce, root } from "./run-cli.ts";

beforeAll(() => buildOnce());

describe("docs/run.md", () => {
  const page = readFileSync(join(root, "docs", "run.md"), "utf8");
  const samples = [...page.matchAll(/^```console\n\$ iommukit (.+)\n([^`]*)```$/gm)];

  it("shows an answer for each kind of workload", () => {
    expect(samples).toHaveLength(8);
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
