import { describe, expect, it } from "vitest";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import type { System } from "../system/system.ts";
import { Connection, type MessageHandler } from "../vfio-user/connection.ts";
import { StreamMemory } from "../vfio-user/stream-memory.ts";
import { DEVICE_BYTES, DeviceJournal } from "./device-journal.ts";
import { type Custody, JournalTransport, type Kept, recoverStream } from "./journal-transport.ts";

class Killed extends Error {}

const KEPT_FIRST = 512;

interface State {
  count: number;
  fds: number[];
  stream?: readonly number[];
}

/** A world in which a worker dies at a chosen moment, and is replaced. */
class CrashWorld {
  readonly kernel = new SimulatedKernel();
  readonly supervisor = new SimulatedSystem(this.kernel);
  readonly client = new SimulatedSystem(this.kernel);
  readonly clientFd: number;
  readonly serverFd: number;
  readonly journalFd: number;
  readonly kept: (Kept & { fd: number })[] = [];
  readonly desk: Mapping;
  /** Moments until the worker dies; endless when infinite. */
  left: number;
  kills = 0;
  #nextNumber = KEPT_FIRST;

  constructor(killAt: number) {
    this.left = killAt;
    const [client, server] = this.supervisor.socketPair("test") as readonly [number, number];
    this.clientFd = this.supervisor.give(client, this.client, "client");
    this.supervisor.close(client);
    this.serverFd = server;
    this.journalFd = this.supervisor.createMemoryFile("journal", DEVICE_BYTES, "test");
    this.desk = this.client.allocate(2 * SLOT_BYTES + 70_000, "client");
  }

  /** A moment at which a kill may fall. */
  tick(): void {
    this.left -= 1;
    if (this.left !== 0) return;
    this.kills += 1;
    throw new Killed();
  }

  /** Runs a worker until it has nothing to do, or is killed; then its successor. */
  run(): void {
    for (let generation = 0; generation < 3; generation += 1) {
      const process = new SimulatedSystem(this.kernel);
      try {
        this.#work(process);
        return;
      } catch (error) {
        if (!(error instanceof Killed)) throw error;
      } finally {
        process.kill();
      }
    }
    throw new Error("the successors die as well");
  }

  #work(process: SimulatedSystem): void {
    const request = { fd: this.supervisor.give(this.journalFd, process, "w"), offset: 0 } as const;
    const access = { bytes: DEVICE_BYTES, access: "shared" } as const;
    const journal = new DeviceJournal(process.map({ ...request, ...access }, "w") as Mapping);
    const state = (journal.state() as State | null) ?? { count: 0, fds: [] };
    for (const { fd, number } of this.kept) this.supervisor.give(fd, process, "w", number);
    const carried = recoverStream(journal, this.kept);
    const custody: Custody = { keep: (fds, end) => this.#keep(process, fds, end) };
    const system = this.#mortal(process);
    const fd = this.supervisor.give(this.serverFd, process, "w");
    const transport = new JournalTransport(system, fd, journal, custody, "w");
    const handler: MessageHandler = {
      handle: (message, reply) => {
        this.tick();
        state.count += 1;
        state.fds.push(...message.fds);
        for (const each of message.fds) process.signal(each);
        const at = reply.add(message.payloadBytes);
        reply.bytes.u8.fill(state.count, at, at + message.payloadBytes);
        return 0;
      },
      handled: (memory) => {
        this.tick();
        journal.keep({ ...state, stream: memory.next });
        this.tick();
      },
      close: (each) => process.close(each),
    };
    const connection = new Connection(handler, transport, journal.storage);
    if (state.stream !== undefined) connection.memory.advanceTo(state.stream);
    const { inputStart } = connection.memory;
    connection.assembler.restore(carried.filter(({ owner }) => owner >= inputStart));
    for (let turn = 0; turn < 8; turn += 1) expect(connection.service()).toBe(true);
  }

  #keep(process: SimulatedSystem, fds: readonly number[], end: number): number[] {
    this.tick();
    const numbers = fds.map((fd) => {
      const number = process.duplicate(fd, "w", this.#nextNumber);
      this.#nextNumber = number + 1;
      process.close(fd);
      this.kept.push({ number, end, fd: process.give(number, this.supervisor, "custody") });
      return number;
    });
    this.tick();
    return numbers;
  }

  /** The system as a process sees it that may be killed before and after each call. */
  #mortal(system: SimulatedSystem): System {
    const wrap =
      (call: (...words: never[]) => unknown) =>
      (...words: never[]) => {
        this.tick();
        const result = call.apply(system, words);
        this.tick();
        return result;
      };
    return new Proxy(system, {
      get: (target, name: keyof System) => {
        const value = target[name];
        if (typeof value !== "function") return value;
        const isTicking = name === "receive" || name === "send";
        return isTicking ? wrap(value as never) : (value as () => unknown).bind(target);
      },
    });
  }

  send(bytes: Uint8Array, fds: readonly number[] = []): void {
    const slot = new MessageSlot(this.desk, 0);
    this.desk.view.u8.set(bytes, 2 * SLOT_BYTES);
    slot.aim(this.desk.address + 2 * SLOT_BYTES, bytes.length);
    slot.attach(fds);
    expect(this.client.send(this.clientFd, slot)).toBe(bytes.length);
  }

  receive(): Uint8Array {
    const slot = new MessageSlot(this.desk, SLOT_BYTES);
    const parts: number[] = [];
    for (;;) {
      slot.aim(this.desk.address + 2 * SLOT_BYTES, 70_000);
      const count = this.client.receive(this.clientFd, slot, "take", "client");
      if (count <= 0) return Uint8Array.from(parts);
      parts.push(...this.desk.view.u8.subarray(2 * SLOT_BYTES, 2 * SLOT_BYTES + count));
    }
  }
}

function message(id: number, payload: number): Uint8Array {
  const bytes = new Uint8Array(16 + payload).fill(id, 16);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, id, true);
  view.setUint16(2, 9, true);
  view.setUint32(4, bytes.length, true);
  return bytes;
}

const joined = (...parts: readonly Uint8Array[]) =>
  Uint8Array.from(parts.flatMap((part) => [...part]));

/** Sends messages in awkward pieces; descriptors with the second, the fourth and the sixth. */
function scenario(killAt: number): { world: CrashWorld; replies: Uint8Array; signals: number[] } {
  const world = new CrashWorld(killAt);
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
  const whole = scenario(Number.POSITIVE_INFINITY);
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

  it("has no state rather than half of one that is too large", () => {
    const journal = make().open();
    journal.keep({ small: true });
    journal.keep({ large: "x".repeat(17 * 2 ** 20) });
    expect(journal.overflow).toContain("too large");
    expect(journal.state()).toBe(null);
    journal.keep({ small: true });
    expect([journal.overflow, journal.state()]).toEqual([null, { small: true }]);
  });
});
