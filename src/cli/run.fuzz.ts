/** Damaged scenarios and job files: every one is run, unsettled or refused, and never a mistake. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import fc from "fast-check";
import { afterAll, describe, expect, it } from "vitest";
import { runCommandLine } from "./command-line.ts";
import { Exit } from "./problem.ts";

const folder = mkdtempSync(join(tmpdir(), "run-fuzz-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const terminal = {
  width: 80,
  style: (_role: string, text: string) => text,
  print(): void {},
  note(): void {},
  progress(): void {},
};

const scenario = readFileSync("examples/run/other-socket.yaml", "utf8");
const jobs = readFileSync("examples/run/flush-queue.fio", "utf8");
const piece = fc.oneof(
  fc.string({ maxLength: 8 }),
  fc.constantFrom("0", "-1", "99999999999", "[", "]", "{", "\n", ":", "%", "1g", "k", "&a *a"),
);
const damage = fc.array(fc.tuple(fc.nat(2000), fc.nat(6), piece), { minLength: 1, maxLength: 3 });

function damaged(text: string, cuts: readonly [number, number, string][]): string {
  return cuts.reduce((whole, [at, length, more]) => {
    const from = at % (whole.length + 1);
    return whole.slice(0, from) + more + whole.slice(from + length);
  }, text);
}

describe("iommukit run of damaged files", () => {
  it.each([
    ["s.yaml", scenario, []],
    ["j.fio", jobs, ["--machine", "two-node-server"]],
  ] as const)("%s ends with a result or a message", async (name, text, words) => {
    const path = join(folder, name);
    const check = fc.asyncProperty(damage, async (cuts) => {
      writeFileSync(path, damaged(text, cuts));
      const quick = ["run", path, ...words, "--time", "50us", "--policy", "strict"];
      const status = await runCommandLine(quick, terminal, false);
      expect([Exit.DONE, Exit.NO, Exit.BAD_INPUT]).toContain(status);
    });
    await fc.assert(check, { numRuns: 150, seed: 5 });
  });
});
