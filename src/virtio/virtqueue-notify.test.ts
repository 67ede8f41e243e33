/** Rules V147 to V158 of the reference "virtio-iommu", section 9, each with its number. */
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { layOutAreas } from "./virtqueue-layout.ts";
import { AREA_BYTES, BUFFERS, RawQueue, RINGS, simpleQueue } from "./virtqueue-raw.suite.ts";
import { Chain } from "./virtqueue-segments.ts";
import { DeviceQueues } from "./virtqueue-set.ts";

const NEXT = 1;
const WRITE = 2;
const noFeatures = { indirect: false, eventIndex: false };

describe("V147: positions count freely and wrap", () => {
  for (const size of [1, 2, 256, 32_768]) {
    it(`from 65535 to 0, with N = ${size}`, () => {
      const raw = new RawQueue(size, { at: 0xfffe });
      raw.descriptor(0, BUFFERS, 1, WRITE);
      for (let step = 0; step < 5; step += 1) {
        raw.offer(0);
        expect(raw.device.pop(raw.chain)).toBe(Pop.CHAIN);
        expect(raw.reply([step])).toBe(true);
        expect(raw.usedIndex).toBe((0xffff + step) & 0xffff);
        expect(raw.used(0xfffe + step)).toEqual({ id: 0, length: 1 });
        expect(raw.device.pop(raw.chain)).toBe(Pop.EMPTY);
      }
      expect(raw.device.position).toBe(3);
      expect(raw.device.usedPosition).toBe(3);
    });
  }

  it("a ring filled over the wrap is taken in order", () => {
    const raw = new RawQueue(4, { at: 0xfffe });
    for (let index = 0; index < 4; index += 1) raw.descriptor(index, BUFFERS + index, 1);
    for (const head of [2, 0, 3, 1]) raw.offer(head);
    const heads: number[] = [];
    while (raw.device.pop(raw.chain) === Pop.CHAIN) heads.push(raw.chain.head);
    expect(heads).toEqual([2, 0, 3, 1]);
  });
});

it("V148, V149: in shared memory indexes are single 16-bit atomic accesses", () => {
  const buffer = new SharedArrayBuffer(AREA_BYTES);
  const memory = new GuestMemory();
  memory.addRegion({ start: RINGS, bytes: AREA_BYTES, backing: { buffer, byteOffset: 0 } });
  const areas = layOutAreas(RINGS, 2);
  const device = new DeviceQueue(memory, 2);
  device.enable(areas, { indirect: false, eventIndex: true }, 0x00ff);
  device.isLive = true;
  const halves = new Uint16Array(buffer);
  const stores: number[] = [];
  const original = Atomics.store;
  const spy = ((array: Uint16Array, index: number, value: number) => {
    if (array.BYTES_PER_ELEMENT === 2) stores.push(value);
    return original(array, index, value);
  }) as typeof Atomics.store;
  Atomics.store = spy;
  try {
    memory.writeU64(areas.descriptor + 16, RINGS + 0x1000, 0);
    memory.writeU32(areas.descriptor + 24, 4);
    memory.writeU16(areas.descriptor + 28, WRITE);
    halves[(areas.driver - RINGS) / 2 + 2 + 1] = 1;
    halves[(areas.driver - RINGS) / 2 + 1] = 0x100;
    const chain = new Chain();
    expect(device.pop(chain)).toBe(Pop.CHAIN);
    device.complete(chain, 4);
    device.armNotifications();
  } finally {
    Atomics.store = original;
  }
  expect(stores).toEqual([0x100, 0x100]);
  expect(halves[(areas.device - RINGS) / 2 + 1]).toBe(0x100);
});

describe("V150: whether the driver is notified", () => {
  const complete = (raw: RawQueue, count: number): void => {
    for (let step = 0; step < count; step += 1) {
      raw.offer(1);
      raw.device.pop(raw.chain);
      raw.device.complete(raw.chain, 0);
    }
  };

  it("without EVENT_IDX follows the driver's flag, and used_event is ignored", () => {
    const raw = simpleQueue();
    raw.setUsedEvent(77);
    expect(raw.device.shouldNotify()).toBe(false);
    complete(raw, 1);
    expect(raw.device.shouldNotify()).toBe(true);
    expect(raw.device.shouldNotify()).toBe(false);
    raw.setDriverFlags(1);
    complete(raw, 1);
    expect(raw.device.shouldNotify()).toBe(false);
  });

  it("with EVENT_IDX follows used_event, and the driver's flag is ignored", () => {
    const raw = simpleQueue({ event: true });
    raw.setDriverFlags(1);
    raw.setUsedEvent(1);
    complete(raw, 1);
    expect(raw.device.shouldNotify()).toBe(false);
    complete(raw, 1);
    expect(raw.device.shouldNotify()).toBe(true);
    complete(raw, 1);
    expect(raw.device.shouldNotify()).toBe(false);
  });

  it("with EVENT_IDX counts a whole batch, also over the wrap", () => {
    for (const [start, count, event, expected] of [
      [0, 3, 0, true],
      [0, 3, 2, true],
      [0, 3, 3, false],
      [10, 3, 9, false],
      [0xfffe, 4, 0xffff, true],
      [0xfffe, 4, 1, true],
      [0xfffe, 4, 2, false],
      [0xfffe, 4, 0xfffd, false],
    ] as const) {
      const raw = new RawQueue(4, { event: true, at: start });
      raw.descriptor(1, BUFFERS, 4, WRITE);
      raw.setUsedEvent(event);
      complete(raw, count);
      expect(raw.device.shouldNotify(), `${start} + ${count}, event ${event}`).toBe(expected);
    }
  });

  it("with EVENT_IDX is true after 65536 completions whatever used_event says", () => {
    const raw = simpleQueue({ event: true });
    raw.setUsedEvent(0x8000);
    complete(raw, 0x1_0000);
    expect(raw.device.shouldNotify()).toBe(true);
  });
});

describe("V151: how the device steers the driver", () => {
  it("without EVENT_IDX by its flags", () => {
    const raw = simpleQueue();
    raw.device.suppressNotifications();
    expect(raw.deviceFlags).toBe(1);
    expect(raw.device.armNotifications()).toBe(false);
    expect(raw.deviceFlags).toBe(0);
    expect(raw.availableEvent).toBe(0);
  });

  it("with EVENT_IDX by avail_event, flags stay 0", () => {
    const raw = simpleQueue({ event: true });
    raw.offer(1);
    raw.device.suppressNotifications();
    expect(raw.deviceFlags).toBe(0);
    raw.take();
    expect(raw.device.armNotifications()).toBe(false);
    expect(raw.availableEvent).toBe(1);
  });

  it("and re-checks before it sleeps", () => {
    for (const event of [false, true]) {
      const raw = simpleQueue({ event });
      raw.offer(1);
      expect(raw.device.armNotifications()).toBe(true);
      raw.take();
      expect(raw.device.armNotifications()).toBe(false);
    }
  });
});

describe("a device's queues", () => {
  const set = (): { memory: GuestMemory; queues: DeviceQueues; told: string[] } => {
    const memory = new GuestMemory();
    memory.addRegion({ start: RINGS, bytes: AREA_BYTES });
    const told: string[] = [];
    const queues = new DeviceQueues(memory, [8, 8], (fault) => {
      told.push(`${fault.queueIndex} ${fault.fault.reason}`);
    });
    return { memory, queues, told };
  };

  it("V152, V157: notifications before DRIVER_OK, of disabled and unknown queues are ignored", () => {
    const { queues } = set();
    const [first] = queues.queues;
    first!.enable(layOutAreas(RINGS, 8), noFeatures);
    expect(queues.notified(0)).toBe(null);
    queues.start();
    expect(queues.notified(0)).toBe(first);
    for (const index of [1, 2, 0xffff, -1, 0.5]) expect(queues.notified(index)).toBe(null);
    queues.reset();
    expect(queues.notified(0)).toBe(null);
    expect(first!.isEnabled).toBe(false);
  });

  it("V152: a spurious notification finds nothing to do", () => {
    const raw = simpleQueue();
    expect(raw.device.pop(raw.chain)).toBe(Pop.EMPTY);
    expect(raw.device.shouldNotify()).toBe(false);
    expect(raw.usedIndex).toBe(0);
  });

  it("V155: one malformed ring stops every queue until the reset", () => {
    const { memory, queues, told } = set();
    const [first, second] = queues.queues;
    const areas = layOutAreas(RINGS, 8);
    const other = layOutAreas(RINGS + 0x1000, 8);
    first!.enable(areas, noFeatures);
    second!.enable(other, noFeatures);
    queues.start();
    memory.writeU16(areas.driver + 2, 9);
    memory.writeU16(other.driver + 2, 9);
    const chain = new Chain();
    expect(first!.pop(chain)).toBe(Pop.BROKEN);
    expect(told).toEqual(["0 available-index"]);
    expect(queues.isLive).toBe(false);
    expect(second!.pop(chain)).toBe(Pop.EMPTY);
    expect(queues.notified(1)).toBe(null);
    queues.start();
    expect(second!.pop(chain)).toBe(Pop.EMPTY);
    queues.reset();
    expect(queues.fault).toBe(null);
    memory.writeU16(areas.driver + 2, 0);
    first!.enable(areas, noFeatures);
    queues.start();
    expect(first!.pop(chain)).toBe(Pop.EMPTY);
    expect(queues.isLive).toBe(true);
  });
});

it("V153: a driver without callback polls used.idx and is not notified", () => {
  const raw = simpleQueue();
  raw.setDriverFlags(1);
  raw.offer(0);
  raw.take();
  raw.reply([1]);
  expect(raw.device.shouldNotify()).toBe(false);
  expect(raw.usedIndex).toBe(1);
});

describe("V154: a head offered twice", () => {
  it("gives two used entries at most", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.offer(0);
    const first = new Chain();
    raw.device.pop(first);
    raw.device.pop(raw.chain);
    raw.device.complete(raw.chain, 1);
    raw.device.complete(first, 2);
    expect(raw.usedIndex).toBe(2);
    expect(raw.device.inFlight).toBe(0);
  });

  it("again and again without waiting breaks the queue: more than N cannot be in flight", () => {
    const raw = simpleQueue();
    for (let step = 0; step < 4; step += 1) {
      raw.offer(0);
      expect(raw.device.pop(new Chain())).toBe(Pop.CHAIN);
    }
    raw.offer(0);
    expect(raw.device.pop(raw.chain)).toBe(Pop.BROKEN);
    expect(raw.device.fault?.reason).toBe("too-many-in-flight");
  });
});

describe("V156: a ring part that becomes unmapped", () => {
  const rings = { start: RINGS, bytes: AREA_BYTES };
  /** The same rings, backed by a buffer that outlives the mapping, as shared memory does. */
  const mapped = (): { raw: RawQueue; map: () => void; unmap: () => void } => {
    const raw = simpleQueue();
    const buffer = new ArrayBuffer(AREA_BYTES);
    raw.memory.removeRegion(RINGS);
    const map = (): void => {
      raw.memory.addRegion({ ...rings, backing: { buffer, byteOffset: 0 } });
    };
    const unmap = (): void => {
      raw.memory.removeRegion(RINGS);
    };
    map();
    raw.device.enable(raw.areas, noFeatures);
    raw.descriptor(0, BUFFERS, 4, NEXT, 1);
    raw.descriptor(1, BUFFERS + 0x100, 4, WRITE);
    return { raw, map, unmap };
  };

  it("pauses the queue, which goes on where it was", () => {
    const { raw, map, unmap } = mapped();
    raw.offer(0);
    raw.take();
    raw.reply([1]);
    raw.offer(0);
    unmap();
    expect(raw.device.pop(raw.chain)).toBe(Pop.PAUSED);
    expect(raw.device.shouldNotify()).toBe(false);
    expect(raw.device.armNotifications()).toBe(false);
    expect(raw.device.fault).toBe(null);
    map();
    expect(raw.take()).toEqual([1, 2, 3, 4]);
    raw.reply([2]);
    expect(raw.usedIndex).toBe(2);
  });

  it("keeps completions and publishes them in order when it is back", () => {
    const { raw, map, unmap } = mapped();
    raw.descriptor(2, BUFFERS + 0x200, 4, WRITE);
    raw.offer(0);
    raw.offer(2);
    const first = new Chain();
    const second = new Chain();
    raw.device.pop(first);
    raw.device.pop(second);
    unmap();
    expect(raw.device.complete(second, 3)).toBe(true);
    expect(raw.device.complete(first, 4)).toBe(true);
    map();
    expect(raw.usedIndex).toBe(0);
    expect(raw.device.shouldNotify()).toBe(true);
    expect(raw.usedIndex).toBe(2);
    expect([raw.used(0), raw.used(1)]).toEqual([
      { id: 2, length: 3 },
      { id: 0, length: 4 },
    ]);
    expect(raw.device.inFlight).toBe(0);
  });

  it("while a buffer of a chain in flight goes away breaks the queue", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.device.pop(raw.chain);
    raw.memory.removeRegion(BUFFERS);
    expect(raw.device.gather(raw.chain, newView(8))).toBe(-1);
    expect(raw.device.fault?.reason).toBe("buffer-outside-memory");
    expect(raw.device.complete(raw.chain, 0)).toBe(false);

    const other = simpleQueue();
    other.offer(0);
    other.take();
    other.memory.removeRegion(BUFFERS);
    expect(other.reply([1])).toBe(false);
    expect(other.usedIndex).toBe(0);
  });
});

describe("unpop", () => {
  it("gives the same chain again, unless the queue was reset meanwhile", () => {
    const raw = simpleQueue();
    raw.offer(0);
    raw.take();
    raw.device.unpop(raw.chain);
    expect(raw.device.complete(raw.chain, 0)).toBe(false);
    expect(raw.device.inFlight).toBe(0);
    expect(raw.take()).toEqual([1, 2, 3, 4]);
    raw.device.disable();
    raw.device.enable(raw.areas, noFeatures);
    raw.device.unpop(raw.chain);
    expect(raw.device.position).toBe(0);
  });
});

it("V158: a device that does not offer IN_ORDER completes in any order it likes", () => {
  const raw = simpleQueue();
  raw.descriptor(2, BUFFERS, 1, WRITE);
  raw.descriptor(3, BUFFERS, 1, WRITE);
  const chains = [1, 2, 3].map((head) => {
    raw.offer(head);
    const chain = new Chain();
    raw.device.pop(chain);
    return chain;
  });
  for (const chain of chains.reverse()) raw.device.complete(chain, 1);
  expect([0, 1, 2].map((position) => raw.used(position).id)).toEqual([3, 2, 1]);
});
