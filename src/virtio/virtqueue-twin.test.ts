/**
 * Both sides of the virtqueue under random use, against a model that keeps plain lists; with the
 * fast device, and with the plain one, on the far side.
 */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView } from "../memory/memory-view.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { ADD_FULL, DriverQueue, USED_NONE } from "./virtqueue-driver.ts";
import { fastDevice, fuzzOnce } from "./virtqueue-fuzz.suite.ts";
import { layOutAreas } from "./virtqueue-layout.ts";
import { NaiveDevice } from "./virtqueue-naive.suite.ts";
import { Chain, SegmentList } from "./virtqueue-segments.ts";

const START = 0x1000;
const END = 0x3_0000;
const TABLES = 0x8000;
const BUFFERS = 0x1_0000;

const operation = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant("add"),
      readable: segmentSizes(),
      writable: segmentSizes(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("pop") }) },
  {
    weight: 4,
    arbitrary: fc.record({ kind: fc.constant("complete"), pick: fc.nat(100), length: fc.nat(40) }),
  },
  { weight: 4, arbitrary: fc.record({ kind: fc.constant("getUsed") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("kick") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("arm") }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("notify") }) },
);

function segmentSizes() {
  return fc.array(fc.integer({ min: 0, max: 20 }), { maxLength: 3 });
}

type Operation = {
  kind: string;
  readable?: number[];
  writable?: number[];
  pick?: number;
  length?: number;
};

interface Request {
  readonly head: number;
  readonly content: readonly number[];
  readonly writable: readonly (readonly [address: number, length: number])[];
  readonly descriptors: number;
}

/** Positions passed since a side was last asked, one by one. */
class Watch {
  position = 0;
  #since: number[] = [];

  pass(): void {
    this.#since.push(this.position);
    this.position = (this.position + 1) & 0xffff;
  }

  take(): number[] {
    const since = this.#since;
    this.#since = [];
    return since;
  }
}

/** As expect, but fast enough for millions of comparisons. */
function same(actual: unknown, expected: unknown): void {
  if (actual === expected) return;
  const isList = Array.isArray(actual) && Array.isArray(expected);
  if (isList && actual.length === expected.length && actual.every((it, at) => it === expected[at]))
    return;
  expect(actual).toEqual(expected);
}

function run(
  operations: readonly Operation[],
  setup: { size: number; indirect: boolean; event: boolean; callbacks: boolean },
): void {
  const memory = new GuestMemory();
  memory.addRegion({ start: START, bytes: END - START });
  const areas = layOutAreas(START, setup.size);
  const features = { indirect: setup.indirect, eventIndex: setup.event };
  const driver = new DriverQueue(memory, {
    areas,
    eventIndex: setup.event,
    indirect: setup.indirect ? { start: TABLES, entries: 4 } : null,
    callbacks: setup.callbacks,
  });
  const device = new DeviceQueue(memory, 256);
  same(device.enable(areas, features), null);
  device.isLive = true;

  const available: Request[] = [];
  const held: { chain: Chain; request: Request }[] = [];
  const used: { request: Request; reply: number[] }[] = [];
  const added = new Watch();
  const completed = new Watch();
  let outstanding = 0;
  let serial = 0;
  let buffer = BUFFERS;

  const add = (readable: readonly number[], writable: readonly number[]): void => {
    if (readable.length + writable.length === 0) return;
    const list = new SegmentList();
    const content: number[] = [];
    const places: [number, number][] = [];
    for (const length of readable) {
      list.addReadable(buffer, length);
      for (let at = 0; at < length; at += 1) {
        serial = (serial + 37) & 0xff;
        content.push(serial);
        memory.writeU8(buffer + at, serial);
      }
      buffer += 32;
    }
    for (const length of writable) {
      list.addWritable(buffer, length);
      places.push([buffer, length]);
      buffer += 32;
    }
    if (buffer > END - 0x200) buffer = BUFFERS;
    const count = readable.length + writable.length;
    const descriptors = setup.indirect && count > 1 && count <= 4 ? 1 : count;
    const head = driver.add(list);
    if (outstanding + descriptors > setup.size) {
      same(head, ADD_FULL);
      return;
    }
    same(head >= 0, true);
    same(
      available.some((other) => other.head === head),
      false,
    );
    outstanding += descriptors;
    available.push({ head, content, writable: places, descriptors });
    added.pass();
  };

  const pop = (): void => {
    const chain = new Chain();
    const popped = device.pop(chain);
    const request = available.shift();
    // A table of more entries than the queue has is refused (V141); only tiny queues come to that.
    if (request === undefined) {
      same(popped, Pop.EMPTY);
      return;
    }
    same(popped, Pop.CHAIN);
    same(chain.head, request.head);
    const target = newView(128);
    const count = device.gather(chain, target);
    same([...target.u8.subarray(0, count)], request.content);
    held.push({ chain, request });
  };

  const complete = (pick: number, wanted: number): void => {
    if (held.length === 0) return;
    const [{ chain, request }] = held.splice(pick % held.length, 1) as [(typeof held)[number]];
    const length = Math.min(wanted, chain.writableBytes);
    const reply = Array.from({ length }, (_, index) => (index * 11 + pick) & 0xff);
    const source = newView(64);
    source.u8.set(reply);
    same(device.reply(chain, source, length), true);
    used.push({ request, reply });
    completed.pass();
  };

  const getUsed = (): void => {
    const head = driver.getUsed();
    const next = used.shift();
    if (next === undefined) {
      same(head, USED_NONE);
      return;
    }
    same(head, next.request.head);
    same(driver.usedLength, next.reply.length);
    const written = next.request.writable.flatMap(([address, length]) =>
      Array.from({ length }, (_, at) => memory.readU8(address + at)),
    );
    same(written.slice(0, next.reply.length), next.reply);
    outstanding -= next.request.descriptors;
  };

  for (const { kind, readable = [], writable = [], pick = 0, length = 0 } of operations) {
    if (kind === "add") add(readable, writable);
    else if (kind === "pop") pop();
    else if (kind === "complete") complete(pick, length);
    else if (kind === "getUsed") getUsed();
    else if (kind === "arm") same(device.armNotifications(), available.length > 0);
    else if (kind === "kick") {
      const event = memory.readU16(areas.device + 4 + 8 * setup.size);
      const passed = added.take();
      same(driver.needsKick(), setup.event ? passed.includes(event) : true);
    } else {
      const event = memory.readU16(areas.driver + 4 + 2 * setup.size);
      const passed = completed.take();
      const byFlag = setup.callbacks && passed.length > 0;
      same(device.shouldNotify(), setup.event ? passed.includes(event) : byFlag);
    }
    same(driver.freeCount, setup.size - outstanding);
    same(device.inFlight, held.length);
  }
  same(driver.fault, null);
  same(device.fault, null);
}

describe("random use of both sides gives what plain lists give", () => {
  it("for queues of 8 to 64, direct and indirect, with and without EVENT_IDX", () => {
    fc.assert(
      fc.property(
        fc.array(operation, { minLength: 50, maxLength: 300 }),
        fc.record({
          size: fc.constantFrom(8, 16, 64),
          indirect: fc.boolean(),
          event: fc.boolean(),
          callbacks: fc.boolean(),
        }),
        (operations, setup) => run(operations as Operation[], setup),
      ),
      { seed: 147, numRuns: 150 },
    );
  });

  it("over more than 65536 requests, so that every index wraps", () => {
    for (const event of [false, true]) {
      const cycle: Operation[] = [
        { kind: "add", readable: [3], writable: [4] },
        { kind: "add", readable: [], writable: [2] },
        { kind: "kick" },
        { kind: "pop" },
        { kind: "pop" },
        { kind: "arm" },
        { kind: "complete", pick: 1, length: 4 },
        { kind: "complete", pick: 0, length: 1 },
        { kind: "notify" },
        { kind: "getUsed" },
        { kind: "getUsed" },
      ];
      const operations = function* (): Generator<Operation> {
        for (let step = 0; step < 33_000; step += 1) yield* cycle;
      };
      run([...operations()], { size: 4, indirect: true, event, callbacks: true });
    }
  });
});

it("what the driver adds, a device written from the specification alone reads and answers", () => {
  const flat = new Uint8Array(END);
  const memory = new GuestMemory();
  const backing = { buffer: flat.buffer, byteOffset: START };
  memory.addRegion({ start: START, bytes: END - START, backing });
  for (const indirect of [false, true]) {
    const areas = layOutAreas(START, 8);
    const features = { indirect, eventIndex: true };
    const tables = indirect ? { start: TABLES, entries: 4 } : null;
    const options = { areas, eventIndex: true, indirect: tables, callbacks: true };
    const driver = new DriverQueue(memory, options);
    const device = new NaiveDevice(flat, [[START, END]], areas, features);
    for (let round = 0; round < 20; round += 1) {
      const list = new SegmentList();
      list.addReadable(BUFFERS, 3);
      list.addReadable(BUFFERS + 0x101, 2);
      list.addWritable(BUFFERS + 0x200, 2);
      list.addWritable(BUFFERS + 0x302, 3);
      flat.set([round, 1, 2], BUFFERS);
      flat.set([3, 4], BUFFERS + 0x101);
      const head = driver.add(list);
      const popped = device.pop(64);
      expect(popped).toEqual({ head, readable: [round, 1, 2, 3, 4], writableBytes: 5 });
      device.reply(head, [9, 8, 7]);
      expect(driver.getUsed()).toBe(head);
      expect(driver.usedLength).toBe(3);
      expect([...flat.subarray(BUFFERS + 0x200, BUFFERS + 0x202)]).toEqual([9, 8]);
      expect(flat[BUFFERS + 0x302]).toBe(7);
    }
  }
});

it("a few hostile lives give what the plain device gives; `npm run fuzz` runs thousands", () => {
  for (let seed = 100_000; seed < 100_300; seed += 1) expect(fuzzOnce(fastDevice, seed)).toBe(null);
});
