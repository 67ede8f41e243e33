import { describe, expect, it } from "vitest";
import type { Mapping } from "../system/mapping.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import { StreamMemory } from "../vfio-user/stream-memory.ts";
import { CrashWorld, joined, message } from "./crash-world.suite.ts";
import { DEVICE_BYTES, DeviceJournal } from "./device-journal.ts";

/** Sends messages in awkward pieces; descriptors with the second, the fourth and the sixth. */
function scenario(killAt: number | null): {
  world: CrashWorld;
  replies: Uint8Array;
  signals: number[];
} {
  const world = new CrashWorld(killAt === null ? [] : [killAt]);
  const events = [0, 1, 2].map(() => world.client.createEvent("client"));
  const third = message(3, 100);
  world.send(joined(message(1, 4), new Uint8Array(0)));
  world.send(joined(message(2, 8), third.subarray(0, 20)), [events[0]!]);
  world.run();
  world.send(third.subarray(20));
  world.send(message(4, 40_000), [events[1]!, events[1]!]);
  world.send(joined(message(5, 0), message(6, 1).subarray(0, 7)));
  world.run();
  world.send(message(6, 1).subarray(7), [events[2]!]);
  world.run();
  const replies = world.receive();
  const signals = events.map((fd) => (world.client.drain(fd) ? 1 : 0));
  return { world, replies, signals };
}

describe("a worker that is killed", () => {
  const whole = scenario(null);
  const expected = joined(
    ...[4, 8, 100, 40_000, 0, 1].map((payload, index) => {
      const bytes = message(index + 1, payload).fill(index + 1, 16);
      bytes[8] = 1;
      return bytes;
    }),
  );

  it("is not needed: without a kill each message has one reply, in order", () => {
    expect(whole.replies).toEqual(expected);
    // The third message's descriptors come with the send in which the last message begins.
    expect(whole.signals).toEqual([1, 1, 1]);
  });

  it("at any moment loses nothing and does nothing twice", () => {
    let killed = 0;
    for (let killAt = 1; ; killAt += 1) {
      const { world, replies, signals } = scenario(killAt);
      if (world.kills === 0) break;
      killed += 1;
      expect(Buffer.compare(replies, expected), `killed at moment ${killAt}`).toBe(0);
      expect(signals, `killed at moment ${killAt}`).toEqual([1, 1, 1]);
    }
    expect(killed).toBeGreaterThan(40);
  });
});

describe("a device's journal", () => {
  const make = () => {
    const system = new SimulatedSystem(new SimulatedKernel());
    const fd = system.createMemoryFile("journal", DEVICE_BYTES, "test");
    const request = { fd, offset: 0, bytes: DEVICE_BYTES, access: "shared" } as const;
    const open = () => new DeviceJournal(system.map(request, "test") as Mapping);
    return { system, open };
  };

  const recordsOf = (journal: DeviceJournal) => {
    const records: number[][] = [];
    journal.log.replay(({ u8 }, at, bytes) => {
      expect(at % 4).toBe(0);
      records.push([...u8.subarray(at, at + bytes)]);
    });
    return records;
  };

  it("gives a successor the last state whole, and what was logged after it", () => {
    const { open } = make();
    const journal = open();
    const bytes = new StreamMemory(journal.storage).input;
    bytes.u8.set([1, 2, 3, 4, 5, 6, 7]);
    expect(journal.state()).toBe(null);
    expect(journal.log.append(bytes, 0, 3)).toBe(true);
    journal.keep({ a: 1 });
    expect(journal.log.append(bytes, 0, 3)).toBe(true);
    journal.keep({ a: 2, text: "äö" });
    expect(journal.log.append(bytes, 1, 5)).toBe(true);
    expect(journal.log.append(bytes, 6, 1)).toBe(true);
    journal.words[8191] = 77;
    const successor = open();
    expect(successor.state()).toEqual({ a: 2, text: "äö" });
    expect(recordsOf(successor)).toEqual([[2, 3, 4, 5, 6], [7]]);
    expect(successor.words[8191]).toBe(77);
    successor.clear();
    expect([open().state(), recordsOf(open())]).toEqual([null, []]);
  });

  it("says when its log is full; a state empties it", () => {
    const journal = make().open();
    const { input } = journal.storage;
    journal.keep({});
    let count = 0;
    while (journal.log.append(input, 0, 28)) count += 1;
    expect(count).toBe(131_072);
    journal.keep({});
    expect(journal.log.append(input, 0, 28)).toBe(true);
  });

  it("keeps long lists of numbers beside the text, and gives them back in their places", () => {
    const journal = make().open();
    const long = Array.from({ length: 500 }, (_, index) => 2 ** 45 + index / 2);
    const mixed = [...long, "text"];
    const state = { long, nested: [{ long: [...long].reverse() }, long.slice(0, 5)], mixed };
    journal.keep(state);
    expect(journal.state()).toEqual(state);
    journal.keep({ none: [] });
    expect(journal.state()).toEqual({ none: [] });
  });

  it("has no state rather than half of one that is too large", () => {
    const journal = make().open();
    journal.keep({ small: true });
    journal.keep({ large: "x".repeat(65 * 2 ** 20) });
    expect(journal.overflow).toContain("too large");
    expect(journal.state()).toBe(null);
    journal.keep({ small: true });
    expect([journal.overflow, journal.state()]).toEqual([null, { small: true }]);
  });
});
