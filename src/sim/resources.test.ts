import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError } from "../errors.ts";
import { Random } from "../random.ts";
import { BoundedQueue } from "./bounded-queue.ts";
import { Engine } from "./engine.ts";
import { Link } from "./link.ts";
import { ServerPool } from "./server-pool.ts";

describe("server pool", () => {
  it("serves in the order of arrival, never more at once than it has servers", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.tuple(fc.integer({ min: 0, max: 50 }), fc.integer({ min: 0, max: 30 })), {
          minLength: 1,
          maxLength: 100,
        }),
        (servers, jobs) => {
          const engine = new Engine();
          const pool = new ServerPool(engine, servers);
          const started: number[] = [];
          let running = 0;
          const arrive = engine.define((job) => pool.acquire(start, job));
          const start = engine.define((job) => {
            running += 1;
            expect(running).toBeLessThanOrEqual(servers);
            started.push(job);
            engine.after(jobs[job]![1], end);
          });
          const end = engine.define(() => {
            running -= 1;
            pool.release();
          });
          for (const [job, [time]] of jobs.entries()) engine.at(time, arrive, job);
          engine.run();
          const arrivals = jobs.map((_, job) => job).sort((a, b) => jobs[a]![0] - jobs[b]![0]);
          expect(started).toEqual(arrivals);
          const use = pool.use();
          expect(use.granted).toBe(jobs.length);
          expect(use.busyTime).toBe(jobs.reduce((sum, [, length]) => sum + length, 0));
        },
      ),
    );
  });

  it("obeys Little's law: mean number waiting = arrival rate times mean wait", () => {
    const engine = new Engine();
    const random = new Random(7);
    const pool = new ServerPool(engine, 1);
    let area = 0;
    let since = 0;
    const note = () => {
      area += pool.waiting * (engine.now - since);
      since = engine.now;
    };
    const arrive = engine.define((left) => {
      note();
      pool.acquire(start);
      if (left > 0) engine.after(random.below(2000), arrive, left - 1);
    });
    const start = engine.define(() => engine.after(random.below(1800), end));
    const end = engine.define(() => {
      note();
      pool.release();
    });
    engine.after(0, arrive, 20_000);
    engine.run();
    expect(area).toBe(pool.use().waitTime);
    expect(pool.use().waited).toBeGreaterThan(1000);
  });

  it("does not let a request wait that only tries", () => {
    const engine = new Engine();
    const pool = new ServerPool(engine, 1);
    expect(pool.tryAcquire()).toBe(true);
    expect(pool.tryAcquire()).toBe(false);
    pool.release();
    expect(pool.busy).toBe(0);
    expect(() => pool.release()).toThrow(AssertionError);
  });
});

describe("link", () => {
  it("sends one after the other, each with its bytes' time and the way", () => {
    const engine = new Engine();
    // 1 GB/s: a byte takes 1000 ps.
    const link = new Link(engine, { latency: 5000, bytesPerSecond: 1e9 });
    const arrivals: number[][] = [];
    const arrive = engine.define((name) => arrivals.push([name, engine.now]));
    link.send(64, arrive, 1);
    link.send(36, arrive, 2);
    engine.run();
    expect(arrivals).toEqual([
      [1, 69_000],
      [2, 105_000],
    ]);
    expect(link.use()).toEqual({
      latency: 5_000,
      transfers: 2,
      bytes: 100,
      busyTime: 100_000,
      waitTime: 64_000,
    });
  });

  it("refuses a link that carries nothing", () => {
    const engine = new Engine();
    expect(() => new Link(engine, { latency: 0, bytesPerSecond: 0 })).toThrow(AssertionError);
    expect(() => new Link(engine, { latency: -1, bytesPerSecond: 1 })).toThrow(AssertionError);
  });
});

describe("bounded queue", () => {
  it("hands every value over once and in order, whoever waits", () => {
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 4 }),
        fc.array(fc.tuple(fc.boolean(), fc.integer({ min: 0, max: 40 })), { maxLength: 120 }),
        (capacity, moves) => {
          const engine = new Engine();
          const queue = new BoundedQueue(engine, capacity);
          const got: number[] = [];
          const put: number[] = [];
          let written = 0;
          const nothing = engine.define(() => {});
          const taken = engine.define((value) => got.push(value));
          const write = engine.define(() => {
            put.push(written);
            queue.put(written, nothing);
            written += 1;
          });
          const read = engine.define(() => queue.take(taken));
          for (const [isWrite, time] of moves) engine.at(time, isWrite ? write : read);
          engine.run();
          const reads = moves.filter(([isWrite]) => !isWrite).length;
          expect(got).toEqual(put.slice(0, Math.min(reads, written)));
          expect(queue.length).toBeLessThanOrEqual(capacity);
          expect(queue.use().lengthMax).toBeLessThanOrEqual(capacity);
          expect(queue.length + queue.writersWaiting).toBe(Math.max(0, written - reads));
        },
      ),
    );
  });

  it("makes a writer wait until there is room", () => {
    const engine = new Engine();
    const queue = new BoundedQueue(engine, 1);
    const done: number[] = [];
    const written = engine.define((name) => done.push(name, engine.now));
    const ignore = engine.define(() => {});
    const take = engine.define(() => queue.take(ignore));
    queue.put(10, written, 1);
    queue.put(20, written, 2);
    engine.at(500, take);
    engine.run();
    expect(done).toEqual([1, 0, 2, 500]);
    expect(queue.use().blockTime).toBe(500);
    expect(queue.use().standTime).toBe(500);
    expect(queue.tryPut(30)).toBe(false);
  });
});
