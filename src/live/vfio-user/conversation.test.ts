/** QEMU's conversation with a device from start to end of a machine, replayed (U113 … U116). */
import { expect, it } from "vitest";
import { join, pack, type TestClient } from "./client.suite.ts";
import { QEMU_JSON, World } from "./world.suite.ts";

const KIB = 1024;
const MIB = KIB * KIB;
const RAM = 64 * MIB;
const MSIX = 2;
const ERROR = 3;

/** What QEMU's memory listener does with a layout: all messages at once, then the replies. */
class Listener {
  #layout: readonly (readonly [number, number, boolean])[] = [];
  readonly #client: TestClient;
  readonly #ram: number;

  constructor(client: TestClient, ram: number) {
    this.#client = client;
    this.#ram = ram;
  }

  /** @param layout - start, size, whether it may be written */
  apply(layout: readonly (readonly [number, number, boolean])[]): void {
    const has = (list: typeof layout, one: (typeof layout)[number]) =>
      list.some((each) => each.join() === one.join());
    const gone = this.#layout.filter((each) => !has(layout, each));
    const come = layout.filter((each) => !has(this.#layout, each));
    for (const [start, size] of gone) {
      this.#client.send(3, pack([4, 24], [4, 0], [8, start], [8, size]));
    }
    for (const [start, size, isWritable] of come) {
      const isRam = start < RAM;
      const fields = pack(
        [4, 32],
        [4, isWritable ? 3 : 1],
        [8, isRam ? start : 0],
        [8, start],
        [8, size],
      );
      const fds = isRam ? [this.#client.system.duplicate(this.#ram, "client")] : [];
      this.#client.send(2, fields, { fds });
      for (const fd of fds) this.#client.system.close(fd);
    }
    const answers = this.#client.drain();
    expect(answers.length).toBe(gone.length + come.length);
    expect(answers.every(({ errno }) => errno === 0)).toBe(true);
    this.#layout = layout;
  }
}

const ROM = [0xfffc_0000, 256 * KIB, false] as const;
/** Shadow memory of the firmware, as it opens and closes parts of it. */
const layouts: readonly (readonly (readonly [number, number, boolean])[])[] = [
  [[0, 0xa_0000, true], [0x10_0000, RAM - 0x10_0000, true], ROM],
  [
    [0, 0xc_0000, true],
    [0xc_0000, 0x2_0000, true],
    [0xe_0000, 0x2_0000, true],
    [0x10_0000, RAM - 0x10_0000, true],
    ROM,
  ],
  [[0, 0xc_0000, true], [0xc_0000, RAM - 0xc_0000, true], ROM],
  [
    [0, 0xc_3000, true],
    [0xc_3000, 0x2_5000, false],
    [0xe_8000, 0x8000, true],
    [0xf_0000, 0x1_0000, false],
    [0x10_0000, RAM - 0x10_0000, true],
    ROM,
  ],
];

function machineReset(client: TestClient, world: World): void {
  expect(client.write(7, 4, pack([2, 0])).errno).toBe(0);
  const { resets } = world.function;
  expect(client.reset()).toBe(0);
  expect(world.function.resets).toBe(resets + 1);
  for (let bar = 0x10; bar <= 0x24; bar += 4) {
    expect(client.write(7, bar, pack([4, 0])).errno).toBe(0);
  }
}

function realize(client: TestClient, world: World): void {
  expect(client.errno(4, pack([4, 16], [4, 0], [4, 0], [4, 0]))).toBe(0);
  for (const index of [0, 1, 2, 3, 4, 5, 7]) {
    const info = pack([4, 32], [4, 0], [4, index], [4, 0], [8, 0], [8, 0]);
    expect(client.errno(5, info)).toBe(0);
  }
  expect(client.errno(7, pack([4, 16], [4, 0], [4, ERROR], [4, 0]))).toBe(0);
  expect(client.read(7, 0, 256).payload.length).toBe(16 + 256);
  for (const value of [0xffff_f800, 0]) client.write(7, 0x30, pack([4, value]));
  for (let bar = 0; bar < 3; bar += 1) expect(client.read(7, 0x10 + 4 * bar, 4).errno).toBe(0);
  expect(client.errno(7, pack([4, 16], [4, 0], [4, MSIX], [4, 0]))).toBe(0);
  expect(client.read(7, 0x3d, 1).errno).toBe(0);
  expect(client.setIrqs(0x24, ERROR, 0, 1, { fds: [world.event()] })).toBe(0);
}

/** What Linux does once it has the device: MSI-X on, registers, posted doorbells. */
function drive(client: TestClient, world: World): void {
  expect(client.setIrqs(0x24, MSIX, 0, 1)).toBe(0);
  expect(client.setIrqs(0x21, MSIX, 0, 0)).toBe(0);
  const fds = [world.event(), world.event()];
  expect(client.setIrqs(0x24, MSIX, 0, 2, { fds })).toBe(0);
  for (let index = 0; index < 40; index += 1) {
    client.post(0, 4 * index, pack([4, index]));
    if (index % 8 === 0) expect(client.read(0, 4 * index, 4).view.getUint32(16, true)).toBe(index);
  }
  world.interrupts.raise(1);
  client.drain();
  expect(fds.map((fd) => world.clientSystem.drain(fd))).toEqual([false, true]);
}

it("a machine that starts, boots, reboots twice and is switched off meets no error (U113, U114)", () => {
  const world = new World();
  const client = world.connect();
  const ram = world.memoryFile(RAM);
  expect(client.version(QEMU_JSON).errno).toBe(0);
  const listener = new Listener(client, ram);
  listener.apply(layouts[0]!);
  realize(client, world);
  for (let boot = 0; boot < 3; boot += 1) {
    machineReset(client, world);
    for (const layout of layouts) listener.apply(layout);
    for (let offset = 0; offset < 64; offset += 2) client.read(7, offset, 2);
    drive(client, world);
    expect(world.server.dma.count).toBe(6);
    expect(world.memory.contains(0, RAM)).toBe(true);
    expect(world.memory.writeU8(0xc_4000, 1)).toBe(false);
    expect(world.memory.writeU8(RAM - 1, boot)).toBe(true);
    expect(client.setIrqs(0x21, MSIX, 0, 0)).toBe(0);
    listener.apply(layouts[0]!);
  }
  expect(world.server.connection?.counts.errors).toBe(0);
  expect(world.server.dma.fileCount).toBe(1);
  client.close();
  expect([world.server.dma.count, world.interrupts.descriptors]).toEqual([0, 0]);
  world.end();
});

it("registers may be used before there is memory, and memory come before anything is asked (U114, U116, U174)", () => {
  const world = new World();
  const client = world.negotiate();
  expect(client.reset()).toBe(0);
  client.post(0, 0, join(pack([4, 1])));
  expect(client.read(0, 0, 4).view.getUint32(16, true)).toBe(1);
  expect(client.map(0, MIB, { fd: world.memoryFile(MIB) })).toBe(0);
  world.interrupts.raise(0);
  expect(client.read(7, 0, 4).errno).toBe(0);
  expect(world.interrupts.held).toBe(1);
  world.end();
});

it("connections of one machine have its memory's file in common, those of two have not (U173)", () => {
  const one = new World();
  const other = new World();
  const ram = one.memoryFile(MIB);
  const [first, second] = [one.negotiate(), other.negotiate()];
  first.map(0, MIB, { fd: ram });
  expect(one.server.dma.fileNames.length).toBe(1);
  first.map(MIB, MIB, { fd: one.clientSystem.duplicate(ram, "client"), flags: 1 });
  expect(one.server.dma.fileNames.length).toBe(1);
  expect(other.server.dma.fileNames).toEqual([]);
  second.map(0, MIB);
  expect(other.server.dma.fileNames).toEqual([]);
  one.end();
  other.end();
});
