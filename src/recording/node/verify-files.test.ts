import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { verifyFiles } from "./verify-files.ts";

const example = (name: string) =>
  fileURLToPath(new URL(`../../../examples/${name}`, import.meta.url));

let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "verify-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function write(name: string, bytes: Uint8Array | string): string {
  const path = join(folder, name);
  writeFileSync(path, bytes);
  return path;
}

async function* chunks(...texts: string[]): AsyncGenerator<Uint8Array> {
  for (const text of texts) yield Buffer.from(text);
}

describe("verifyFiles", () => {
  it("puts recordings of every kind into one document", async () => {
    const paths = ["virtio-iommu-requests.jsonl.gz", "boot-strict-1cpu.txt.gz"].map(example);
    const seen: string[] = [];
    const outcome = await verifyFiles(paths, {
      schedule: null,
      progress: (file) => seen.push(file),
    });
    expect(outcome.verified).toBe(true);
    expect(outcome.failure).toBeNull();
    const { schema, result, diagnostics } = outcome.document;
    expect(schema).toBe("iommukit/verify@1");
    expect(diagnostics).toEqual([]);
    expect(
      result.recordings.map(({ file, kind, compared, matched, waived }) => ({
        file,
        kind,
        compared,
        rows: matched + waived,
      })),
    ).toEqual([
      { file: paths[0], kind: "virtio-iommu-requests", compared: 2000, rows: 2000 },
      { file: paths[1], kind: "ftrace", compared: 4613, rows: 4613 },
    ]);
    expect(new Set(seen)).toEqual(new Set(paths));
  });

  it.each([false, true])(
    "compares VFIO mappings with the trace beside them, reversed: %s",
    async (isReversed) => {
      const paths = ["vfio-map-time.jsonl.gz", "vfio-map-time-events.txt.gz"].map(example);
      if (isReversed) paths.reverse();
      const { verified, document } = await verifyFiles(paths, { schedule: null });
      expect(verified).toBe(true);
      const rows = document.result.recordings.map(({ file, compared }) => [file, compared]);
      const expected = [
        [example("vfio-map-time.jsonl.gz"), 542],
        [example("vfio-map-time-events.txt.gz"), 0],
      ];
      expect(rows).toEqual(isReversed ? expected.reverse() : expected);
    },
  );

  it("two recordings of VFIO mappings, each with the trace that is its own", async () => {
    const vector = (name: string) => fileURLToPath(new URL(`../vectors/${name}`, import.meta.url));
    const paths = [
      example("vfio-map-time-events.txt.gz"),
      vector("vfio-map-time-virtio.jsonl.gz"),
      vector("vfio-map-time-virtio-events.txt.gz"),
      example("vfio-map-time.jsonl.gz"),
      join(folder, "missing"),
    ];
    const { verified, failure, document } = await verifyFiles(paths, { schedule: null });
    expect(document.result.recordings.map(({ compared }) => compared)).toEqual([0, 1068, 0, 542]);
    // What is missing is told once, although it was looked at as a trace as well.
    expect(document.diagnostics.filter(({ severity }) => severity === "error")).toHaveLength(1);
    expect([verified, failure?.code]).toEqual([false, "recording/not-found"]);
  });

  it("reads the standard input", async () => {
    const outcome = await verifyFiles(["-"], {
      schedule: null,
      stdin: chunks("virtio_iommu_get_features device supports feat", "ures=0x77\n"),
    });
    expect(outcome.document.result.recordings[0]).toMatchObject({
      file: "(standard input)",
      kind: "qemu-virtio-iommu-log",
      compared: 0,
    });
    expect(outcome.verified).toBe(true);
  });

  it("says no when a row differs, and where", async () => {
    const path = write(
      "diverging.log",
      "virtio_iommu_get_features device supports features=0x77\n" +
        "virtio_iommu_map domain=9 virt_start=0x0 virt_end=0xfff phys_start=0x0 flags=3\n",
    );
    const outcome = await verifyFiles([path], { schedule: null });
    expect(outcome.verified).toBe(false);
    expect(outcome.failure).toBeNull();
    expect(outcome.document.result.recordings[0]).toMatchObject({
      compared: 1,
      matched: 0,
      waived: 0,
      divergences: [{ line: 2, expected: "accepted", got: "NOENT", waivedBy: null }],
      divergencesOmitted: 0,
    });
  });

  it("verifies the others when a file cannot be read, and names it", async () => {
    const broken = [
      join(folder, "missing"),
      folder,
      write("empty", ""),
      write("garbage", Uint8Array.of(1, 2, 3, 4, 10, 0, 255)),
      write(
        "cut.gz",
        gzipSync("virtio_iommu_system_reset system reset!\n".repeat(99)).subarray(0, 40),
      ),
      write("headless.jsonl", '{"req": "00", "tail": 4, "used_len": 4, "status": 0}\n'),
    ];
    const good = example("virtio-iommu-requests.jsonl.gz");
    const outcome = await verifyFiles([...broken, good], { schedule: null });
    expect(outcome.verified).toBe(false);
    expect(outcome.failure?.code).toBe("recording/not-found");
    expect(outcome.document.diagnostics.map(({ code, file }) => [code, file])).toEqual([
      ["recording/not-found", broken[0]],
      ["recording/is-directory", broken[1]],
      ["recording/empty", broken[2]],
      ["recording/unknown-kind", broken[3]],
      ["recording/gzip-truncated", broken[4]],
      ["recording/no-device-line", broken[5]],
    ]);
    expect(outcome.document.result.recordings.map(({ file }) => file)).toEqual([good]);
  });
});
