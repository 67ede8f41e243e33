/**
 * The fuzzer of the device's queue: puts plausible and wild bytes into rings, tables and buffers,
 * changes them while the device works, and compares every outcome and all of memory with the plain
 * device. Returns what differed first.
 */
import { GuestMemory } from "../memory/guest-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { Random } from "../random.ts";
import { DeviceQueue, Pop } from "./virtqueue-device.ts";
import { layOutAreas, type QueueAreas, type QueueFeatures } from "./virtqueue-layout.ts";
import {
  NaiveDevice,
  type NaivePop,
  type PlantedBug,
  type Spans,
} from "./virtqueue-naive.suite.ts";
import { Chain } from "./virtqueue-segments.ts";

const FLAT_BYTES = 0x1_0000;
const READABLE_MAX = 512;
/** Rings lie in the first span; the second follows it directly; then there is a hole. */
const SPANS: Spans = [
  [0x1000, 0x5000],
  [0x5000, 0x7000],
  [0x9000, 0xa000],
];
const RINGS_AT = 0x1100;
/** Part of the memory that is strewn with descriptors, so that any table in it is plausible. */
const TABLES = [0x2000, 0x2800] as const;

/** A device side that can be fuzzed. */
export interface FuzzedDevice {
  /** All of the flat array, holes included. */
  readonly bytes: Uint8Array;
  pop(): NaivePop;
  reply(head: number, reply: readonly number[]): void;
  shouldNotify(): boolean;
  setSpans(spans: Spans): void;
  /** Work of the last pop: descriptors or memory accesses. */
  readonly work: number;
}

/** Where a device is to be put. */
export interface FuzzedPlace {
  readonly bytes: Uint8Array;
  readonly areas: QueueAreas;
  readonly features: QueueFeatures;
}

class CountingMemory extends GuestMemory {
  accesses = 0;

  override contains(address: number, length: number): boolean {
    this.accesses += 1;
    return super.contains(address, length);
  }

  override locateHalves(
    low: number,
    high: number,
    length: number,
    forWrite: boolean,
  ): MemoryView | null {
    this.accesses += 1;
    return super.locateHalves(low, high, length, forWrite);
  }
}

/** How often each outcome was reached: shows that the fuzzer gets everywhere. */
export type Tally = Map<string, number>;

/** The fast device over the flat array. */
export function fastDevice(
  { bytes, areas, features }: FuzzedPlace,
  tally: Tally = new Map(),
): FuzzedDevice {
  const count = (outcome: string): void => {
    tally.set(outcome, (tally.get(outcome) ?? 0) + 1);
  };
  const memory = new CountingMemory();
  const setSpans = (spans: Spans): void => {
    for (const { start } of memory.regions) memory.removeRegion(start);
    for (const [start, end] of spans) {
      const backing = { buffer: bytes.buffer, byteOffset: start };
      memory.addRegion({ start, bytes: end - start, backing });
    }
  };
  setSpans(SPANS);
  const queue = new DeviceQueue(memory, 32_768, (fault) => count(fault.reason));
  queue.enable(areas, features);
  queue.isLive = true;
  const chain = new Chain();
  const target = newView(READABLE_MAX);
  let work = 0;
  return {
    bytes,
    pop() {
      memory.accesses = 0;
      const popped = queue.pop(chain);
      work = memory.accesses;
      if (popped === Pop.EMPTY) return "empty";
      count(["empty", "chain", "paused", "broken"][popped]!);
      if (popped === Pop.PAUSED) return "paused";
      if (popped === Pop.BROKEN) return "broken";
      const gathered = queue.gather(chain, target);
      const readable = [...target.u8.subarray(0, gathered)];
      return { head: chain.head, readable, writableBytes: chain.writableBytes };
    },
    reply(_head, reply) {
      const source = newView(reply.length);
      source.u8.set(reply);
      queue.reply(chain, source, reply.length);
    },
    shouldNotify: () => queue.shouldNotify(),
    setSpans,
    get work() {
      return work;
    },
  };
}

/** The plain device, with bugs where wanted. */
export function plainDevice(place: FuzzedPlace, bugs: readonly PlantedBug[] = []): FuzzedDevice {
  const device = new NaiveDevice(place.bytes, SPANS, place.areas, place.features, bugs);
  return {
    bytes: place.bytes,
    pop: () => device.pop(READABLE_MAX),
    reply: (head, reply) => device.reply(head, reply),
    shouldNotify: () => device.shouldNotify(),
    setSpans(spans) {
      device.spans = spans;
    },
    get work() {
      return device.steps;
    },
  };
}

/**
 * Runs one fuzzed life of a queue.
 *
 * @returns the first difference to the plain device, null when there was none
 */
export function fuzzOnce(make: (place: FuzzedPlace) => FuzzedDevice, seed: number): string | null {
  const random = new Random(seed);
  const size = 2 ** random.below(5);
  const areas = layOutAreas(RINGS_AT, size);
  const features = { indirect: random.chance(3, 4), eventIndex: random.chance(1, 2) };
  const bytes = new Uint8Array(FLAT_BYTES);
  fillMemory(random, bytes, areas);
  const tested = make({ bytes: Uint8Array.from(bytes), areas, features });
  const plain = plainDevice({ bytes, areas, features });
  let offered = 0;
  for (let step = 0; step < 24; step += 1) {
    const poke = (): void => pokeBoth(random, tested.bytes, plain.bytes, areas);
    offered = offerMore(random, tested.bytes, plain.bytes, areas, offered);
    if (random.chance(1, 4)) poke();
    if (random.chance(1, 12)) {
      const spans = random.chance(1, 2) ? SPANS.slice(1) : SPANS;
      tested.setSpans(spans);
      plain.setSpans(spans);
    }
    const expected = plain.pop();
    const got = tested.pop();
    const where = `seed ${seed}, step ${step}`;
    if (JSON.stringify(got) !== JSON.stringify(expected))
      return `${where}: pop gave ${JSON.stringify(got)}, not ${JSON.stringify(expected)}`;
    if (tested.work > 8 * size + 16) return `${where}: a pop took ${tested.work} accesses`;
    if (typeof expected === "string") {
      if (expected === "broken") return null;
      if (expected === "paused") {
        tested.setSpans(SPANS);
        plain.setSpans(SPANS);
      }
    } else {
      if (random.chance(1, 3)) poke();
      const length = random.below(Math.min(expected.writableBytes, 64) + 1);
      const reply = Array.from({ length }, () => random.below(256));
      plain.reply(expected.head, reply);
      tested.reply(expected.head, reply);
      const at = firstDifference(plain.bytes, tested.bytes);
      if (at >= 0) return `${where}: memory differs at 0x${at.toString(16)}`;
    }
    if (random.chance(1, 2) && plain.shouldNotify() !== tested.shouldNotify())
      return `${where}: the driver was notified, or was not, against the rules`;
  }
  return null;
}

/** Index of the first byte that differs, −1 when none does. */
function firstDifference(one: Uint8Array, two: Uint8Array): number {
  const words = new Uint32Array(one.buffer);
  const others = new Uint32Array(two.buffer);
  for (let at = 0; at < words.length; at += 1) {
    if (words[at] === others[at]) continue;
    return 4 * at + [0, 1, 2, 3].findIndex((byte) => one[4 * at + byte] !== two[4 * at + byte]);
  }
  return -1;
}

function fillMemory(random: Random, bytes: Uint8Array, areas: QueueAreas): void {
  const isWild = random.chance(1, 8);
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = (at * 7 + (at >> 8)) & 0xff;
  for (let at = areas.descriptor; at < areas.descriptor + 16 * areas.size; at += 16)
    writeDescriptor(random, bytes, at, areas.size, isWild);
  for (let at = TABLES[0]; at < TABLES[1]; at += 16)
    writeDescriptor(random, bytes, at, areas.size, false);
  const view = new DataView(bytes.buffer);
  for (let slot = 0; slot < areas.size; slot += 1) {
    const head = random.chance(1, 40) ? random.below(65_536) : random.below(areas.size);
    view.setUint16(areas.driver + 4 + 2 * slot, head, true);
  }
  view.setUint16(areas.driver, random.below(2), true);
  view.setUint16(areas.driver + 2, 0, true);
  view.setUint16(areas.driver + 4 + 2 * areas.size, random.below(24), true);
  view.setUint32(areas.device, 0, true);
}

/** Writes a descriptor as a driver might, or as a hostile one might. */
function writeDescriptor(
  random: Random,
  bytes: Uint8Array,
  at: number,
  size: number,
  isWild: boolean,
): void {
  const view = new DataView(bytes.buffer);
  if (isWild) {
    for (let offset = 0; offset < 16; offset += 1) bytes[at + offset] = random.below(256);
    return;
  }
  const [start, end] = SPANS[random.below(SPANS.length)]!;
  const edge = random.chance(1, 8);
  let address = edge ? end - random.below(16) : start + random.below(end - start - 64);
  let length = random.chance(1, 12) ? 0 : random.below(edge ? 16 : 64);
  let flags = random.below(4);
  if (random.chance(1, 4)) {
    address = TABLES[0] + 16 * random.below(16);
    length = random.chance(1, 8) ? random.below(80) : 16 * (1 + random.below(size));
    flags = random.chance(1, 8) ? random.below(8) : 4 | (flags & 2);
  }
  view.setUint32(at, address, true);
  view.setUint32(at + 4, random.chance(1, 60) ? random.bits32() : 0, true);
  view.setUint32(at + 8, random.chance(1, 60) ? random.bits32() : length, true);
  view.setUint16(at + 12, random.chance(1, 60) ? random.below(65_536) : flags, true);
  view.setUint16(at + 14, random.chance(1, 30) ? random.below(65_536) : random.below(size), true);
}

/** Changes a few bytes of the driver's, the same in both memories. */
function pokeBoth(random: Random, one: Uint8Array, two: Uint8Array, areas: QueueAreas): void {
  for (let count = random.below(4); count > 0; count -= 1) {
    const at =
      random.below(2) === 0
        ? areas.descriptor + random.below(16 * areas.size)
        : TABLES[0] + random.below(TABLES[1] - TABLES[0]);
    const byte = random.below(256);
    one[at] = byte;
    two[at] = byte;
  }
}

/** Moves the driver's index on, by a possible amount or now and then by a wild one. */
function offerMore(
  random: Random,
  one: Uint8Array,
  two: Uint8Array,
  areas: QueueAreas,
  offered: number,
): number {
  const step = random.chance(1, 100) ? random.below(65_536) : random.below(2);
  const next = (offered + step) & 0xffff;
  for (const bytes of [one, two])
    new DataView(bytes.buffer).setUint16(areas.driver + 2, next, true);
  return next;
}
