/**
 * The verb `measure` with a real guest: the three modes in one boot, and its recording given to
 * `verify`, which must find the guest's kernel to allocate as ours does.
 *
 * How fast the modes are is not asked: that depends on what else the machine does.
 */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Files, runCli } from "../run-cli.ts";
import { parts } from "./live-guest.ts";

const title = `measure${parts === null ? " [skipped: needs a guest, node scripts/vm/fetch.mjs]" : ""}`;

interface Row {
  readonly mode: string;
  readonly perIo: { readonly maps: number; readonly unmaps: number; readonly kicks: number };
}
interface Comparison {
  readonly what: string;
  readonly predicted: number;
  readonly measured: number;
}

describe.skipIf(parts === null)(title, () => {
  const files = new Files();
  afterAll(() => files.dispose());

  it("compares the modes on an NVMe disk, and its strict run is verified", async () => {
    const traces = join(files.folder, "traces");
    const words = ["--disk", "nvme", "--section", "randrw_page", "--rounds", "1"];
    const run = await runCli([
      ...["measure", ...words, "--runtime", "1s", "--record", traces, "--fetch", "--json"],
      ...["--runtime-dir", join(files.folder, "run")],
    ]);
    expect(run.status, run.stderr).toBe(0);
    const { result } = JSON.parse(run.stdout) as {
      result: { rows: Row[]; predictions: { rows: Comparison[] }[] };
    };
    const kicks = new Map(result.rows.map(({ mode, perIo }) => [mode, perIo.kicks]));
    expect([...kicks.keys()]).toEqual(["identity", "lazy", "strict"]);
    expect(kicks.get("identity")).toBeLessThan(0.05);
    expect(kicks.get("lazy")).toBeGreaterThan(0.95);
    expect(kicks.get("lazy")).toBeLessThan(1.3);
    expect(kicks.get("strict")).toBeGreaterThan(1.9);
    expect(kicks.get("strict")).toBeLessThan(2.1);
    for (const { predicted, measured } of result.predictions[0]!.rows)
      expect(Math.abs(predicted / measured - 1)).toBeLessThan(0.15);

    const [trace] = readdirSync(traces);
    const verified = await runCli(["verify", join(traces, trace!)]);
    expect(verified.stdout).toContain("0 diverge");
    expect(verified.status).toBe(0);
  }, 300_000);
});
