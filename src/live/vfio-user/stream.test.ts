/** The stream: any split of it, replies that wait, clients that go, and successors (U1 … U6). */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import { WindowCache } from "../system/window-cache.ts";
import { type Answer, hexOf, join, message, pack, text } from "./client.suite.ts";
import { Interrupts } from "./interrupts.ts";
import { VfioUserServer } from "./server.ts";
import type { SocketTransport } from "./socket-transport.ts";
import { newStreamStorage } from "./stream-memory.ts";
import { FakeFunction, QEMU_JSON, World } from "./world.suite.ts";

const PAGE = 4096;

/** A conversation of every kind of message: what is sent, and which ones carry descriptors. */
function conversation(): { bytes: Uint8Array; descriptors: number }[] {
  const at = (bytes: Uint8Array, descriptors = 0) => ({ bytes, descriptors });
  const map = (page: number) => pack([4, 32], [4, 3], [8, 0], [8, page * PAGE], [8, PAGE]);
  const irqs = pack([4, 20], [4, 0x24], [4, 2], [4, 0], [4, 3]);
  const access = (region: number, offset: number, count: number) =>
    pack([8, offset], [4, region], [4, count]);
  return [
    at(message(1, join(pack([4, 0]), text(QEMU_JSON)), { id: 1 })),
    at(message(2, map(0), { id: 2 }), 1),
    at(message(2, map(1), { id: 3 })),
    at(message(2, map(2), { id: 4 }), 1),
    at(message(4, pack([4, 16], [8, 0], [4, 0]), { id: 5 })),
    at(message(10, join(access(0, 0, 4), pack([4, 1])), { id: 6, flags: 0x10 })),
    at(message(8, irqs, { id: 7 }), 3),
    at(message(9, access(7, 0, 256), { id: 8 })),
    at(message(10, join(access(0, 8, 3), pack([1, 1], [2, 2])), { id: 9 })),
    at(message(999, new Uint8Array(5), { id: 10 })),
    at(message(3, pack([4, 24], [4, 0], [8, 2 * PAGE], [8, PAGE]), { id: 11 })),
    at(message(13, new Uint8Array(0), { id: 12 })),
    at(message(9, access(0, 0, 4), { id: 13 })),
  ];
}

const shapeOf = (answers: readonly Answer[]) =>
  answers.map(({ id, command, flags, errno, payload }) =>
    [id, command, flags, errno, hexOf(payload)].join(" "),
  );

/** What the conversation leads to, sent message by message. */
function expected(): { answers: string[]; log: string[] } {
  const world = new World();
  const client = world.connect();
  for (const { bytes, descriptors } of conversation()) {
    client.sendRaw(bytes, fdsOf(world, descriptors));
  }
  const answers = shapeOf(client.drain());
  const { log } = world.function;
  expect(world.server.dma.count).toBe(2);
  expect(world.interrupts.descriptors).toBe(3);
  world.end();
  return { answers, log };
}

const fdsOf = (world: World, count: number) =>
  Array.from({ length: count }, () => (count === 1 ? world.memoryFile(PAGE) : world.event()));

describe("a conversation", () => {
  const plain = expected();

  it("has a reply to each message that wants one, in order (U6, U113)", () => {
    expect(plain.answers.map((each) => Number(each.split(" ")[0]))).toEqual([
      1, 2, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13,
    ]);
    expect(plain.answers.filter((each) => each.split(" ")[2] === "33").length).toBe(1);
  });

  it("is the same however its bytes are split and merged (U1, U2)", () => {
    const cuts = fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(cuts, fc.boolean(), (lengths, settles) => {
        const world = new World();
        const client = world.connect();
        let turn = 0;
        for (const { bytes, descriptors } of conversation()) {
          for (let at = 0; at < bytes.length; ) {
            const length = lengths[turn % lengths.length]!;
            turn += 1;
            const piece = bytes.subarray(at, at + length);
            client.sendRaw(piece, at === 0 ? fdsOf(world, descriptors) : []);
            at += piece.length;
            if (settles) world.settle();
          }
        }
        expect(shapeOf(client.drain())).toEqual(plain.answers);
        expect(world.function.log).toEqual(plain.log);
        expect([world.server.dma.count, world.interrupts.descriptors]).toEqual([2, 3]);
        world.end();
      }),
      { seed: 1, numRuns: 150 },
    );
  });

  it("may end at each of its bytes: everything is closed, the device reset (U115, U164)", () => {
    const parts = conversation();
    const total = parts.reduce((sum, { bytes }) => sum + bytes.length, 0);
    for (let end = 0; end <= total; end += 1) {
      const world = new World();
      const client = world.connect();
      let left = end;
      for (const { bytes, descriptors } of parts) {
        if (left <= 0) break;
        client.sendRaw(bytes.subarray(0, left), fdsOf(world, descriptors));
        left -= bytes.length;
      }
      const { resets } = world.function;
      if (end % 2 === 0) world.settle();
      client.close();
      expect(world.server.connection).toBe(null);
      expect(world.function.resets).toBeGreaterThan(resets);
      world.end();
    }
  });

  it("may be reset after each of its messages (U155)", () => {
    for (let before = 1; before < conversation().length; before += 1) {
      const world = new World();
      const client = world.connect();
      for (const { bytes, descriptors } of conversation().slice(0, before)) {
        client.sendRaw(bytes, fdsOf(world, descriptors));
      }
      client.drain();
      expect(client.reset()).toBe(0);
      expect(client.read(0, 0, 8).view.getBigUint64(16, true)).toBe(0n);
      world.end();
    }
  });

  it("goes on in another server after each step: nothing is lost, nothing done twice", () => {
    const parts = conversation();
    for (let crash = 1; crash <= parts.length; crash += 1) {
      for (const isTorn of [false, true]) {
        const relay = new Relay();
        parts.forEach(({ bytes, descriptors }, index) => {
          const cut = isTorn && index === crash ? 9 : bytes.length;
          relay.client.sendRaw(bytes.subarray(0, cut), fdsOf(relay.world, descriptors));
          if (index === crash) relay.replace();
          if (cut < bytes.length) relay.client.sendRaw(bytes.subarray(cut));
        });
        expect(shapeOf(relay.client.drain())).toEqual(plain.answers);
        expect(relay.server.dma.count).toBe(2);
        expect(relay.server.interrupts.descriptors).toBe(3);
        relay.end();
      }
    }
  });
});

/** A world whose server is replaced by one that has its memory and its journal. */
class Relay {
  readonly world = new World({ server: { journal: { keep: () => {} } } });
  readonly storage = newStreamStorage();
  server: VfioUserServer;
  client;
  #state: unknown = null;
  readonly #journal = {
    keep: (state: unknown) => {
      this.#state = JSON.parse(JSON.stringify(state));
    },
  };
  #transport: SocketTransport | null = null;
  #memory = new GuestMemory();
  #files: WindowCache;
  readonly #before: number;

  constructor() {
    const { world } = this;
    this.client = world.connect();
    // The world's own server steps aside at once, with the socket still open.
    const connection = world.server.connection!;
    this.#transport = connection.transport as SocketTransport;
    world.server.release();
    this.#before = world.system.ledger.descriptorCount;
    this.#files = new WindowCache(world.system, "relay");
    this.server = this.#make();
    this.server.connect(this.#transport, this.storage);
    world.onTurn = () => {
      for (let turn = 0; turn < 3; turn += 1) {
        this.server.service();
        this.server.work();
      }
    };
  }

  /** The server ends without a word; what it had received and not handled is in its memory. */
  replace(): void {
    // It takes what has arrived, handles a part of it, and is gone before it sends.
    const connection = this.server.connection!;
    connection.service();
    const carried = connection.assembler.carried.map((each) => ({ ...each }));
    this.server.release();
    this.server = this.#make();
    const state = this.#state as Parameters<VfioUserServer["resume"]>[0]["state"];
    this.server.resume({ state, transport: this.#transport, storage: this.storage, carried });
  }

  end(): void {
    this.client.close();
    this.server.service();
    expect(this.server.connection).toBe(null);
    this.#files.trim();
    expect(this.world.system.ledger.descriptorCount).toBe(this.#before - 1);
    this.world.end();
  }

  #make(): VfioUserServer {
    const { system } = this.world;
    this.#memory = new GuestMemory();
    const interrupts = new Interrupts(system, 4);
    return new VfioUserServer({
      system,
      files: this.#files,
      function: new FakeFunction(4),
      interrupts,
      memory: this.#memory,
      name: "fake0",
      journal: this.#journal,
    });
  }
}

describe("replies", () => {
  it("wait for a client that does not read, which is not read from meanwhile (U4, U132, U140)", () => {
    const world = new World();
    world.kernel.socketBytes = 20_000;
    const client = world.negotiate();
    const ask = message(9, pack([8, 0], [4, 0], [4, 0x4000]), { id: 7 });
    let sent = 0;
    for (let turn = 0; turn < 3000; turn += 1) {
      if (client.sendRaw(ask) !== ask.length) break;
      sent += 1;
      world.settle();
    }
    expect(sent).toBeLessThan(3000);
    expect(world.server.connection?.wantsInput).toBe(false);
    expect(world.server.connection?.wantsOutput).toBe(true);
    const answers = client.drain();
    expect(answers.length).toBe(sent);
    expect(answers.every(({ payload }) => payload.length === 16 + 0x4000)).toBe(true);
    expect(client.read(7, 0, 4).errno).toBe(0);
    world.end();
  });

  it("that are longer than the socket's buffer come whole (U4)", () => {
    const world = new World();
    world.kernel.socketBytes = 5000;
    const client = world.negotiate();
    world.function.bytes.get(0)!.forEach((_, index, bytes) => {
      bytes[index] = index % 251;
    });
    for (let round = 0; round < 3; round += 1) {
      const { payload } = client.read(0, 0, 0x4000);
      expect(payload.subarray(16)).toEqual(world.function.bytes.get(0));
    }
    world.end();
  });

  it("are given up when the client goes while they wait (U164)", () => {
    const world = new World();
    const client = world.negotiate();
    for (let turn = 0; turn < 400; turn += 1) {
      client.sendRaw(message(9, pack([8, 0], [4, 0], [4, 0x4000])));
      world.settle();
    }
    client.close();
    world.end();
  });
});

it("a client that sends one byte at a time is served, and holds nobody up (U139)", () => {
  const world = new World();
  const client = world.negotiate();
  const bytes = message(9, pack([8, 0], [4, 7], [4, 4]), { id: 3 });
  for (const byte of bytes.subarray(0, -1)) {
    client.sendRaw(Uint8Array.of(byte));
    expect(client.next()).toBe(null);
  }
  client.sendRaw(bytes.subarray(-1));
  expect(client.next()).toMatchObject({ id: 3, errno: 0 });
  world.end();
});

it("a hundred thousand messages in large pieces are all answered, with bounded memory (U132)", () => {
  const world = new World();
  const client = world.negotiate();
  const one = message(10, join(pack([8, 0], [4, 0], [4, 2]), pack([2, 1])), { flags: 0x10 });
  const many = join(...Array.from({ length: 1000 }, () => one));
  for (let round = 0; round < 100; round += 1) client.sendAll(many);
  expect(world.server.connection?.counts.posted).toBe(100_000);
  expect(world.function.log.length).toBe(100_000);
  world.end();
});

it("a burst of maps is taken in many turns, so that others have theirs", () => {
  const world = new World();
  const client = world.negotiate();
  const at = (index: number) => pack([4, 32], [4, 3], [8, 0], [8, index * 8192], [8, 4096]);
  const maps = Array.from({ length: 4000 }, (_, index) => message(2, at(index)));
  const burst = join(...maps);
  world.onTurn = () => {};
  expect(client.sendRaw(burst)).toBe(burst.length);
  expect(world.server.service()).toBe(true);
  expect(world.server.dma.count).toBeGreaterThan(0);
  expect(world.server.dma.count).toBeLessThanOrEqual(2 ** 16 / 48);
  for (let turn = 0; turn < 4; turn += 1) world.server.service();
  expect(world.server.dma.count).toBe(4000);
  world.end();
});

it("two servers of one process keep their clients apart (U137, U163)", () => {
  const kernel = new SimulatedKernel();
  const systems = [new SimulatedSystem(kernel), new SimulatedSystem(kernel)] as const;
  const one = new World({ systems });
  const client = one.negotiate();
  const other = new World();
  const stranger = other.negotiate();
  stranger.send(2, new Uint8Array(32), { size: 3 });
  stranger.drain();
  expect(stranger.isOpen).toBe(false);
  expect(client.read(7, 0, 4).errno).toBe(0);
  other.end();
  one.end();
});
