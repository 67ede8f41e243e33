/** Runs the built command line in a process of its own. */
import { spawn, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root: string = dirname(dirname(fileURLToPath(import.meta.url)));
const launcher = join(root, "bin", "iommukit.js");

/** Brings `dist` up to date. */
export function buildOnce(): void {
  const done = spawnSync(process.execPath, [join(root, "scripts", "setup.mjs")], {
    encoding: "utf8",
  });
  if (done.status !== 0) throw new Error(`build failed:\n${done.stderr}`);
}

/** What a run left behind. */
export interface Run {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Options of {@link runCli}. */
export interface RunOptions {
  readonly input?: string | Buffer;
  readonly env?: Readonly<Record<string, string>>;
  /** Close standard output after this many bytes, as `| head` does. */
  readonly closeAfterBytes?: number;
}

/** Runs the command line with the given words. */
export function runCli(words: readonly string[], options: RunOptions = {}): Promise<Run> {
  const env = { ...process.env, ...options.env };
  for (const name of ["FORCE_COLOR", "COLUMNS", "NO_COLOR", "IOMMUKIT_DEBUG"]) {
    if (options.env?.[name] === undefined) delete env[name];
  }
  const child = spawn(process.execPath, [launcher, ...words], { cwd: root, env });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
    if (options.closeAfterBytes !== undefined && stdout.length >= options.closeAfterBytes) {
      child.stdout.destroy();
    }
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {});
  child.stdin.end(options.input ?? "");
  return new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (status) => resolve({ status, stdout, stderr }));
  });
}

/** A folder of input files that is removed by `dispose`. */
export class Files {
  readonly #folder = mkdtempSync(join(tmpdir(), "iommukit-test-"));

  /** Writes a file; returns its path. */
  write(name: string, content: string | Uint8Array): string {
    const path = join(this.#folder, name);
    writeFileSync(path, content);
    return path;
  }

  get folder(): string {
    return this.#folder;
  }

  dispose(): void {
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

/** A line of a kernel trace. */
export function mapLine(
  seconds: string,
  iova: bigint,
  paddr: bigint,
  bytes: bigint,
  task = "fio-7",
): string {
  return (
    `${task.padStart(20)}     [000] .....  ${seconds}: map: IOMMU: iova=0x${digits(iova)} - ` +
    `0x${digits(BigInt.asUintN(64, iova + bytes))} paddr=0x${digits(paddr)} size=${bytes}\n`
  );
}

/** A line of a kernel trace. */
export function unmapLine(seconds: string, iova: bigint, bytes: bigint, task = "fio-7"): string {
  return (
    `${task.padStart(20)}     [000] d.h..  ${seconds}: unmap: IOMMU: iova=0x${digits(iova)} - ` +
    `0x${digits(BigInt.asUintN(64, iova + bytes))} size=${bytes} unmapped_size=${bytes}\n`
  );
}

function digits(value: bigint): string {
  return value.toString(16).padStart(16, "0");
}
