/**
 * A device in a process of the host: each of its CPUs polls the queues of its share of the VMs, whose
 * drivers keep so many requests in flight.
 *
 *     VM ─ request ─▶ queue of its CPU ─▶ served ─▶ VM sends the next
 */
import { assert } from "../../errors.ts";
import { Engine } from "../engine.ts";
import { ServerPool } from "../server-pool.ts";

/** What to run. */
export interface PolledRun {
  readonly cpus: number;
  readonly vms: number;
  /** Requests in flight of each VM. */
  readonly depth: number;
  /** What a CPU spends on a request, nanoseconds. */
  readonly requestNs: number;
}

const REQUESTS = 200_000;
const PS_PER_NS = 1000;

/** @returns requests a second, the first tenth left out */
export function runPolledDevice({ cpus, vms, depth, requestNs }: PolledRun): number {
  assert(cpus >= 1 && vms >= 1 && depth >= 1 && requestNs > 0, "somebody serves somebody");
  const engine = new Engine();
  const pollers = Array.from({ length: cpus }, () => new ServerPool(engine, 1));
  const time = Math.round(requestNs * PS_PER_NS);
  const ignored = REQUESTS / 10;
  let done = 0;
  let since = 0;
  const serve = engine.define((cpu) => engine.after(time, served, cpu));
  const served = engine.define((cpu) => {
    const pool = pollers[cpu]!;
    pool.release();
    done += 1;
    if (done === ignored) since = engine.now;
    if (done === REQUESTS) engine.stop();
    else pool.acquire(serve, cpu);
  });
  for (let vm = 0; vm < vms; vm += 1) {
    for (let index = 0; index < depth; index += 1) pollers[vm % cpus]!.acquire(serve, vm % cpus);
  }
  engine.run();
  return ((REQUESTS - ignored) * 1e12) / (engine.now - since);
}
