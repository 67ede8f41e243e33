import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gunzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Exit } from "./problem.ts";
import type { Terminal } from "./terminal.ts";
import { verify } from "./verify.ts";

class FakeTerminal implements Terminal {
  readonly width = 80;
  readonly style = (_role: string, text: string) => text;
  printed = "";
  readonly notes: string[] = [];
  print(text: string): void {
    this.printed += text;
  }
  note(text: string): void {
    this.notes.push(text);
  }
  progress(): void {}
}

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "verify-cli-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

const requests = fileURLToPath(
  new URL("../../examples/virtio-iommu-requests.jsonl.gz", import.meta.url),
);

async function run(files: readonly string[], json = false) {
  const terminal = new FakeTerminal();
  const exit = await verify({ json }, files, terminal);
  return { exit, text: terminal.printed, notes: terminal.notes };
}

function diverging(): string {
  const path = join(folder, "diverging.log");
  const map = (index: number) =>
    `virtio_iommu_map domain=9 virt_start=0x${index}000 virt_end=0x${index}fff phys_start=0x0 flags=3\n`;
  const maps = Array.from({ length: 30 }, (_, index) => map(index + 1)).join("");
  writeFileSync(path, `virtio_iommu_get_features device supports features=0x77\n${maps}`);
  return path;
}

describe("iommukit verify", () => {
  it("prints what matches and what is waived, with clauses, and ends with 0", async () => {
    const { exit, text, notes } = await run([requests]);
    expect(exit).toBe(Exit.DONE);
    expect(text).toContain("virtio-iommu-requests.jsonl.gz  virtio-iommu-requests: verified");
    expect(text).toMatch(
      /2,000 rows compared: 1,\d{3} match \(9\d\.\d\d %\), \d+ waived, 0 diverge/,
    );
    expect(text).toMatch(/\d+ waived by qemu-map-unaligned: device requirements/);
    expect(text.split("\n").every((line) => line.length <= 80 || line.includes("/"))).toBe(true);
    expect(notes).toEqual([]);
  });

  it("prints the first divergences with their lines and ends with 1", async () => {
    const path = diverging();
    const { exit, text } = await run([path]);
    expect(exit).toBe(Exit.NO);
    expect(text).toContain("DIVERGES");
    expect(text.match(/expected\s+accepted,\s+got\s+NOENT/g)).toHaveLength(20);
    expect(text.replace(/\s+/g, " ")).toContain(`${path}:2: MAP domain=9 0x1000-0x1fff to 0x0`);
    expect(text).toContain("10 more divergences; --json lists them");
  });

  it("prints one documented object with --json", async () => {
    const { exit, text } = await run([diverging(), requests], true);
    expect(exit).toBe(Exit.NO);
    const document = JSON.parse(text);
    expect(Object.keys(document)).toEqual(["schema", "result", "diagnostics"]);
    expect(document.schema).toBe("iommukit/verify@1");
    expect(document.result.recordings).toHaveLength(2);
    expect(document.result.recordings[0]).toMatchObject({ compared: 30, matched: 0, waived: 0 });
    expect(document.result.recordings[0].divergences).toHaveLength(30);
  });

  it("ends with 2 and a position when a file is no recording, and verifies the others", async () => {
    const garbage = join(folder, "garbage");
    writeFileSync(garbage, Uint8Array.of(0x41, 0, 1, 2));
    const { exit, text, notes } = await run([garbage, requests]);
    expect(exit).toBe(Exit.BAD_INPUT);
    expect(notes[0]).toBe(
      `${garbage}+0x1: error: This is no recording that can be read: it is not text`,
    );
    expect(notes[1]).toContain("hint: known are:");
    expect(text).toContain("verified");
  });

  it("ends with 2 when rows cannot be read, prints what the others give, and names them", async () => {
    const path = join(folder, "torn.jsonl");
    const lines = gunzipSync(readFileSync(requests)).toString().split("\n");
    writeFileSync(path, lines.with(3, "{torn").join("\n"));
    const { exit, text, notes } = await run([path]);
    expect(exit).toBe(Exit.BAD_INPUT);
    expect(text).toContain("1,999 rows compared");
    expect(notes[0]).toMatch(/torn\.jsonl:4: error: the line cannot be read/);
    const json = await run([path], true);
    expect([json.exit, JSON.parse(json.text).diagnostics[0]]).toMatchObject([
      Exit.BAD_INPUT,
      { code: "recording/bad-line", severity: "error", line: 4 },
    ]);
  });

  it("prints nothing to standard output when no file could be read", async () => {
    const { exit, text, notes } = await run([join(folder, "missing")]);
    expect(exit).toBe(Exit.BAD_INPUT);
    expect(text).toBe("");
    expect(notes[0]).toContain("missing: error: There is no such file");
  });
});
