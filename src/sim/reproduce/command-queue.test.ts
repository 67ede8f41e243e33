import { describe, expect, it } from "vitest";
import { kunpengServer } from "../profiles/kunpeng-server.ts";
import { runMappingThreads } from "../workload/mapping-threads.ts";
import { commandQueueTables } from "./command-queue.ts";

describe("the table of one command queue", () => {
  it("has its fitted row, its median within 15 %, and its order", () => {
    const rows = commandQueueTables[0]!.run(() => {});
    expect(rows.filter(({ met }) => !met)).toEqual([]);
    expect(Math.abs(rows[0]!.error!)).toBeLessThan(0.001);
  });

  it("is no queue's when it costs nothing", () => {
    const free = ["invalidateRange", "invalidateWait"] as const;
    const prices = kunpengServer.prices.with(
      free.map((step) => ({
        ...kunpengServer.prices.prices[0]!,
        step,
        eachNs: 0,
        on: "command queue",
      })),
    );
    const machine = { ...kunpengServer, prices };
    const [one, many] = [1, 64].map((threads) => runMappingThreads({ machine, threads, seed: 1 }));
    expect(many!.rate / one!.rate).toBeCloseTo(64, 0);
  });

  it("is quicker on a machine whose CPUs are all of the queue's package", () => {
    const local = { ...kunpengServer, nodeOfCpu: kunpengServer.nodeOfCpu.map(() => 0) };
    const rate = (machine: typeof kunpengServer) =>
      runMappingThreads({ machine, threads: 96, seed: 1 }).rate;
    expect(rate(local)).toBeGreaterThan(1.2 * rate(kunpengServer));
  });
});
