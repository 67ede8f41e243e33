/**
 * Bytes and messages of a hostile client: nothing throws, nothing is left open, and another client
 * is served as if nothing had been (U137, U152, U153).
 */
import { describe, expect, it } from "vitest";
import { Random } from "../../random.ts";
import { join, message, pack, type TestClient, text } from "./client.suite.ts";
import { QEMU_JSON, World } from "./world.suite.ts";

const PAGE = 4096;
const COMMANDS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 31, 99, 65_535];
const EDGES = [
  0n,
  1n,
  8n,
  16n,
  0xfffn,
  0x1000n,
  0x4000n,
  2n ** 31n,
  2n ** 32n - 1n,
  2n ** 53n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** A payload whose fields are near what they should be. */
function payload(random: Random): Uint8Array {
  const words = Array.from({ length: random.below(12) }, (): readonly [4 | 8, bigint] => {
    const value = EDGES[random.below(EDGES.length)]!;
    return random.below(2) === 0 ? [8, value] : [4, value & 0xffff_ffffn];
  });
  const tail = Uint8Array.from({ length: random.below(3) * random.below(40) }, () =>
    random.below(256),
  );
  return join(pack(...words), tail);
}

/** One that is right, for a start. */
function sane(random: Random): [number, Uint8Array] {
  const page = random.below(64) * PAGE;
  const pages = (1 + random.below(4)) * PAGE;
  switch (random.below(6)) {
    case 0:
      return [2, pack([4, 32], [4, random.below(4)], [8, 0], [8, page], [8, pages])];
    case 1:
      return [3, pack([4, 24], [4, 0], [8, page], [8, pages])];
    case 2:
      return [9, pack([8, random.below(300)], [4, random.below(9)], [4, random.below(9)])];
    case 3: {
      const data = new Uint8Array(random.below(9));
      const access = pack([8, random.below(300)], [4, random.below(9)], [4, data.length]);
      return [10, join(access, data)];
    }
    case 4:
      return [
        8,
        pack(
          [4, 20],
          [4, 1 << random.below(6)],
          [4, random.below(6)],
          [4, random.below(5)],
          [4, random.below(5)],
        ),
      ];
    default:
      return [13, new Uint8Array(0)];
  }
}

function attack(world: World, client: TestClient, random: Random): void {
  if (random.below(4) > 0) client.sendRaw(message(1, join(pack([4, 0]), text(QEMU_JSON))));
  for (let step = 0; step < 60; step += 1) {
    const isSane = random.below(2) === 0;
    const [command, body] = isSane
      ? sane(random)
      : ([COMMANDS[random.below(COMMANDS.length)]!, payload(random)] as const);
    const flags = [0, 0, 0, 0x10, 1, 0x21, 0x20][random.below(random.below(8) === 0 ? 7 : 4)]!;
    const bytes = message(command, body, {
      id: random.below(65_536),
      flags,
      ...(random.below(60) === 0 ? { size: Number(EDGES[random.below(8)]! & 0xffff_ffffn) } : {}),
    });
    if (random.below(40) === 0) bytes[random.below(bytes.length)]! ^= 1 << random.below(8);
    const fds = Array.from(
      { length: random.below(5) === 0 ? random.below(20) : random.below(2) },
      () => (random.below(2) === 0 ? world.event() : world.memoryFile(8 * PAGE)),
    );
    client.sendRaw(bytes, fds);
    for (const fd of fds) world.clientSystem.close(fd);
    if (random.below(3) === 0) world.interrupts.raise(random.below(4));
    if (random.below(4) === 0) client.drain();
    if (!client.isOpen) return;
  }
}

/** @returns how many rounds found something wrong */
function run(seeds: number, sabotage: (world: World) => void = () => {}): number {
  let found = 0;
  for (let seed = 1; seed <= seeds; seed += 1) {
    const random = new Random(seed);
    const world = new World();
    sabotage(world);
    try {
      const client = world.connect();
      attack(world, client, random);
      client.drain();
      const { connection } = world.server;
      if (connection !== null) client.close();
      const next = world.negotiate();
      expect(next.read(7, 0, 4).errno).toBe(0);
      expect(world.server.failures).toBe(0);
      expect(world.server.dma.count).toBe(0);
      world.end();
    } catch (error) {
      if (sabotage.length === 0) throw new Error(`seed ${seed}`, { cause: error });
      found += 1;
    }
  }
  return found;
}

describe("a hostile client", () => {
  it("finds nothing to break", () => {
    expect(run(400)).toBe(0);
  });

  it("would be noticed if descriptors stayed open with refused messages", () => {
    const found = run(20, (world) => {
      world.server.close = () => {};
    });
    expect(found).toBeGreaterThan(10);
  });
});
