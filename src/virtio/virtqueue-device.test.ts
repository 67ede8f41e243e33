/** Rules V131 to V139 and V144 to V146 of the reference "virtio-iommu", section 9, each with its number. */
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { layOutAreas, type QueueAreas } from "./virtqueue-layout.ts";
import {
  AREA_BYTES,
  BUFFERS,
  RawQueue,
  RINGS,
  reasonOf,
  simpleQueue,
} from "./virtqueue-raw.suite.ts";
import { Chain } from "./virtqueue-segments.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;
const noFeatures = { indirect: false, eventIndex: false };

describe("V131: enabling", () => {
  const place = (change: Partial<QueueAreas>, sizeMax = 256): string | null => {
    const memory = new GuestMemory();
    memory.addRegion({ start: RINGS, bytes: AREA_BYTES });
    const queue = new DeviceQueue(memory, sizeMax);
    const reason = queue.enable({ ...layOutAreas(RINGS, 8), ...change }, noFeatures);
    expect(queue.isEnabled).toBe(reason === null);
    return reason;
  };

  it("accepts a well-placed queue", () => {
    expect(place({})).toBe(null);
  });

  it("refuses sizes of 0, not a power of two, over the offered maximum and over 32768", () => {
    for (const size of [0, 3, 6, 512, -1, 1.5, Number.NaN]) expect(place({ size })).toBe("size");
    expect(place({ size: 65_536 }, 65_536)).toBe("size");
  });

  it("refuses misaligned parts", () => {
    expect(place({ descriptor: RINGS + 8 })).toBe("misaligned");
    expect(place({ driver: RINGS + 1 })).toBe("misaligned");
    expect(place({ device: RINGS + 2 })).toBe("misaligned");
  });

  it("refuses parts outside memory or beyond 64 bits", () => {
    const end = RINGS + AREA_BYTES;
    expect(place({ descriptor: end - 64 })).toBe("ring-outside-memory");
    expect(place({ driver: end - 16 })).toBe("ring-outside-memory");
    expect(place({ device: end - 64 })).toBe("ring-outside-memory");
    expect(place({ descriptor: 0 })).toBe("ring-outside-memory");
    expect(place({ device: -1 })).toBe("ring-outside-memory");
    expect(place({ driver: 2 ** 52 })).toBe("ring-outside-memory");
  });

  it("refuses a part that spans two regions", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x1000 });
    memory.addRegion({ start: 0x2000, bytes: 0x1000 });
    const queue = new DeviceQueue(memory, 256);
    const areas = { ...layOutAreas(0x2000, 8), descriptor: 0x1fc0 };
    expect(queue.enable(areas, noFeatures)).toBe("ring-outside-memory");
  });
});

describe("V132: nothing is consumed or signalled", () => {
  it("before DRIVER_OK", () => {
    const raw = simpleQueue();
    raw.device.isLive = false;
    raw.offer(0);
    expect(raw.device.pop(raw.chain)).toBe(Pop.EMPTY);
    expect(raw.device.shouldNotify()).toBe(false);
    expect(raw.device.armNotifications()).toBe(false);
    raw.device.isLive = true;
    expect(raw.device.pop(raw.chain)).toBe(Pop.CHAIN);
  });

  it("on a disabled queue, nor for a chain taken before", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.take();
    raw.device.disable();
    expect(raw.device.complete(raw.chain, 0)).toBe(false);
    expect(raw.device.pop(raw.chain)).toBe(Pop.EMPTY);
    expect(raw.device.shouldNotify()).toBe(false);
    expect(raw.usedIndex).toBe(0);
    raw.device.enable(raw.areas, noFeatures);
    expect(raw.device.complete(raw.chain, 0)).toBe(false);
    expect(raw.usedIndex).toBe(0);
  });
});

describe("V133: framing", () => {
  it("one byte per descriptor reads as one request", () => {
    const raw = new RawQueue(8);
    for (let index = 0; index < 5; index += 1) {
      raw.descriptor(index, BUFFERS + 0x1000 * index, 1, NEXT, index + 1);
      raw.fill(BUFFERS + 0x1000 * index, [index + 10]);
    }
    raw.descriptor(5, BUFFERS + 0x8001, 1, NEXT | WRITE, 6);
    raw.descriptor(6, BUFFERS + 0x9003, 1, NEXT | WRITE, 7);
    raw.descriptor(7, BUFFERS + 0xa005, 2, WRITE);
    raw.offer(0);
    expect(raw.take()).toEqual([10, 11, 12, 13, 14]);
    expect(raw.chain.writableBytes).toBe(4);
    expect(raw.reply([7, 8, 9])).toBe(true);
    expect(raw.bytes(BUFFERS + 0x8001, 1)).toEqual([7]);
    expect(raw.bytes(BUFFERS + 0x9003, 1)).toEqual([8]);
    expect(raw.bytes(BUFFERS + 0xa005, 2)).toEqual([9, 0]);
    expect(raw.used(0)).toEqual({ id: 0, length: 3 });
  });

  it("a readable part longer than the caller's buffer is cut to it", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.device.pop(raw.chain);
    const target = newView(3);
    expect(raw.device.gather(raw.chain, target)).toBe(3);
    expect([...target.u8]).toEqual([1, 2, 3]);
  });

  it("requests without a readable or without a writable part are taken", () => {
    const raw = simpleQueue();
    raw.offer(1);
    expect(raw.take()).toEqual([]);
    expect(raw.reply([5])).toBe(true);
    raw.descriptor(2, BUFFERS, 2);
    raw.offer(2);
    expect(raw.take()).toEqual([1, 2]);
    expect(raw.chain.writableBytes).toBe(0);
    expect(raw.reply([])).toBe(true);
  });
});

describe("V134: a readable descriptor after a writable one is malformed", () => {
  it("in the descriptor table", () => {
    const raw = simpleQueue();
    raw.descriptor(1, BUFFERS, 4, WRITE | NEXT, 2);
    raw.descriptor(2, BUFFERS, 4);
    expect(reasonOf(raw)).toBe("readable-after-writable");
  });

  it("but an empty writable descriptor before it is harmless (V139)", () => {
    const raw = simpleQueue();
    raw.descriptor(1, BUFFERS, 0, WRITE | NEXT, 2);
    raw.descriptor(2, BUFFERS + 2, 1);
    raw.offer(0);
    expect(raw.take()).toEqual([1, 2, 3, 4, 3]);
  });
});

describe("V135: indexes", () => {
  it("a head at or above N is malformed", () => {
    const raw = simpleQueue();
    raw.offer(4);
    expect(raw.device.pop(raw.chain)).toBe(Pop.BROKEN);
    expect(raw.device.fault).toEqual({ reason: "head-range", position: 0, value: 4 });
  });

  it("next at or above N is malformed", () => {
    const raw = simpleQueue();
    raw.descriptor(0, BUFFERS, 4, NEXT, 4);
    expect(reasonOf(raw)).toBe("next-range");
    expect(raw.device.fault?.value).toBe(4);
  });

  it("next at or above an indirect table's entry count is malformed", () => {
    const raw = simpleQueue({ indirect: true });
    raw.descriptor(0, BUFFERS + 0x1000, 32, INDIRECT);
    raw.descriptorAt(BUFFERS + 0x1000, BUFFERS, 4, NEXT, 2);
    expect(reasonOf(raw)).toBe("next-range");
  });
});

describe("V136: chains longer than N are malformed", () => {
  it("for a descriptor that is its own next, and for a loop of all", () => {
    const self = simpleQueue();
    self.descriptor(0, BUFFERS, 1, NEXT, 0);
    expect(reasonOf(self)).toBe("chain-too-long");
    const ring = simpleQueue();
    for (let index = 0; index < 4; index += 1)
      ring.descriptor(index, BUFFERS, 1, NEXT, (index + 1) % 4);
    expect(reasonOf(ring)).toBe("chain-too-long");
  });

  it("for a loop of empty descriptors", () => {
    const raw = simpleQueue();
    raw.descriptor(0, 0, 0, NEXT, 0);
    expect(reasonOf(raw)).toBe("chain-too-long");
  });

  it("for direct and indirect entries counted together", () => {
    const raw = simpleQueue({ indirect: true });
    raw.descriptor(0, BUFFERS, 1, NEXT, 1);
    raw.descriptor(1, BUFFERS, 1, NEXT, 2);
    raw.descriptor(2, BUFFERS + 0x1000, 48, INDIRECT);
    for (let index = 0; index < 3; index += 1)
      raw.descriptorAt(BUFFERS + 0x1000 + 16 * index, BUFFERS, 1, index < 2 ? NEXT : 0, index + 1);
    expect(reasonOf(raw)).toBe("chain-too-long");
  });

  it("while a chain of exactly N is taken", () => {
    const raw = simpleQueue();
    for (let index = 0; index < 4; index += 1)
      raw.descriptor(index, BUFFERS + index, 1, index < 3 ? NEXT : 0, index + 1);
    raw.offer(0);
    expect(raw.take()).toEqual([1, 2, 3, 4]);
  });
});

describe("V137: the available index", () => {
  it("moved backwards or by more than N is malformed", () => {
    for (const position of [0xffff, 5, 0x8000]) {
      const raw = simpleQueue();
      raw.setAvailable(position);
      expect(raw.device.pop(raw.chain)).toBe(Pop.BROKEN);
      expect(raw.device.fault).toEqual({ reason: "available-index", position: 0, value: position });
    }
  });

  it("moved by exactly N is a full ring", () => {
    const raw = simpleQueue();
    for (let slot = 0; slot < 4; slot += 1) raw.offer(1);
    for (let slot = 0; slot < 4; slot += 1) {
      expect(raw.device.pop(raw.chain)).toBe(Pop.CHAIN);
      raw.device.complete(raw.chain, 0);
    }
    expect(raw.device.pop(raw.chain)).toBe(Pop.EMPTY);
  });
});

it("V138: a chain of more than 2^32 bytes is malformed, one of exactly that is taken", () => {
  const memory = new GuestMemory();
  memory.addRegion({ start: 0, bytes: 2 ** 40 });
  const areas = layOutAreas(0x1000, 4);
  const device = new DeviceQueue(memory, 4);
  device.enable(areas, noFeatures);
  device.isLive = true;
  const chain = new Chain();
  const half = 2 ** 31;
  const write = (index: number, length: number, flags: number, next: number): void => {
    memory.writeU64(areas.descriptor + 16 * index, 0x10_0000, 0);
    memory.writeU32(areas.descriptor + 16 * index + 8, length);
    memory.writeU32(areas.descriptor + 16 * index + 12, flags + next * 65_536);
  };
  write(0, half, NEXT, 1);
  write(1, half, WRITE, 0);
  memory.writeU16(areas.driver + 2, 1);
  expect(device.pop(chain)).toBe(Pop.CHAIN);
  expect(chain.readableBytes + chain.writableBytes).toBe(2 ** 32);
  write(1, half + 1, WRITE, 0);
  memory.writeU16(areas.driver + 2, 2);
  expect(device.pop(chain)).toBe(Pop.BROKEN);
  expect(device.fault?.reason).toBe("chain-bytes");
});

describe("V139: buffers outside memory", () => {
  it("break the chain, with no partial use", () => {
    const end = BUFFERS + AREA_BYTES;
    const places: [number, number][] = [
      [0, 4],
      [end - 3, 4],
      [RINGS - 1, 2],
      [2 ** 53, 4],
      [2 ** 64 - 4096, 0xffff_ffff],
      [BUFFERS, AREA_BYTES + 1],
    ];
    for (const [address, length] of places) {
      const raw = simpleQueue();
      raw.descriptor(1, address, length, WRITE);
      expect(reasonOf(raw)).toBe("buffer-outside-memory");
      expect(raw.device.inFlight).toBe(0);
    }
  });

  it("are harmless while empty", () => {
    const raw = simpleQueue();
    raw.descriptor(0, 2 ** 60, 0, NEXT, 1);
    raw.descriptor(1, 0, 0, NEXT, 2);
    raw.descriptor(2, BUFFERS + 1, 2);
    raw.offer(0);
    expect(raw.take()).toEqual([2, 3]);
    expect(raw.chain.count).toBe(1);
  });

  it("that span two neighbouring regions are memory", () => {
    const raw = new RawQueue(4);
    raw.descriptor(0, BUFFERS - 2, 4);
    raw.fill(BUFFERS - 2, [9, 8, 7, 6]);
    raw.offer(0);
    expect(raw.take()).toEqual([9, 8, 7, 6]);
  });
});

it("V144: tables, driver area and readable buffers are never written", () => {
  const raw = simpleQueue({ indirect: true, event: true });
  raw.descriptor(0, BUFFERS + 0x1000, 32, INDIRECT);
  raw.descriptorAt(BUFFERS + 0x1000, BUFFERS, 4, NEXT, 1);
  raw.descriptorAt(BUFFERS + 0x1010, BUFFERS + 0x100, 4, WRITE);
  raw.offer(0);
  const before = [
    raw.bytes(raw.areas.descriptor, 64),
    raw.bytes(raw.areas.driver, 14),
    raw.bytes(BUFFERS + 0x1000, 32),
    raw.bytes(BUFFERS, 0x100),
  ];
  raw.take();
  raw.reply([1, 2, 3, 4]);
  raw.device.armNotifications();
  raw.device.shouldNotify();
  expect([
    raw.bytes(raw.areas.descriptor, 64),
    raw.bytes(raw.areas.driver, 14),
    raw.bytes(BUFFERS + 0x1000, 32),
    raw.bytes(BUFFERS, 0x100),
  ]).toEqual(before);
});

it("V145: descriptors changed after pop do not change what the device does", () => {
  const raw = simpleQueue();
  raw.offer(0);
  raw.device.pop(raw.chain);
  raw.descriptor(0, 0, 0xffff_ffff, NEXT, 77);
  raw.descriptor(1, RINGS, 0xffff, WRITE);
  const target = newView(64);
  expect(raw.device.gather(raw.chain, target)).toBe(4);
  expect(raw.reply([9])).toBe(true);
  expect(raw.bytes(BUFFERS + 0x100, 2)).toEqual([9, 0]);
});

describe("V146: completion", () => {
  it("has the used entry and the content in place when the index is stored", () => {
    const buffer = new SharedArrayBuffer(AREA_BYTES);
    const memory = new GuestMemory();
    memory.addRegion({ start: RINGS, bytes: AREA_BYTES, backing: { buffer, byteOffset: 0 } });
    const areas = layOutAreas(RINGS, 2);
    const device = new DeviceQueue(memory, 2);
    device.enable(areas, noFeatures);
    device.isLive = true;
    memory.writeU64(areas.descriptor + 16, RINGS + 0x1000, 0);
    memory.writeU32(areas.descriptor + 24, 4);
    memory.writeU16(areas.descriptor + 28, WRITE);
    memory.writeU16(areas.driver + 4, 1);
    memory.writeU16(areas.driver + 2, 1);
    const chain = new Chain();
    device.pop(chain);
    const reply = newView(4);
    reply.u8.set([5, 6, 7, 8]);
    let seen: number[] = [];
    const original = Atomics.store;
    Atomics.store = ((array: Uint16Array, index: number, value: number) => {
      const entry = areas.device + 4;
      seen = [memory.readU32(entry), memory.readU32(entry + 4), memory.readU8(RINGS + 0x1003)];
      return original(array, index, value);
    }) as typeof Atomics.store;
    try {
      device.reply(chain, reply, 4);
    } finally {
      Atomics.store = original;
    }
    expect(seen).toEqual([1, 4, 8]);
  });

  it("never claims more than the writable part", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.take();
    expect(() => raw.device.complete(raw.chain, 5)).toThrow(/overestimate/);
    expect(() => raw.device.scatter(raw.chain, newView(8), 5)).toThrow(/fits/);
  });

  it("of one chain happens once", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.take();
    expect(raw.device.complete(raw.chain, 0)).toBe(true);
    expect(raw.device.complete(raw.chain, 0)).toBe(false);
    expect(raw.usedIndex).toBe(1);
  });

  it("may come out of order", () => {
    const raw = simpleQueue();
    raw.descriptor(2, BUFFERS + 0x200, 4, WRITE);
    raw.offer(0);
    raw.offer(2);
    const first = new Chain();
    const second = new Chain();
    raw.device.pop(first);
    raw.device.pop(second);
    raw.device.complete(second, 1);
    raw.device.complete(first, 2);
    expect([raw.used(0), raw.used(1)]).toEqual([
      { id: 2, length: 1 },
      { id: 0, length: 2 },
    ]);
  });
});
