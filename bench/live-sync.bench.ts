/**
 * What a guest waits for in strict mode: a MAP or UNMAP of the virtio-iommu of a served machine, from
 * the kick to the used index, with a driver in C in a process of its own and the journal on.
 *
 * The driver prints percentiles; the time that is reported is a mean with the driver's start in it.
 * Targets: 35 µs at the median by message, 15 µs by doorbell page.
 */
import { execFileSync, spawn } from "node:child_process";
import { join } from "node:path";
import { openLinuxSystem } from "../src/live/system/linux-system.ts";
import { Poll, PollSet } from "../src/live/system/poll-set.ts";
import type { System } from "../src/live/system/system.ts";
import type { Benchmark } from "./harness.ts";
import { LiveWorld, machineOf } from "./live-world.ts";
import { peerAndFolder, timesText } from "./vfio-user.bench.ts";

const system: System | null = process.platform === "linux" ? await openLinuxSystem() : null;

/** A driver in C and the virtio-iommu of a machine as it is served: MAP and UNMAP, each waited for. */
function iommuSyncs(how: "message" | "page"): Benchmark["prepare"] {
  return (scale) => {
    const units = Math.max(100, 2 * Math.floor(25_000 * scale));
    let run = 0;
    const round = (): number => {
      const { peer, folder } = peerAndFolder();
      if (system === null || peer === null) return 0;
      run += 1;
      const path = join(folder, `iommu-${how}-${run}.sock`);
      const out = join(folder, `iommu-${how}-${run}.txt`);
      const listener = system.listen(path, 1, "bench");
      const command = `exec ${peer} iommu ${path} ${units} ${how} > ${out}`;
      spawn("sh", ["-c", command], { stdio: ["ignore", "ignore", "inherit"] });
      const set = new PollSet(system, 1, "bench");
      set.set(0, listener, Poll.IN);
      if (system.poll(set, 10_000_000) !== 1) throw new Error("the client of C does not connect");
      set.dispose();
      const clients = new Map([["iommu0", system.accept(listener, "bench")]]);
      const world = new LiveWorld(system, machineOf(folder, 2 ** 20, how), clients);
      world.kind = "turns";
      world.serve("iommu0");
      system.close(listener);
      execFileSync("sleep", ["0.05"]);
      console.log(`    by ${how}: ${timesText(out)}; ${world.holds.lines().join("")}`);
      return units;
    };
    return { units, round };
  };
}

export const benchmarks: readonly Benchmark[] = (["message", "page"] as const).map((how) => ({
  name: `live: virtio-iommu, sync by ${how}`,
  unit: "sync",
  roundsMax: 3,
  prepare: iommuSyncs(how),
}));
