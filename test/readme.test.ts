/** The README tells the truth: each command in it prints what stands below it. */
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
  const samples = samplesOf(readFileSync("README.md", "utf8"));

  it("shows five answers", () => {
    expect(samples.length).toBeGreaterThanOrEqual(5);
  });

  it.each(samples)("prints what $command prints", ({ command, output }) => {
    const words = command.split(" ");
    expect(words[0]).toBe("iommukit");
    const printed = execFileSync(process.execPath, ["bin/iommukit.js", ...words.slice(1)], {
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1", COLUMNS: "80" },
      stdio: ["ignore", "pipe", "ignore"],
    });
    expect(output).toBe(printed);
  });
});
