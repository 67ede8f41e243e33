/** The README and the page on `replay` tell the truth: each command prints what stands below it. */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";

interface Sample {
  readonly command: string;
  readonly output: string;
}

function samplesOf(markdown: string): Sample[] {
  return [...markdown.matchAll(/^```console\n\$ (.+)\n([^`]*)```$/gm)].map((match) => ({
    command: match[1] ?? "",
    output: match[2] ?? "",
  }));
}

describe("the README", () => {
  const readme = samplesOf(readFileSync("README.md", "utf8"));
  const samples = [...readme, ...samplesOf(readFileSync("docs/replay.md", "utf8"))];

  it("shows five answers", () => {
    expect(readme.length).toBeGreaterThanOrEqual(5);
  });

  it.each(samples)("prints what $command prints", ({ command, output }) => {
    const [program, ...words] = command.split(" ");
    expect(["iommukit", "node"]).toContain(program);
    const run = program === "iommukit" ? ["bin/iommukit.js", ...words] : words;
    const printed = execFileSync(process.execPath, run, {
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1", COLUMNS: "80" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    expect(output).toBe(printed);
  });
});
