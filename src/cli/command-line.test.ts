import { gzipSync } from "node:zlib";
import { afterAll, describe, expect, it } from "vitest";
import { Files, mapLine, type Run, unmapLine } from "../../test/run-cli.ts";
import { runCommandLine } from "./command-line.ts";

/** Runs a command line in this process. */
async function runCli(words: readonly string[], width = 80): Promise<Run> {
  let stdout = "";
  let stderr = "";
  const terminal = {
    width,
    style: (_role: string, text: string) => text,
    print(text: string): void {
      stdout += text;
    },
    note(text: string): void {
      stderr += `${text}\n`;
    },
    progress(): void {},
  };
  const status = await runCommandLine(words, terminal, false);
  return { status, stdout, stderr };
}

const files = new Files();
const good =
  mapLine("1.000000", 0xffff_f000n, 0x10_0000n, 4096n) +
  unmapLine("1.000100", 0xffff_f000n, 4096n) +
  mapLine("1.000200", 0xffff_f000n, 0x20_0000n, 4096n);

afterAll(() => files.dispose());

function expectRefused(run: Run, status: number, message: RegExp): void {
  expect(run.stderr).toMatch(message);
  expect(run.stdout).toBe("");
  expect(run.status).toBe(status);
  expect(run.stderr).not.toMatch(/\n\s+at /);
}

describe("grammar", () => {
  it.each([
    ["--help", /replay.*What-if/],
    ["help", /replay.*What-if/],
  ])("%s prints help to stdout", async (word, text) => {
    const run = await runCli([word]);
    expect(run.stdout).toMatch(text);
    expect([run.status, run.stderr]).toEqual([0, ""]);
  });

  it("help replay and replay --help print the same", async () => {
    const [first, second] = [await runCli(["help", "replay"]), await runCli(["replay", "--help"])];
    expect(first.stdout).toBe(second.stdout);
    expect(first.stdout).toMatch(/--fq-timeout/);
  });

  it.each([
    [["repaly", "x"], /no verb "repaly"; did you mean "replay"/],
    [["replay", "--polcy", "strict", "x"], /--polcy.*--policy/],
    [["replay", "--policy", "lasy-sq", "x"], /no policy "lasy-sq"; did you mean "lazy-sq"/],
    [["replay", "--policy", "strict,none", "x"], /no policy "none"[\s\S]*policies: passthrough/],
    [["replay", "--iommu", "hardwere", "x"], /did you mean "hardware"/],
    [["replay", "--fq-size", "1", "x"], /2 to 2097152, not "1"/],
    [["replay", "--fq-timeout", "10", "x"], /such as 10ms, up to 1h, not "10"/],
    [["replay", "--json", "--csv", "x"], /--json.*--csv/],
    [["replay"], /RECORDING/],
  ])("%j is a usage error", async (words, message) => {
    expectRefused(await runCli(words), 2, message);
  });
});

describe("bad input", () => {
  const cases: [string, () => string | Uint8Array, RegExp][] = [
    ["an empty file", () => "", /empty/],
    [
      "binary garbage",
      () => Uint8Array.from({ length: 9999 }, (_, i) => (i * 37) ^ (i >> 3)),
      /text/,
    ],
    ["text of another kind", () => "hello\nworld\n", /:1: .*recording/],
    ["a header without events", () => "# tracer: nop\n#\n", /no DMA|no iommu/i],
    ["truncated gzip", () => gzipSync(good.repeat(50)).subarray(0, 90), /gzip data ends/],
    ["one very long line", () => "x".repeat(5_000_000), /longer than|too long/],
    ["a map of no bytes", () => mapLine("1.000000", 0x1000n, 0x1000n, 0n), /:1: .*size is zero/i],
    [
      "a map that is no whole number of pages",
      () => mapLine("1.000000", 0x1000n, 0x1000n, 100n),
      /:1: .*whole number/,
    ],
    [
      "a map that runs past the end of the address space",
      () => mapLine("1.000000", 0xffff_ffff_ffff_f000n, 0x1000n, 8192n),
      /:1: /,
    ],
  ];
  it.each(cases)("%s is refused with its place", async (name, content, message) => {
    const path = files.write(name.replaceAll(" ", "-"), content());
    const run = await runCli(["replay", path]);
    expectRefused(run, 2, message);
    expect(run.stderr).toContain(path);
  });

  it("a directory and a file that does not exist are refused", async () => {
    expectRefused(await runCli(["replay", files.folder]), 2, /directory/);
    expectRefused(await runCli(["replay", `${files.folder}/none`]), 2, /no such file/);
  });

  it("bad lines among good ones: the result is printed, the status says 2", async () => {
    const path = files.write("mixed", good + mapLine("1.000300", 0x5000n, 0x1000n, 0n));
    const run = await runCli(["replay", path]);
    expect(run.stdout).toMatch(/lazy-mq\+map/);
    expect(run.stderr).toMatch(/mixed:4: .*zero/);
    expect(run.status).toBe(2);
  });

  it("a second unmap of a range is reported with its line", async () => {
    const path = files.write("twice", good + unmapLine("1.1", 0xffff_f000n, 4096n).repeat(2));
    const run = await runCli(["replay", path]);
    expect(run.stderr).toMatch(/twice:5: .*nothing that is mapped/);
    expect(run.status).toBe(2);
  });

  it("an unmap without its map is a mapping from before the recording", async () => {
    const path = files.write("mid-life", unmapLine("0.9", 0x8000_0000n, 65536n) + good);
    const run = await runCli(["replay", "--json", path]);
    expect(run.status).toBe(0);
    expect(JSON.parse(run.stdout).result.recordings[0].workload.inferred).toBe(1);
  });

  it("overlapping maps are reported with their line", async () => {
    const path = files.write("overlap", good + mapLine("1.1", 0xffff_f000n, 0x9000n, 4096n));
    const run = await runCli(["replay", path]);
    expect(run.stderr).toMatch(/overlap:4: .*overlaps/);
    expect(run.stdout).toMatch(/strict/);
  });

  it("time that runs backwards is reported with its line", async () => {
    const path = files.write("backwards", good + mapLine("0.500000", 0x5000n, 0x1000n, 4096n));
    const run = await runCli(["replay", path]);
    expect(run.stderr).toMatch(/backwards:4: .*backwards/);
  });

  it("addresses up to the last of 64 bits are replayed", async () => {
    const path = files.write(
      "top",
      mapLine("1.0", 0xffff_ffff_ffff_f000n, 0xf_ffff_ffff_f000n, 4096n) +
        unmapLine("1.1", 0xffff_ffff_ffff_f000n, 4096n),
    );
    for (const iommu of ["virtio", "hardware"]) {
      const run = await runCli(["replay", "--iommu", iommu, "--json", path]);
      expect([run.stderr, run.status]).toEqual(["", 0]);
    }
  });
});

describe("results", () => {
  it("CRLF gives what LF gives", async () => {
    const lf = await runCli(["replay", "--csv", files.write("lf", good)]);
    const path = files.write("crlf", good.replaceAll("\n", "\r\n"));
    const crlf = await runCli(["replay", "--csv", path]);
    expect(lf.status).toBe(0);
    expect(crlf.stdout.replaceAll(path, "")).toBe(
      lf.stdout.replaceAll(path.replace("crlf", "lf"), ""),
    );
  });

  it("--json is one object with a schema, also where lines were bad", async () => {
    const path = files.write("json", `${good}rubbish\n${good}`);
    const run = await runCli(["replay", "--json", "--policy", "strict", path]);
    const object = JSON.parse(run.stdout);
    expect(object.schema).toBe("iommukit/replay@1");
    expect(object.result.recordings[0].policies.map((p: { policy: string }) => p.policy)).toEqual([
      "strict",
    ]);
    expect(object.diagnostics[0]).toMatchObject({ file: path, line: 4, severity: "warning" });
  });

  it("policies come in one order and once, however they are asked for", async () => {
    const words = ["--policy", "lazy-mq,strict", "--policy", "strict", files.write("order", good)];
    const run = await runCli(["replay", "--csv", ...words]);
    const names = run.stdout
      .trim()
      .split("\n")
      .map((line) => line.split(",")[2]);
    expect(names).toEqual(["policy", "strict", "lazy-mq"]);
  });

  it("nothing is printed when the second recording is bad", async () => {
    const run = await runCli(["replay", files.write("first", good), files.write("second", "")]);
    expectRefused(run, 2, /second.*empty/);
  });

  it.each([80, 100, 60])("the table keeps to %i columns", async (width) => {
    const run = await runCli(["replay", files.write("narrow", good)], width);
    const lines = run.stdout.split("\n").slice(1);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(width);
  });

  it("a mistake of the program is told without a stack trace, and as such", async () => {
    const terminal = {
      width: 80,
      style: (): string => {
        throw new TypeError("boom");
      },
      print(): void {},
      notes: "",
      note(text: string): void {
        this.notes += `${text}\n`;
      },
      progress(): void {},
    };
    const status = await runCommandLine(["replay", files.write("boom", good)], terminal, false);
    expect(status).toBe(3);
    expect(terminal.notes).toMatch(/internal error: boom\n {2}hint: .*IOMMUKIT_DEBUG=1/);
    expect(terminal.notes).not.toMatch(/\n\s+at /);
  });
});
