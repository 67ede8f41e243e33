/** What a disk in a file still holds after its process was killed, and says when there is no room. */
import { spawn, spawnSync } from "node:child_process";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";

const BLOCK = 65_536;
const BLOCKS = 32;
const root = fileURLToPath(new URL("../../..", import.meta.url));
const bundle = join(root, "node_modules", ".cache", "iommukit", "disk-process.mjs");
const folder = mkdtempSync(join(tmpdir(), "iommukit-"));
const mountPoint = join(folder, "small");

/** Whether this process may have a file system of its own. */
function canMount(): boolean {
  mkdirSync(mountPoint);
  const mount = ["-m", "mount", "-t", "tmpfs", "tmpfs", mountPoint];
  return process.platform === "linux" && spawnSync("unshare", mount).status === 0;
}

const hasMounts = canMount();

function image(name: string): string {
  const path = join(folder, name);
  closeSync(openSync(path, "w"));
  truncateSync(path, BLOCKS * BLOCK);
  return path;
}

/** Fills a disk under what a shell sets up first. */
function fill(shell: string): { answers: number[]; flush: number } {
  const done = spawnSync("sh", ["-c", shell], { encoding: "utf8" });
  expect(done.stderr).toBe("");
  return JSON.parse(done.stdout);
}

beforeAll(async () => {
  await build({
    entryPoints: [join(root, "src/live/block/disk-process.suite.ts")],
    outfile: bundle,
    bundle: true,
    platform: "node",
    format: "esm",
    target: "node20",
    external: ["koffi"],
    logLevel: "error",
  });
}, 60_000);
afterAll(() => rmSync(folder, { recursive: true, force: true }));

describe.skipIf(process.platform !== "linux")("a disk in a file, in a process of its own", () => {
  it("holds everything that was flushed before its process was killed", async () => {
    for (const flushes of [1, 7, 40]) {
      const path = image(`killed-${flushes}`);
      const child = spawn(process.execPath, [bundle, path, "steps"]);
      const errors: Buffer[] = [];
      child.stderr.on("data", (data: Buffer) => errors.push(data));
      let text = "";
      child.stdout.on("data", (data: Buffer) => {
        text += data;
        if (text.split("\n").length > flushes) child.kill("SIGKILL");
      });
      const signal = await new Promise((resolve) => child.on("close", (_, why) => resolve(why)));
      expect([signal, Buffer.concat(errors).toString()]).toEqual(["SIGKILL", ""]);
      const flushed = Number(text.trim().split("\n").at(-1));
      const bytes = readFileSync(path);
      for (let step = Math.max(1, flushed - BLOCKS + 1); step <= flushed; step += 1) {
        const at = (step % BLOCKS) * BLOCK;
        const found = bytes.readUInt32LE(at);
        // A later step may have come to the same block since, whole or in part.
        expect(found === step || found > flushed, `step ${step}, found ${found}`).toBe(true);
        if (found !== step) continue;
        expect(bytes.readUInt32LE(at + BLOCK - 4)).toBe(step);
      }
    }
  }, 60_000);

  it("answers EFBIG beyond the size that files may have here, and goes on", () => {
    const path = image("limited");
    // In units of 512 bytes: half of the disk.
    const limit = (BLOCKS * BLOCK) / 2 / 512;
    const { answers, flush } = fill(`ulimit -f ${limit}; exec node ${bundle} ${path} fill`);
    const half = BLOCKS / 2;
    expect(answers.slice(0, half)).toEqual(new Array(half).fill(0));
    expect(answers.slice(half)).toEqual(new Array(half).fill(Errno.EFBIG));
    expect(flush).toBe(0);
    expect(readFileSync(path).readUInt32LE((half - 1) * BLOCK)).toBe(half - 1);
  }, 30_000);

  it.skipIf(!hasMounts)(
    "answers ENOSPC when the file system is full, and goes on",
    () => {
      const out = join(folder, "found");
      const path = join(mountPoint, "disk");
      const { answers, flush } = fill(
        `exec unshare -m sh -c 'mount -t tmpfs -o size=1m tmpfs ${mountPoint} && ` +
          `truncate -s ${BLOCKS * BLOCK} ${path} && node ${bundle} ${path} fill && cp ${path} ${out}'`,
      );
      const first = answers.indexOf(Errno.ENOSPC);
      expect(first).toBeGreaterThan(4);
      expect(new Set(answers.slice(0, first))).toEqual(new Set([0]));
      expect(new Set(answers.slice(first))).toEqual(new Set([Errno.ENOSPC]));
      expect(flush).toBe(0);
      const bytes = readFileSync(out);
      for (let step = 0; step < first; step += 1)
        expect(bytes.readUInt32LE(step * BLOCK)).toBe(step);
      expect(existsSync(path)).toBe(false);
    },
    30_000,
  );

  it("has the size that its file has when it is opened, also after somebody cut it", () => {
    const path = image("cut");
    writeFileSync(path, new Uint8Array(BLOCKS * BLOCK).fill(1));
    const { answers } = fill(`exec node ${bundle} ${path} fill`);
    expect(new Set(answers)).toEqual(new Set([0]));
    truncateSync(path, BLOCK);
    expect(fill(`exec node ${bundle} ${path} fill`).answers).toEqual([0]);
  }, 30_000);
});
