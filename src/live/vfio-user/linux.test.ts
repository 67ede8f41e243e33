/** The server over real sockets, memory files and event descriptors. */
import { describe, expect, it } from "vitest";
import { openLinuxSystem } from "../system/linux-system.ts";
import { Poll, PollSet } from "../system/poll-set.ts";
import { hexOf, message, pack } from "./client.suite.ts";
import { createDoorbells } from "./mappable-region.ts";
import { QEMU_JSON, World, type WorldOptions } from "./world.suite.ts";

const PAGE = 4096;
const isLinux = process.platform === "linux";

async function open(options: WorldOptions = {}) {
  const system = await openLinuxSystem();
  const world = new World({ ...options, systems: [system, system] });
  return { world, client: world.negotiate(), system };
}

describe.skipIf(!isLinux)("on Linux", () => {
  it("memory, interrupts and registers work, and nothing is left open", async () => {
    const { world, client, system } = await open();
    const fd = world.memoryFile(16 * PAGE, (bytes) => bytes.fill(0x5a));
    expect(client.map(0x10_0000, 16 * PAGE, { fd })).toBe(0);
    expect(world.memory.readU32(0x10_0000)).toBe(0x5a5a_5a5a);
    const event = world.event();
    expect(client.setIrqs(0x24, 2, 0, 1, { fds: [event] })).toBe(0);
    world.interrupts.raise(0);
    world.interrupts.flush();
    const set = new PollSet(system, 1, "client");
    set.set(0, event, Poll.IN);
    expect(system.poll(set, 0)).toBe(1);
    set.dispose();
    expect(hexOf(client.read(7, 0, 4).payload.subarray(16))).toBe("f41a5710");
    expect(client.unmap(0x10_0000, 16 * PAGE)).toBe(0);
    expect(world.memory.readU8(0x10_0000)).toBe(-1);
    world.end();
  });

  it("memory goes with its client: no window of it stays", async () => {
    const { world, client } = await open();
    const before = world.system.ledger.mappingCount;
    expect(client.map(0, 16 * PAGE, { fd: world.memoryFile(16 * PAGE) })).toBe(0);
    expect(world.files.windowCount).toBe(1);
    client.close();
    expect([world.files.windowCount, world.server.connection]).toEqual([0, null]);
    expect(world.system.ledger.mappingCount).toBeLessThanOrEqual(before);
    world.end();
  });

  it("a burst of maps with descriptors among posted writes keeps each with its own (U2, U43)", async () => {
    const { world, client } = await open();
    for (let index = 0; index < 60; index += 1) {
      client.post(0, 0, pack([4, index]));
      const fd = world.memoryFile(PAGE, (bytes) => bytes.fill(index));
      client.send(2, pack([4, 32], [4, 3], [8, 0], [8, index * PAGE], [8, PAGE]), { fds: [fd] });
      client.send(2, pack([4, 32], [4, 1], [8, 0], [8, (100 + index) * PAGE], [8, PAGE]));
    }
    const answers = client.drain();
    expect(answers.length).toBe(120);
    expect(answers.every(({ errno }) => errno === 0)).toBe(true);
    for (let index = 0; index < 60; index += 1) {
      expect(world.memory.readU8(index * PAGE)).toBe(index);
      expect(world.memory.readU8((100 + index) * PAGE)).toBe(-1);
    }
    world.end();
  });

  it("253 descriptors on each of many messages are closed (U143)", async () => {
    const { world, client, system } = await open();
    const fds = Array.from({ length: 253 }, () => world.event());
    const before = system.ledger.descriptorCount;
    for (let round = 0; round < 20; round += 1) {
      expect(client.errno(13, undefined, { fds })).toBe(22);
    }
    expect(system.ledger.descriptorCount).toBe(before);
    world.end();
  });

  it("what is no memory file is refused: an event, a socket, a directory, a device, a short file (U144)", async () => {
    const { world, client, system } = await open();
    const pair = system.socketPair("client") as readonly [number, number];
    const directory = system.open("/", "read", "client");
    const device = system.open("/dev/null", "read-write", "client");
    const file = system.open("/proc/self/exe", "read", "client");
    const short = world.memoryFile(PAGE);
    for (const fd of [world.event(), pair[0], directory, device, file, short]) {
      expect(client.map(0, 2 * PAGE, { fd })).toBeGreaterThan(0);
    }
    expect(world.server.dma.count).toBe(0);
    world.end();
  });

  it("an event that is full is signalled without waiting (U77)", async () => {
    const { world, client, system } = await open();
    const event = world.event();
    expect(client.setIrqs(0x24, 2, 0, 1, { fds: [event] })).toBe(0);
    for (let round = 0; round < 3; round += 1) {
      world.interrupts.raise(0);
      world.interrupts.flush();
    }
    expect(system.drain(event)).toBe(true);
    expect(world.interrupts.descriptors).toBe(1);
    world.end();
  });

  it("replies larger than the socket's buffer come whole, and requests wait meanwhile (U4, U132)", async () => {
    const { world, client } = await open();
    const ask = message(9, pack([8, 0], [4, 0], [4, 0x4000]), { id: 7 });
    let sent = 0;
    for (let turn = 0; turn < 20_000; turn += 1) {
      if (client.sendRaw(ask) !== ask.length) break;
      sent += 1;
      if (turn % 50 === 0) world.settle();
    }
    expect(sent).toBeLessThan(20_000);
    expect(client.drain().length).toBe(sent);
    expect(client.read(7, 0, 4).errno).toBe(0);
    world.end();
  });

  it("a client that comes and goes a thousand times leaves nothing behind (U142)", async () => {
    const { world, client, system } = await open();
    client.close();
    const fd = world.memoryFile(PAGE);
    const before = system.ledger.open.length;
    for (let round = 0; round < 1000; round += 1) {
      const next = world.connect();
      expect(next.version(QEMU_JSON).errno).toBe(0);
      expect(next.map(0, PAGE, { fd })).toBe(0);
      next.close();
      expect(world.server.connection).toBe(null);
    }
    world.files.trim();
    expect(system.ledger.open.length).toBe(before);
    world.end();
  });

  it("a doorbell in a mapped page is seen (U65)", async () => {
    const owned: (() => void)[] = [];
    const { world, client, system } = await open({
      doorbells: (world) => {
        const slots = { first: 0, stride: 4, width: 2, count: 4 } as const;
        const made = createDoorbells(world, { index: 2, bytes: PAGE, slots, owner: "doorbells" });
        if (typeof made === "number") throw new Error(`errno ${-made}`);
        owned.push(made.dispose);
        return [made.region];
      },
    });
    const { fds } = client.ask(5, pack([4, 32], [4, 0], [4, 2], [4, 0], [8, 0], [8, 0]));
    const page = system.map({ fd: fds[0]!, offset: 0, bytes: PAGE, access: "shared" }, "client");
    if (typeof page === "number") throw new Error(`errno ${-page}`);
    const words = new Uint16Array(page.buffer, page.byteOffset, PAGE / 2);
    Atomics.store(words, 4, 2);
    world.settle();
    expect(world.function.log).toEqual(["2 8 2,0"]);
    system.unmap(page);
    system.close(fds[0]!);
    client.close();
    for (const dispose of owned) dispose();
    world.end();
  });
});
