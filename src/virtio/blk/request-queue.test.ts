/** Requests of virtio-blk: what each does, and every way in which one can be wrong. */
import { beforeEach, describe, expect, it } from "vitest";
import type { BlockStore, Done } from "../../block/block-store.ts";
import { MemoryStore } from "../../block/memory-store.ts";
import { Errno } from "../../errno.ts";
import type { Segment } from "../../memory/device-memory.ts";
import type { GuestMemory } from "../../memory/guest-memory.ts";
import { CommonFeature, DeviceStatus } from "../features.ts";
import { CountingSink } from "../pci/guest.suite.ts";
import { VirtioPci } from "../pci/virtio-pci.ts";
import { VirtioBlk, type VirtioBlkSettings } from "./device.ts";
import { type Buffer, GuestDisk } from "./guest-disk.suite.ts";
import { DATA, MEMORY_START, sharedMemory } from "./machine.suite.ts";
import { BlockConfig, BlockStatus, BlockType, blockFeatures } from "./protocol.ts";

const { OK, IOERR, UNSUPP } = BlockStatus;
const { IN, OUT, FLUSH, GET_ID, DISCARD, WRITE_ZEROES } = BlockType;

/** A store whose slow operations are finished by the test. */
class SlowStore extends MemoryStore {
  readonly waiting: Done[] = [];
  override flush(done: Done): void {
    this.flushes += 1;
    this.waiting.push(done);
  }
  override discard(at: number, bytes: number, done: Done): void {
    super.discard(at, bytes, () => this.waiting.push(done));
  }
}

let memory: GuestMemory;
let sink: CountingSink;
let pci: VirtioPci;
let guest: GuestDisk;

function start(settings: Partial<VirtioBlkSettings> = {}, featuresLow = -1): void {
  memory = sharedMemory();
  sink = new CountingSink();
  const store = settings.store ?? new MemoryStore({ bytes: 2 ** 20, id: "serial-0" });
  pci = new VirtioPci({ device: new VirtioBlk({ ...settings, store }), memory, interrupts: sink });
  guest = new GuestDisk({ pci, sink, memory, start: MEMORY_START, dma: null, featuresLow });
}

const data = (bytes: number, offset = 0): Buffer => ({ address: DATA + offset, bytes });

function ranges(list: readonly (readonly [number, number, number?])[]): Buffer {
  for (const [index, [sector, sectors, flags = 0]] of list.entries()) {
    const at = DATA + 0x1000 + 16 * index;
    memory.writeU64(at, sector >>> 0, Math.floor(sector / 2 ** 32));
    memory.writeU32(at + 8, sectors);
    memory.writeU32(at + 12, flags);
  }
  return { address: DATA + 0x1000, bytes: 16 * list.length };
}

function fill(byte: number, bytes: number, offset = 0): void {
  for (let at = 0; at < bytes; at += 1) memory.writeU8(DATA + offset + at, byte);
}

beforeEach(() => start());

describe("config space", () => {
  it("tells size, limits and queues", () => {
    start({
      store: new MemoryStore({ bytes: 2 ** 33, blockBytes: 4096 }),
      queueCount: 3,
      queueSize: 128,
    });
    const view = new DataView(new ArrayBuffer(BlockConfig.bytes));
    for (let at = 0; at < BlockConfig.bytes; at += 4)
      view.setUint32(at, guest.transport.readConfig32(at), true);
    expect(BlockConfig.decode(view, 0)).toMatchObject({
      capacity: 2n ** 24n,
      segMax: 126,
      blockBytes: 4096,
      physicalBlockExponent: 0,
      queueCount: 3,
      writeback: 1,
      discardAlignment: 8,
    });
  });

  it("offers RO and no discard for a store that cannot be written", () => {
    start({ store: new MemoryStore({ bytes: 2 ** 20, isReadOnly: true }) });
    const offered = guest.transport.deviceFeatures(0);
    expect(offered & blockFeatures("RO")).not.toBe(0);
    expect(offered & blockFeatures("DISCARD", "WRITE_ZEROES")).toBe(0);
    expect(guest.run(OUT, 0, [data(512)], true)).toBe(IOERR);
    expect(guest.run(DISCARD, 0, [ranges([[0, 1]])], true)).toBe(UNSUPP);
    expect(guest.run(IN, 0, [data(512)], false)).toBe(OK);
  });
});

describe("a request", () => {
  it("reads and writes, and says how much it wrote", () => {
    fill(0x5a, 1024);
    expect(guest.run(OUT, 2, [data(1024)], true)).toBe(OK);
    fill(0, 1024);
    let length = 0;
    guest.add(IN, 2, [data(1024)], false, (_, used) => {
      length = used;
    });
    guest.kick();
    expect(length).toBe(1025);
    expect(memory.readU8(DATA + 1023)).toBe(0x5a);
    expect(guest.run(IN, 2, [], false)).toBe(OK);
  });

  it.each([
    ["past the end", 2047, 1024],
    ["far outside", 2 ** 40, 512],
    ["at the last sector number", 2 ** 53, 512],
    ["of half a sector", 0, 256],
  ])("%s is IOERR and moves nothing", (_, sector, bytes) => {
    fill(0x77, 1024);
    expect(guest.run(OUT, sector, [data(bytes)], true)).toBe(IOERR);
    expect(guest.run(IN, sector, [data(bytes)], false)).toBe(IOERR);
    expect(memory.readU8(DATA)).toBe(0x77);
    expect(guest.run(IN, 2047, [data(512)], false)).toBe(OK);
    expect(memory.readU8(DATA)).toBe(0);
  });

  it("off the store's block size is IOERR", () => {
    start({ store: new MemoryStore({ bytes: 2 ** 20, blockBytes: 4096 }) });
    expect(guest.run(IN, 1, [data(4096)], false)).toBe(IOERR);
    expect(guest.run(IN, 8, [data(512)], false)).toBe(IOERR);
    expect(guest.run(IN, 8, [data(4096)], false)).toBe(OK);
  });

  it("of an unknown type is UNSUPP, whatever buffers it has", () => {
    for (const type of [2, 3, 10, 14, 0xffff_ffff]) {
      expect(guest.run(type, 0, [], false)).toBe(UNSUPP);
      expect(guest.run(type, 0, [data(512)], true)).toBe(UNSUPP);
    }
  });

  it("GET_ID gives the serial number, padded with zeros or cut", () => {
    fill(0xff, 32);
    expect(guest.run(GET_ID, 0, [data(20)], false)).toBe(OK);
    const text = Array.from({ length: 21 }, (_, at) => memory.readU8(DATA + at));
    expect(String.fromCharCode(...text.slice(0, 8))).toBe("serial-0");
    expect(text.slice(8)).toEqual([...new Array(12).fill(0), 0xff]);
    fill(0xff, 32);
    expect(guest.run(GET_ID, 0, [data(4)], false)).toBe(OK);
    expect(memory.readU8(DATA + 4)).toBe(0xff);
    expect(guest.run(GET_ID, 0, [data(64)], false)).toBe(OK);
  });

  it("whose store has no room is IOERR", () => {
    start({ store: new MemoryStore({ bytes: 2 ** 21, occupiedMax: 2 ** 18 }) });
    expect(guest.run(OUT, 0, [data(512)], true)).toBe(OK);
    expect(guest.run(OUT, 2048, [data(512)], true)).toBe(IOERR);
  });

  it("may be framed in any way: header, data and status over any descriptors", () => {
    const { queue, transport } = guest;
    fill(0x31, 512, 0x2000);
    const at = DATA + 0x5000;
    memory.writeU32(at, OUT);
    memory.writeU64(at + 8, 4, 0);
    const list = { readable: [3, 9, 4 + 100, 412], writable: [1] };
    // The header's bytes and the data's follow each other in memory here.
    for (let index = 0; index < 512; index += 1) memory.writeU8(at + 16 + index, 0x31);
    addRaw(at, list.readable, list.writable);
    transport.notify(0);
    expect(queue.getUsed()).toBeGreaterThanOrEqual(0);
    expect(memory.readU8(at + 0x1000)).toBe(OK);
    memory.writeU32(at, IN);
    addRaw(at, [16], [500, 7, 5, 1]);
    transport.notify(0);
    queue.getUsed();
    expect(queue.usedLength).toBe(513);
    const got = Array.from({ length: 513 }, (_, index) => memory.readU8(at + 0x1000 + index));
    expect(got).toEqual([...new Array(512).fill(0x31), OK]);
  });

  it.each([
    ["without a byte for the status", [16], [], 0, -1],
    ["with a header that is too short", [15], [1], 1, IOERR],
    ["with nothing but a status", [], [1], 1, IOERR],
    ["with data that does not fit sectors", [16], [511], 0, IOERR],
  ])("%s comes back", (_, readable, writable, used, status) => {
    const at = DATA + 0x5000;
    const bytes = writable.reduce((sum, count) => sum + count, 0);
    memory.writeU32(at, IN);
    memory.writeU64(at + 8, 0, 0);
    if (bytes > 0) memory.writeU8(at + 0x1000 + bytes - 1, 0xee);
    addRaw(at, readable, writable);
    guest.transport.notify(0);
    expect(guest.queue.getUsed()).toBeGreaterThanOrEqual(0);
    expect(guest.queue.usedLength).toBe(used);
    if (bytes > 0) expect(memory.readU8(at + 0x1000 + bytes - 1)).toBe(status);
    expect(guest.transport.readStatus() & DeviceStatus.NEEDS_RESET).toBe(0);
  });
});

/** Adds a chain whose readable bytes start at `at` and whose writable ones at `at + 0x1000`. */
function addRaw(at: number, readable: readonly number[], writable: readonly number[]): void {
  const list = {
    lows: new Uint32Array(16),
    highs: new Uint32Array(16),
    lengths: new Uint32Array(16),
    count: 0,
    readableCount: readable.length,
  };
  for (const [lengths, from] of [
    [readable, at],
    [writable, at + 0x1000],
  ] as const) {
    let offset = 0;
    for (const length of lengths) {
      list.lows[list.count] = from + offset;
      list.lengths[list.count] = length;
      list.count += 1;
      offset += length;
    }
  }
  guest.transport.onInterrupt = null;
  expect(guest.queue.add(list as never)).toBeGreaterThanOrEqual(0);
  guest.queue.needsKick();
}

describe("discard and write zeroes", () => {
  it("clear their ranges", () => {
    for (const type of [DISCARD, WRITE_ZEROES]) {
      fill(0x44, 4096);
      expect(guest.run(OUT, 0, [data(4096)], true)).toBe(OK);
      expect(
        guest.run(
          type,
          0,
          [
            ranges([
              [1, 2],
              [5, 1],
              [7, 0],
            ]),
          ],
          true,
        ),
      ).toBe(OK);
      expect(guest.run(IN, 0, [data(4096)], false)).toBe(OK);
      const kept = Array.from({ length: 8 }, (_, sector) => memory.readU8(DATA + 512 * sector));
      expect(kept.map((byte) => byte !== 0)).toEqual([
        true,
        false,
        false,
        true,
        true,
        false,
        true,
        true,
      ]);
    }
  });

  it.each([
    ["no range", [], IOERR],
    [
      "a range past the end",
      [
        [0, 1],
        [2048, 1],
      ],
      IOERR,
    ],
    ["a range that is too long", [[0, 70_000]], IOERR],
    ["an unknown flag", [[0, 1, 2]], UNSUPP],
    ["a far sector", [[2 ** 52, 1]], IOERR],
    ["too many ranges", new Array(17).fill([0, 1]), IOERR],
  ] as [string, [number, number, number?][], number][])("with %s do nothing", (_, list, status) => {
    fill(0x44, 512);
    guest.run(OUT, 0, [data(512)], true);
    const buffers = list.length === 0 ? [] : [ranges(list)];
    expect(guest.run(WRITE_ZEROES, 0, buffers, true)).toBe(status);
    expect(guest.run(IN, 0, [data(512)], false)).toBe(OK);
    expect(memory.readU8(DATA)).toBe(0x44);
  });

  it("take the unmap flag with zeroes only", () => {
    expect(guest.run(DISCARD, 0, [ranges([[0, 1, 1]])], true)).toBe(UNSUPP);
    expect(guest.run(WRITE_ZEROES, 0, [ranges([[0, 1, 1]])], true)).toBe(OK);
  });

  it("are UNSUPP when they were not agreed on", () => {
    start({}, ~blockFeatures("DISCARD", "WRITE_ZEROES"));
    expect(guest.run(DISCARD, 0, [ranges([[0, 1]])], true)).toBe(UNSUPP);
    expect(guest.run(WRITE_ZEROES, 0, [ranges([[0, 1]])], true)).toBe(UNSUPP);
  });
});

describe("durability", () => {
  it("with FLUSH is the driver's to ask for; without it each write is flushed", () => {
    const store = new MemoryStore({ bytes: 2 ** 20 });
    start({ store });
    guest.run(OUT, 0, [data(512)], true);
    expect(store.flushes).toBe(0);
    guest.transport.writeConfig8(BlockConfig.at.writeback, 0);
    guest.run(OUT, 0, [data(512)], true);
    expect(store.flushes).toBe(1);
    guest.transport.writeConfig8(BlockConfig.at.writeback, 7);
    guest.transport.writeConfig8(BlockConfig.at.writeback, 1);
    guest.run(OUT, 0, [data(512)], true);
    expect(store.flushes).toBe(1);
    start({ store }, ~blockFeatures("FLUSH", "CONFIG_WCE"));
    guest.run(OUT, 0, [data(512)], true);
    expect(store.flushes).toBe(2);
  });

  it("a flush holds its queue until the store is done, and interrupts then", () => {
    const store = new SlowStore({ bytes: 2 ** 20 });
    start({ store });
    const order: string[] = [];
    guest.add(FLUSH, 0, [], false, () => order.push("flush"));
    guest.add(IN, 0, [data(512)], false, () => order.push("read"));
    guest.kick();
    expect(order).toEqual([]);
    expect(pci.work()).toBe(false);
    const before = sink.count(1);
    store.waiting.shift()!(Errno.OK);
    expect(sink.count(1)).toBe(before + 1);
    expect(order).toEqual(["flush"]);
    while (pci.work());
    expect(order).toEqual(["flush", "read"]);
  });

  it("a store's failure is the request's, and its second answer is not heard", () => {
    const store = new SlowStore({ bytes: 2 ** 20 });
    start({ store });
    let status = -1;
    guest.add(FLUSH, 0, [], false, (result) => {
      status = result;
    });
    guest.kick();
    const done = store.waiting.shift()!;
    done(Errno.EIO);
    expect(status).toBe(IOERR);
    done(Errno.OK);
    while (pci.work());
    expect(guest.run(IN, 0, [data(512)], false)).toBe(OK);
  });

  it.each([
    ["the device", (): void => guest.transport.writeStatus(0)],
    ["the machine", (): void => pci.reset()],
    [
      "the queue",
      (): void => {
        guest.transport.set("queueSelect", 0);
        guest.transport.set("queueReset", 1);
      },
    ],
  ])("a reset of %s while the store works: no byte of the guest is touched later", (_, reset) => {
    for (const type of [FLUSH, DISCARD]) {
      const store = new SlowStore({ bytes: 2 ** 20 });
      start({ store });
      guest.add(
        type,
        0,
        type === DISCARD
          ? [
              ranges([
                [0, 1],
                [1, 1],
              ]),
            ]
          : [],
        true,
        () => {},
      );
      guest.kick();
      reset();
      const seen = memory.window(MEMORY_START, 0x10_0000)!.u8.subarray(0, 0x10_0000);
      const bytes = seen.slice();
      store.waiting.shift()!(Errno.OK);
      expect(store.waiting).toHaveLength(0);
      while (pci.work());
      expect(seen.findIndex((byte, at) => byte !== bytes[at])).toBe(-1);
    }
  });
});

it("a request of many megabytes is moved in turns", () => {
  const pieces: number[] = [];
  const inner = new MemoryStore({ bytes: 2 ** 26 });
  const store: BlockStore = Object.assign(Object.create(inner), {
    read: (at: number, segments: readonly Segment[], done: Done) => {
      pieces.push(segments.reduce((sum, segment) => sum + segment.bytes, 0));
      inner.read(at, segments, done);
    },
    bytes: inner.bytes,
    blockBytes: 512,
    isReadOnly: false,
    id: "",
  });
  start({ store });
  let status = -1;
  guest.transport.isEager = false;
  // One page described again and again, as only a strange guest would: 9 MiB.
  const same = new Array(9).fill(data(2 ** 20));
  guest.add(IN, 0, same, false, (result) => {
    status = result;
  });
  guest.kick();
  expect(pci.work()).toBe(true);
  expect(pieces.reduce((sum, bytes) => sum + bytes, 0)).toBe(2 ** 21);
  while (pci.work());
  expect(status).toBe(OK);
  expect(Math.max(...pieces)).toBe(2 ** 20);
});

it("queues of a device with several work side by side", () => {
  const store = new SlowStore({ bytes: 2 ** 20 });
  memory = sharedMemory();
  sink = new CountingSink();
  pci = new VirtioPci({
    device: new VirtioBlk({ store, queueCount: 2 }),
    memory,
    interrupts: sink,
  });
  const parts = { pci, sink, memory, dma: null };
  guest = new GuestDisk({ ...parts, start: MEMORY_START, queueIndex: 1 });
  guest.add(FLUSH, 0, [], false, () => {});
  guest.kick(1);
  expect(store.waiting).toHaveLength(1);
  expect(guest.transport.kicks).toEqual([undefined, 1]);
  expect(CommonFeature.RING_RESET & guest.transport.deviceFeatures(1)).not.toBe(0);
});
