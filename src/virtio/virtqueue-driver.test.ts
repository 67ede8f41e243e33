/** The driver's side of the virtqueue: rules V136, V140 to V151 as a driver keeps them, V196. */
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { Random } from "../random.ts";
import {
  ADD_BROKEN,
  ADD_FULL,
  DriverQueue,
  driverQueueFault,
  USED_BROKEN,
  USED_NONE,
} from "./virtqueue-driver.ts";
import { layOutAreas, type QueueAreas } from "./virtqueue-layout.ts";
import { SegmentList } from "./virtqueue-segments.ts";

const START = 0x10_0000;
const TABLES = 0x11_0000;
const BUFFERS = 0x12_0000;

interface Side {
  readonly memory: GuestMemory;
  readonly areas: QueueAreas;
  readonly queue: DriverQueue;
  /** Plays the device: puts an entry on the used ring. */
  use(id: number, length: number): void;
}

function driverSide(
  size: number,
  options: { indirect?: number; event?: boolean; callbacks?: boolean } = {},
): Side {
  const memory = new GuestMemory();
  memory.addRegion({ start: START, bytes: 0x10_0000 });
  const areas = layOutAreas(START, size);
  const entries = options.indirect ?? 0;
  const queue = new DriverQueue(memory, {
    areas,
    eventIndex: options.event ?? false,
    indirect: entries === 0 ? null : { start: TABLES, entries },
    callbacks: options.callbacks ?? false,
  });
  let used = 0;
  return {
    memory,
    areas,
    queue,
    use(id, length) {
      const entry = areas.device + 4 + 8 * (used % size);
      memory.writeU32(entry, id);
      memory.writeU32(entry + 4, length);
      used = (used + 1) & 0xffff;
      memory.writeU16(areas.device + 2, used);
    },
  };
}

function list(readable: readonly number[], writable: readonly number[]): SegmentList {
  const segments = new SegmentList();
  let address = BUFFERS;
  for (const length of readable) {
    segments.addReadable(address, length);
    address += 0x100;
  }
  for (const length of writable) {
    segments.addWritable(address, length);
    address += 0x100;
  }
  return segments;
}

/** The descriptors from `index` on, as text, by their next links. */
function chainText(memory: GuestMemory, table: number, index: number): string[] {
  const texts: string[] = [];
  for (let at = table + 16 * index, step = 0; step < 20; step += 1) {
    const flags = memory.readU16(at + 12);
    const address = memory.readU32(at).toString(16);
    texts.push(`${address}+${memory.readU32(at + 8)} flags ${flags}`);
    if ((flags & 1) === 0) break;
    at = table + 16 * memory.readU16(at + 14);
  }
  return texts;
}

describe("add", () => {
  it("links direct descriptors, readable before writable, and publishes the head", () => {
    const { memory, areas, queue } = driverSide(8);
    const head = queue.add(list([4, 5], [6]));
    expect(head).toBe(0);
    expect(chainText(memory, areas.descriptor, head)).toEqual([
      "120000+4 flags 1",
      "120100+5 flags 1",
      "120200+6 flags 2",
    ]);
    expect(memory.readU16(areas.driver + 2)).toBe(1);
    expect(memory.readU16(areas.driver + 4)).toBe(0);
    expect(queue.freeCount).toBe(5);
    expect(queue.add(list([1], []))).toBe(3);
  });

  it("V140, V143: puts two buffers or more into an indirect table, one not, too many not", () => {
    const { memory, areas, queue } = driverSide(8, { indirect: 3 });
    const two = queue.add(list([4], [6]));
    expect(chainText(memory, areas.descriptor, two)).toEqual(["110000+32 flags 4"]);
    expect(chainText(memory, TABLES, 0)).toEqual(["120000+4 flags 1", "120100+6 flags 2"]);
    const one = queue.add(list([], [6]));
    expect(chainText(memory, areas.descriptor, one)).toEqual(["120000+6 flags 2"]);
    const four = queue.add(list([1, 2], [3, 4]));
    expect(chainText(memory, areas.descriptor, four)).toHaveLength(4);
    expect(queue.freeCount).toBe(2);
    const three = queue.add(list([1], [3, 4]));
    expect(chainText(memory, TABLES + 48 * three, 0)).toHaveLength(3);
  });

  it("V136: makes no chain longer than the queue, indirect or not", () => {
    const { queue } = driverSide(2, { indirect: 4 });
    expect(queue.usesIndirect(2)).toBe(true);
    expect(queue.usesIndirect(3)).toBe(false);
    expect(queue.add(list([1, 1], [1]))).toBe(ADD_FULL);
  });

  it("gives ADD_FULL, and changes nothing, when descriptors run out", () => {
    const { memory, areas, queue } = driverSide(4);
    expect(queue.add(list([1], [1]))).toBe(0);
    expect(queue.add(list([1, 1], [1]))).toBe(ADD_FULL);
    expect(memory.readU16(areas.driver + 2)).toBe(1);
    expect(queue.add(list([1], [1]))).toBe(2);
    expect(queue.add(list([1], []))).toBe(ADD_FULL);
    expect(queue.freeCount).toBe(0);
  });

  it("an address above 2^32 keeps both halves", () => {
    const { memory, areas, queue } = driverSide(4);
    const segments = new SegmentList();
    segments.addReadable(2 ** 40 + 0x8000_0010, 0xffff_ffff);
    queue.add(segments);
    const halves = { low: 0, high: 0 };
    memory.readU64(areas.descriptor, halves);
    expect(halves).toEqual({ low: 0x8000_0010, high: 0x100 });
    expect(memory.readU32(areas.descriptor + 8)).toBe(0xffff_ffff);
  });

  it("gives ADD_BROKEN while the ring or a table is gone", () => {
    const { memory, queue } = driverSide(4, { indirect: 2 });
    memory.removeRegion(START);
    expect(queue.add(list([1], [1]))).toBe(ADD_BROKEN);
    expect(queue.needsKick()).toBe(false);
    expect(queue.getUsed()).toBe(USED_NONE);
    expect(queue.hasUsed()).toBe(false);
  });
});

describe("needsKick", () => {
  it("without EVENT_IDX follows the device's flag alone", () => {
    const { memory, areas, queue } = driverSide(8);
    expect(queue.needsKick()).toBe(true);
    memory.writeU16(areas.device, 1);
    queue.add(list([1], []));
    expect(queue.needsKick()).toBe(false);
    memory.writeU16(areas.device, 0);
    expect(queue.needsKick()).toBe(true);
  });

  it("with EVENT_IDX follows avail_event over a batch, once, and ignores the flag", () => {
    const { memory, areas, queue } = driverSide(8, { event: true });
    const setEvent = (position: number): void => {
      memory.writeU16(areas.device + 4 + 8 * 8, position);
    };
    memory.writeU16(areas.device, 1);
    expect(queue.needsKick()).toBe(false);
    setEvent(1);
    queue.add(list([1], []));
    expect(queue.needsKick()).toBe(false);
    queue.add(list([1], []));
    queue.add(list([1], []));
    expect(queue.needsKick()).toBe(true);
    expect(queue.needsKick()).toBe(false);
    queue.add(list([1], []));
    expect(queue.needsKick()).toBe(false);
  });
});

describe("V153: a queue without callbacks", () => {
  it("sets NO_INTERRUPT without EVENT_IDX, and leaves used_event at 0 with it", () => {
    const plain = driverSide(4);
    expect(plain.memory.readU16(plain.areas.driver)).toBe(1);
    const event = driverSide(4, { event: true });
    event.queue.add(list([1], []));
    event.use(0, 0);
    expect(event.queue.getUsed()).toBe(0);
    expect(event.memory.readU16(event.areas.driver)).toBe(0);
    expect(event.memory.readU16(event.areas.driver + 4 + 2 * 4)).toBe(0);
  });

  it("with callbacks asks for an interrupt after the next entry", () => {
    const { memory, areas, queue, use } = driverSide(4, { event: true, callbacks: true });
    queue.add(list([], [4]));
    use(0, 4);
    queue.getUsed();
    expect(memory.readU16(areas.driver + 4 + 2 * 4)).toBe(1);
    expect(memory.readU16(areas.driver)).toBe(0);
  });
});

describe("V196: a hostile device", () => {
  const broken = (use: (side: Side) => void, reason: string): void => {
    const side = driverSide(4);
    side.queue.add(list([1], [1]));
    use(side);
    expect(side.queue.getUsed()).toBe(USED_BROKEN);
    expect(side.queue.fault?.reason).toBe(reason);
    expect(side.queue.getUsed()).toBe(USED_BROKEN);
    expect(side.queue.add(list([1], []))).toBe(ADD_BROKEN);
    expect(side.queue.needsKick()).toBe(false);
    expect(side.queue.hasUsed()).toBe(false);
  };

  it("an id at or above N breaks the queue", () => {
    broken((side) => side.use(4, 0), "used-id");
    broken((side) => side.use(0xffff_ffff, 0), "used-id");
  });

  it("an id that is free, or in the middle of a chain, breaks the queue", () => {
    broken((side) => side.use(3, 0), "used-id");
    broken((side) => side.use(1, 0), "used-id");
  });

  it("an id given back twice breaks the queue", () => {
    broken((side) => {
      side.use(0, 1);
      side.use(0, 1);
      expect(side.queue.getUsed()).toBe(0);
    }, "used-id");
  });

  it("a used index that jumps breaks the queue", () => {
    for (const index of [5, 0xffff])
      broken((side) => side.memory.writeU16(side.areas.device + 2, index), "used-index");
  });

  it("any used length is passed on as claimed, for the caller to judge", () => {
    const { queue, use } = driverSide(4);
    for (const length of [0, 3, 0xffff_ffff]) {
      const head = queue.add(list([], [4]));
      use(head, length);
      expect(queue.getUsed()).toBe(head);
      expect(queue.usedLength).toBe(length);
    }
  });

  it("with random bytes in the device area neither throws nor loses a descriptor", () => {
    const random = new Random(196);
    let brokenCount = 0;
    for (let life = 0; life < 300; life += 1) {
      const { memory, areas, queue } = driverSide(8, { indirect: 2, event: life % 2 === 0 });
      for (let step = 0; step < 20; step += 1) {
        if (random.chance(1, 2)) queue.add(list([1], [1]));
        if (random.chance(1, 3))
          memory.writeU16(areas.device + 2, random.below(step < 10 ? 3 : 65_536));
        memory.writeU32(areas.device + 4 + 4 * random.below(16), random.below(12));
        queue.needsKick();
        for (let taken = 0; taken < 8 && queue.getUsed() >= 0; taken += 1) {
          expect(queue.freeCount).toBeLessThanOrEqual(8);
        }
      }
      if (queue.fault !== null) brokenCount += 1;
      expect(queue.freeCount + queue.outstandingDescriptors).toBe(8);
    }
    expect(brokenCount).toBeGreaterThan(200);
  });
});

it("V147: positions wrap from 65535 to 0 with N = 1, 2 and 32768", () => {
  for (const size of [1, 2, 32_768]) {
    const memory = new GuestMemory();
    memory.addRegion({ start: START, bytes: 0x20_0000 });
    const areas = layOutAreas(START, size);
    const options = { areas, eventIndex: true, indirect: null, callbacks: false };
    const queue = new DriverQueue(memory, options);
    const view = memory.window(areas.device, 8)!;
    const at = memory.at;
    const segments = list([], [4]);
    for (let step = 0; step < 65_540; step += 1) {
      const head = queue.add(segments);
      memory.writeU32(areas.device + 4 + 8 * (step % size), head);
      view.u16[at / 2 + 1] = step + 1;
      if (queue.getUsed() !== head) throw new Error(`step ${step}`);
    }
    expect(queue.position).toBe(4);
    expect(queue.freeCount).toBe(size);
  }
});

it("V131: a placement that cannot work is said before the queue is made", () => {
  const memory = new GuestMemory();
  memory.addRegion({ start: START, bytes: 0x1_0000 });
  const areas = layOutAreas(START, 8);
  const base = { areas, eventIndex: false, indirect: null, callbacks: false };
  const fault = (change: object): string | null => driverQueueFault(memory, { ...base, ...change });
  expect(fault({})).toBe(null);
  expect(fault({ areas: { ...areas, size: 7 } })).toBe("size");
  expect(fault({ indirect: { start: START + 8, entries: 2 } })).toBe("misaligned");
  expect(fault({ indirect: { start: START + 0xff80, entries: 2 } })).toBe(
    "indirect-outside-memory",
  );
  expect(fault({ indirect: { start: START + 0x1000, entries: 2 ** 30 } })).toBe(
    "indirect-outside-memory",
  );
  expect(() => new DriverQueue(memory, { ...base, areas: { ...areas, driver: 3 } })).toThrow();
});
