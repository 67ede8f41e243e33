import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { AssertionError, StackError } from "../errors.ts";
import { Engine, TIME_MAX } from "./engine.ts";

describe("engine", () => {
  it("runs events in the order of time, and of insertion at one time", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 300 }), (times) => {
        const engine = new Engine();
        const seen: number[] = [];
        const note = engine.define((index) => seen.push(index));
        for (const [index, time] of times.entries()) engine.at(time, note, index);
        expect(engine.run()).toBe("idle");
        const expected = times.map((_, index) => index).sort((a, b) => times[a]! - times[b]!);
        expect(seen).toEqual(expected);
      }),
    );
  });

  it("keeps the order when events schedule events, as a sorted list does", () => {
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 0, max: 9 }), { maxLength: 200 }), (delays) => {
        const run = (isPlain: boolean) => {
          const seen: string[] = [];
          const queue: { time: number; order: number; name: number }[] = [];
          const engine = new Engine();
          let next = 0;
          let order = 0;
          let now = 0;
          const handle = (name: number) => {
            seen.push(`${isPlain ? now : engine.now}:${name}`);
            for (let child = 0; child < 2 && next < delays.length; child += 1) {
              const delay = delays[next]!;
              next += 1;
              if (isPlain) queue.push({ time: now + delay, order: order++, name: next });
              else engine.after(delay, handler, next);
            }
          };
          const handler = engine.define(handle);
          if (isPlain) {
            queue.push({ time: 0, order: order++, name: 0 });
            while (queue.length > 0) {
              queue.sort((a, b) => a.time - b.time || a.order - b.order);
              const event = queue.shift()!;
              now = event.time;
              handle(event.name);
            }
          } else {
            engine.after(0, handler, 0);
            engine.run();
          }
          return seen;
        };
        expect(run(false)).toEqual(run(true));
      }),
    );
  });

  it("survives more pending events than it starts with room for", () => {
    const engine = new Engine();
    let last = -1;
    const note = engine.define((_, time) => {
      expect(time).toBeGreaterThanOrEqual(last);
      last = time;
    });
    for (let index = 0; index < 10_000; index += 1) {
      const time = (index * 7919) % 10_007;
      engine.at(time, note, index, time);
    }
    engine.run();
    expect(engine.events).toBe(10_000);
  });

  it("ends at a time, after a count of events, or when told to", () => {
    const engine = new Engine();
    const tick = engine.define((count) => {
      if (count === 7) engine.stop();
      engine.after(10, tick, count + 1);
    });
    engine.after(10, tick, 1);
    expect(engine.run({ until: 35 })).toBe("until");
    expect(engine.now).toBe(35);
    expect(engine.events).toBe(3);
    expect(engine.run({ events: 2 })).toBe("events");
    expect(engine.now).toBe(50);
    expect(engine.run()).toBe("stopped");
    expect(engine.now).toBe(70);
    expect(engine.pending).toBe(1);
  });

  it("hashes what happened: any change of time, handler or number shows", () => {
    const hashOf = (times: number[], a: number, b: number, which: number) => {
      const engine = new Engine();
      const handlers = [engine.define(() => {}), engine.define(() => {})];
      for (const time of times) engine.at(time, handlers[which]!, a, b);
      engine.run();
      return engine.hash;
    };
    const base = hashOf([1, 2, 3], 4, 5, 0);
    expect(hashOf([1, 2, 3], 4, 5, 0)).toBe(base);
    const others = [
      hashOf([1, 2, 4], 4, 5, 0),
      hashOf([1, 2], 4, 5, 0),
      hashOf([1, 2, 3], 6, 5, 0),
      hashOf([1, 2, 3], 4, 6, 0),
      hashOf([1, 2, 3], 4, 5, 1),
      hashOf([1, 2, 3 + 2 ** 40], 4, 5, 0),
    ];
    expect(new Set([base, ...others]).size).toBe(7);
  });

  it("gives a hash that does not depend on the machine", () => {
    const engine = new Engine();
    const step = engine.define((left, b) => {
      if (left > 0) engine.after((left * 7919) % 1000, step, left - 1, b + left);
    });
    engine.after(0, step, 1000, 0);
    engine.run();
    expect(engine.hash).toMatchInlineSnapshot(`"04a5568d0336e74f"`);
  });

  it("refuses an event in the past, beyond 2^53 ps, or at no time", () => {
    const engine = new Engine();
    const nothing = engine.define(() => {});
    engine.at(100, nothing);
    engine.run();
    expect(() => engine.at(99, nothing)).toThrow(AssertionError);
    expect(() => engine.at(TIME_MAX + 2, nothing)).toThrow(StackError);
    expect(() => engine.after(Number.NaN, nothing)).toThrow(AssertionError);
    expect(() => engine.after(-1, nothing)).toThrow(AssertionError);
  });
});
