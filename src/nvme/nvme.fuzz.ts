/**
 * Fuzzes the controller as a hostile guest would: wild registers, doorbells, queue entries, lists
 * and memory that comes and goes. Nothing throws, no byte outside guest memory or the disk is
 * touched, every turn of work is bounded, and a fresh driver finds a working controller afterwards.
 * The last tests show that the fuzzer would notice.
 */
import { expect, it } from "vitest";
import type { BlockStore, Done } from "../block/block-store.ts";
import type { DeviceMemory, Segment, SegmentCollector } from "../memory/device-memory.ts";
import { GuestMemory } from "../memory/guest-memory.ts";
import { newView, viewOf } from "../memory/memory-view.ts";
import { Random } from "../random.ts";
import { NvmeFunction } from "./function.ts";
import { NvmeHost, PlainDma } from "./host.suite.ts";

const GUARD = 0x2000;
const MEMORY_BYTES = 0x10_0000;
const STORE_BYTES = 0x2_0000;
const GUARD_BYTE = 0xa5;
const TURNS = 300;

/** A disk that notes accesses beyond its end, and how much it is asked in a turn. */
class WatchedStore implements BlockStore {
  readonly bytes: number;
  readonly blockBytes = 512;
  readonly isReadOnly = false;
  readonly id = "fuzz";
  wrong: string | null = null;
  moved = 0;
  calls = 0;
  /** Calls that moved data, ever. */
  transfers = 0;
  readonly #random: Random;
  #waiting: Done[] = [];

  constructor(random: Random, bytes = STORE_BYTES) {
    this.bytes = bytes;
    this.#random = random;
  }

  read(at: number, segments: readonly Segment[], done: Done): void {
    for (const { view, at: start, bytes } of segments) view.u8.fill(at >>> 9, start, start + bytes);
    this.#note(
      at,
      segments.reduce((sum, { bytes }) => sum + bytes, 0),
    );
    done(0);
  }

  write(at: number, segments: readonly Segment[], done: Done): void {
    this.#note(
      at,
      segments.reduce((sum, { bytes }) => sum + bytes, 0),
    );
    done(this.#random.chance(1, 50) ? 5 : 0);
  }

  flush(done: Done): void {
    this.#note(0, 0);
    if (this.#random.chance(1, 2)) done(0);
    else this.#waiting.push(done);
  }

  discard(at: number, bytes: number, done: Done): void {
    this.#note(at, bytes);
    if (this.#random.chance(1, 2)) done(0);
    else this.#waiting.push(done);
  }

  writeZeroes(at: number, bytes: number, _mayUnmap: boolean, done: Done): void {
    this.discard(at, bytes, done);
  }

  finish(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const done of waiting) done(0);
  }

  #note(at: number, bytes: number): void {
    this.calls += 1;
    this.moved += bytes;
    if (bytes > 0) this.transfers += 1;
    if (at < 0 || at % 512 !== 0 || bytes % 512 !== 0 || at + bytes > STORE_BYTES)
      this.wrong = `the disk is asked for ${bytes} bytes at ${at}`;
  }
}

interface Bugs {
  readonly wrap?: (memory: DeviceMemory, buffer: ArrayBuffer) => DeviceMemory;
  readonly storeBytes?: number;
}

class Life {
  readonly random: Random;
  readonly buffer = new ArrayBuffer(GUARD + MEMORY_BYTES + GUARD);
  readonly bytes = new Uint8Array(this.buffer);
  readonly memory = new GuestMemory();
  readonly store: WatchedStore;
  readonly device: NvmeFunction;
  host: NvmeHost;
  readonly #scratch = newView(8);

  constructor(seed: number, { wrap = (memory) => memory, storeBytes = STORE_BYTES }: Bugs) {
    this.random = new Random(seed);
    this.bytes.fill(GUARD_BYTE);
    this.bytes.fill(0, GUARD, GUARD + MEMORY_BYTES);
    this.store = new WatchedStore(this.random, storeBytes);
    this.addMemory();
    this.device = new NvmeFunction({
      memory: wrap(this.memory, this.buffer),
      store: this.store,
      queues: 3,
      interrupts: { raise: () => {} },
    });
    this.host = new NvmeHost(this.device, new PlainDma(this.memory, 0x1_0000));
    this.host.start(2, 16);
  }

  addMemory(): void {
    const backing = { buffer: this.buffer, byteOffset: GUARD };
    this.memory.addRegion({ start: 0, bytes: MEMORY_BYTES, backing });
  }

  address(): number {
    const { random } = this;
    if (random.chance(1, 20)) return random.bits32();
    const page = random.below(MEMORY_BYTES / 4096 + 2) * 4096;
    return random.chance(1, 2) ? page : page + random.below(1024) * 4;
  }

  /** A queue entry, mostly sensible, anywhere in a queue's ring. */
  entry(at: number, isAdmin: boolean): void {
    const { random } = this;
    const words = Array.from({ length: 16 }, () => (random.chance(1, 30) ? random.bits32() : 0));
    const flags = random.chance(1, 3) ? 0x4000 : 0;
    words[0] =
      random.below(random.chance(1, 9) ? 256 : 14) | flags | (random.bits32() & 0xffff_0000);
    // Deletions of queues would soon leave none.
    if (isAdmin && random.chance(19, 20)) words[0] |= 6;
    words[1] = random.chance(1, 9) ? random.bits32() : 1;
    words[6] = this.address();
    words[8] = random.chance(1, 2) ? this.address() : random.below(2 ** 14);
    if (flags !== 0) words[9] = random.below(5) << 28;
    words[10] =
      isAdmin && random.chance(1, 2)
        ? random.below(8) | (random.below(64) << 16)
        : random.below(256);
    words[11] = random.chance(4, 5) ? 0 : random.below(4) | (random.below(4) << 16);
    words[12] = random.below(random.chance(1, 8) ? 2 ** 16 : 16);
    const bytes = new Uint8Array(Uint32Array.from(words).buffer);
    if (at + 64 <= MEMORY_BYTES) this.bytes.set(bytes, GUARD + at);
  }

  write(region: number, offset: number, value: number, count: number): void {
    this.#scratch.u32[0] = value;
    this.#scratch.u32[1] = this.random.bits32();
    this.device.write(region, offset, this.#scratch, 0, count);
  }

  /** What a driver does that gives up on its controller. */
  restart(): void {
    const dma = new PlainDma(this.memory, 0x1_0000);
    this.store.finish();
    this.device.reset();
    this.host = new NvmeHost(this.device, dma);
    this.host.start(2, 16);
  }

  /** One thing that a guest, or its monitor, does. */
  step(): void {
    const { random, host } = this;
    if (random.chance(1, host.readRegister(0x1c) === 1 ? 100 : 4)) {
      this.restart();
      return;
    }
    const queue = random.chance(1, 3) ? host.admin : host.queues[random.below(2)]!;
    switch (random.below(random.chance(1, 6) ? 9 : 5)) {
      case 0:
      case 1: {
        for (let count = 1 + random.below(3); count > 0; count -= 1) {
          this.entry(queue.submission.address + queue.tail * 64, queue.id === 0);
          queue.tail = (queue.tail + 1) % queue.entries;
        }
        this.write(0, 0x1000 + 8 * queue.id, queue.tail, 4);
        return;
      }
      case 2:
      case 3:
        if (random.chance(1, 9)) this.write(0, 0x1004 + 8 * queue.id, random.below(16), 4);
        else host.poll(queue, queue.entries);
        return;
      case 4: {
        const at = this.address();
        const words = [this.address(), 0, this.address(), 0];
        if (at + 16 < MEMORY_BYTES)
          this.bytes.set(new Uint8Array(Uint32Array.from(words).buffer), GUARD + (at & ~15));
        return;
      }
      case 5:
        this.write(0, random.below(0x40), random.bits32(), [1, 2, 4, 8][random.below(4)]!);
        return;
      case 6:
        this.write(0, 0x1000 + random.below(0xff0), random.bits32(), 4);
        return;
      case 7:
        this.memory.removeRegion(0);
        this.device.work();
        this.addMemory();
        return;
      default:
        this.store.finish();
        if (random.chance(1, 8))
          this.device.restore(JSON.parse(JSON.stringify(this.device.save())));
    }
  }

  /** Works, and says what was wrong with it. */
  work(): string | null {
    this.store.moved = 0;
    this.store.calls = 0;
    this.device.work();
    if (this.store.wrong !== null) return this.store.wrong;
    // 64 commands, of which the last may be one of 1 MiB, and 64 operations in pieces.
    if (this.store.calls > 64 * 66) return `${this.store.calls} calls in a turn`;
    if (this.store.moved > 2 ** 31) return `${this.store.moved} bytes in a turn`;
    for (const from of [0, GUARD + MEMORY_BYTES])
      if (this.bytes.subarray(from, from + GUARD).some((byte) => byte !== GUARD_BYTE))
        return "bytes beside guest memory were written";
    return null;
  }
}

/** One life. @returns what is wrong, or null. @param tally - counts transfers */
function fuzz(seed: number, bugs: Bugs = {}, tally = { transfers: 0 }): string | null {
  const life = new Life(seed, bugs);
  for (let turn = 0; turn < TURNS; turn += 1) {
    life.step();
    const wrong = turn % 2 === 0 ? life.work() : null;
    if (wrong !== null) return `turn ${turn}: ${wrong}`;
  }
  tally.transfers += life.store.transfers;
  life.restart();
  return null;
}

it("a controller outlives 60 hostile guests", () => {
  const tally = { transfers: 0 };
  for (let seed = 1; seed <= 60; seed += 1)
    expect(fuzz(seed, {}, tally), `seed ${seed}`).toBe(null);
  // A fuzzer whose commands all fail shows little.
  expect(tally.transfers).toBeGreaterThan(60 * 5);
});

/** Memory that does not look at where it ends. */
function sloppy(memory: DeviceMemory, buffer: ArrayBuffer): DeviceMemory {
  const all = viewOf(buffer, 0, buffer.byteLength);
  return new Proxy(memory, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (key === "collect")
        return (low: number, high: number, bytes: number, _: boolean, into: SegmentCollector) => {
          if (high !== 0 || low + bytes > MEMORY_BYTES + GUARD) return false;
          into.add(all, GUARD + low, bytes);
          return true;
        };
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
}

it("a controller that writes past a piece of memory, or past the disk's end, is found", () => {
  const found = { memory: 0, disk: 0 };
  for (let seed = 1; seed <= 40; seed += 1) {
    const attempt = (bugs: Bugs): boolean => {
      try {
        return fuzz(seed, bugs) !== null;
      } catch {
        return true;
      }
    };
    if (attempt({ wrap: sloppy })) found.memory += 1;
    if (attempt({ storeBytes: 2 * STORE_BYTES })) found.disk += 1;
  }
  expect(found.memory).toBeGreaterThan(0);
  expect(found.disk).toBeGreaterThan(0);
});
