/** The command line as a process: streams, exit statuses, nothing but messages on errors. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { gunzipSync, gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { buildOnce, Files, mapLine, type Run, root, runCli, unmapLine } from "./run-cli.ts";

const files = new Files();
const good =
  mapLine("1.000000", 0xffff_f000n, 0x10_0000n, 4096n) +
  unmapLine("1.000100", 0xffff_f000n, 4096n) +
  mapLine("1.000200", 0xffff_f000n, 0x20_0000n, 4096n);

beforeAll(() => buildOnce());
afterAll(() => files.dispose());

describe("the process", () => {
  it("--version prints the version of the package", async () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    const run = await runCli(["--version"]);
    expect([run.stdout, run.status]).toEqual([`${manifest.version}\n`, 0]);
  });

  it("a slip in a verb ends with status 2 and a suggestion", async () => {
    const run = await runCli(["repaly", "x"]);
    expect([run.stdout, run.status]).toEqual(["", 2]);
    expect(run.stderr).toMatch(/did you mean "replay"/);
  });

  it.each([
    ["a directory", () => files.folder, /directory/],
    ["a missing file", () => join(files.folder, "none"), /no such file/],
    [
      "truncated gzip",
      () => files.write("cut.gz", gzipSync(good.repeat(50)).subarray(0, 90)),
      /ends/,
    ],
    ["garbage", () => files.write("rubbish", Buffer.alloc(5000, "\u0001\u0002\n")), /text/],
  ])("%s ends with status 2 and a message", async (_what, pathOf, message) => {
    const path = pathOf();
    const run = await runCli(["replay", path]);
    expect([run.stdout, run.status]).toEqual(["", 2]);
    expect(run.stderr).toContain(path);
    expect(run.stderr).toMatch(message);
    expect(run.stderr).not.toMatch(/\n\s+at /);
  });

  it("reads gzip on standard input as it reads the file", async () => {
    const fromFile = await runCli(["replay", "--json", files.write("in.gz", gzipSync(good))]);
    const fromStdin = await runCli(["replay", "--json", "-"], { input: gzipSync(good) });
    const policies = (run: Run) => JSON.parse(run.stdout).result.recordings[0].policies;
    expect(policies(fromStdin)).toEqual(policies(fromFile));
    expect([fromFile.status, fromStdin.status]).toEqual([0, 0]);
  });

  it("a line of many megabytes is skipped, not collected", async () => {
    const run = await runCli(["replay", "-"], { input: `${good}${"x".repeat(20_000_000)}\n` });
    expect(run.stderr).toMatch(/:4: .*too long/);
    expect(run.stdout).toMatch(/lazy-mq\+map/);
  });

  it("colour obeys FORCE_COLOR and NO_COLOR, and is off in a pipe", async () => {
    const path = files.write("colour", good);
    const forced = await runCli(["replay", path], { env: { FORCE_COLOR: "1" } });
    const unwanted = await runCli(["replay", path], { env: { NO_COLOR: "1" } });
    const piped = await runCli(["replay", path]);
    expect(forced.stdout).toContain("\u001b[");
    expect(unwanted.stdout).not.toContain("\u001b[");
    expect(piped.stdout).toBe(unwanted.stdout);
  });

  it("ends quietly when the reader goes away", async () => {
    const path = files.write("head", good);
    const run = await runCli(["replay", ...Array.from({ length: 60 }, () => path)], {
      closeAfterBytes: 1,
    });
    expect([run.status, run.stderr]).toEqual([0, ""]);
  });

  it("the bundled recording gives a readable answer, from a pipe too", async () => {
    const run = await runCli(["replay", "examples/nvme-randwrite.txt.gz"]);
    expect([run.stderr, run.status]).toEqual(["", 0]);
    expect(run.stdout).toMatch(/strict\+map +Saves \d+ % of strict's waits/);
    const unpacked = gunzipSync(readFileSync(join(root, "examples", "nvme-randwrite.txt.gz")));
    const piped = await runCli(["replay", "-"], { input: unpacked });
    expect(piped.stdout.split("\n").slice(1)).toEqual(run.stdout.split("\n").slice(1));
  });
});
