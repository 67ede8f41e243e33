/** The engine of virtual time: events in and out, and a queueing network of locks and links. */
import { Random } from "../src/random.ts";
import { Engine } from "../src/sim/engine.ts";
import { Link } from "../src/sim/link.ts";
import { ServerPool } from "../src/sim/server-pool.ts";
import type { Benchmark } from "./harness.ts";

/** Each event schedules the next one of its chain a random time later. */
function chains(pending: number, target: { perSecond: number } | null): Benchmark {
  return {
    name: `sim: events, ${pending} pending`,
    unit: "event",
    target,
    prepare(scale) {
      const units = Math.ceil(4_000_000 * scale);
      const round = () => {
        const engine = new Engine();
        const random = new Random(1);
        const next = engine.define((chain, count) => {
          engine.after(random.bits32() & 0xffff, next, chain, count + 1);
        });
        for (let chain = 0; chain < pending; chain += 1) engine.after(chain, next, chain);
        engine.run({ events: units });
        return Number.parseInt(engine.hash.slice(8), 16) | 0;
      };
      return { units, round };
    },
  };
}

/** Clients that think, take a lock, use a link, and begin again. */
const network: Benchmark = {
  name: "sim: events of 64 clients behind a lock and a link",
  unit: "event",
  target: { perSecond: 10e6 },
  prepare(scale) {
    const units = Math.ceil(4_000_000 * scale);
    const round = () => {
      const engine = new Engine();
      const random = new Random(2);
      const lock = new ServerPool(engine, 1);
      const link = new Link(engine, { latency: 400_000, bytesPerSecond: 16e9 });
      const think = engine.define((client) => lock.acquire(locked, client));
      const locked = engine.define((client) => engine.after(50_000, unlock, client));
      const unlock = engine.define((client) => {
        lock.release();
        link.send(4096, sent, client);
      });
      const sent = engine.define((client) => {
        engine.after(random.bits32() & 0xf_ffff, think, client);
      });
      for (let client = 0; client < 64; client += 1) engine.after(client, think, client);
      engine.run({ events: units });
      return Number.parseInt(engine.hash.slice(8), 16) | 0;
    };
    return { units, round };
  },
};

export const benchmarks: readonly Benchmark[] = [
  chains(16, { perSecond: 10e6 }),
  chains(1024, { perSecond: 10e6 }),
  chains(65536, null),
  network,
];
