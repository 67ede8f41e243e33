/**
 * A controller dies at any store to its journal, any access to guest memory, any call of the disk
 * and any keeping of state, and another one takes over: each command is completed exactly once, its
 * data is right, and nothing is done for a command after its completion was there to be seen.
 */
import { describe, expect, it } from "vitest";
import type { DeviceMemory } from "../memory/device-memory.ts";
import { NvmeFunction } from "./function.ts";
import { NvmeHost, PlainDma, plainMemory, TestStore, transfer } from "./host.suite.ts";
import { journalWords, type NvmeJournal } from "./journal.ts";

const QUEUES = 2;

/** The process died. */
class Crash extends Error {}

/** Counts steps and dies at one of them. */
class Fuse {
  left = Number.POSITIVE_INFINITY;
  steps = 0;

  step(): void {
    this.steps += 1;
    if (this.steps > this.left) throw new Crash();
  }
}

function fusedMemory(memory: DeviceMemory, fuse: Fuse): DeviceMemory {
  return new Proxy(memory, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== "function") return value;
      return (...parameters: unknown[]) => {
        fuse.step();
        return Reflect.apply(value, target, parameters);
      };
    },
  });
}

function fusedWords(words: Uint32Array, fuse: Fuse): Uint32Array {
  return new Proxy(words, {
    get: (target, key) => Reflect.get(target, key, target),
    set(target, key, value) {
      fuse.step();
      return Reflect.set(target, key, value, target);
    },
  });
}

/** The rig whose controller can die: memory, disk, journal and host outlive it. */
class MortalRig {
  readonly memory = plainMemory();
  readonly store = new TestStore(1 << 19);
  readonly words = new Uint32Array(journalWords(QUEUES));
  readonly host: NvmeHost;
  fuse = new Fuse();
  kept: string | null = null;
  deaths = 0;

  constructor() {
    for (const name of ["read", "write", "flush", "discard", "writeZeroes"] as const) {
      const plain = this.store[name].bind(this.store) as (...parameters: unknown[]) => void;
      const fused = (...parameters: unknown[]): void => {
        this.fuse.step();
        plain(...parameters);
      };
      Object.assign(this.store, { [name]: fused });
    }
    this.host = new NvmeHost(this.#build(), new PlainDma(this.memory));
    this.#protect();
  }

  #build(): NvmeFunction {
    const { fuse } = this;
    const journal: NvmeJournal = {
      words: fusedWords(this.words, fuse),
      keep: (state) => {
        const text = JSON.stringify(state);
        fuse.step();
        this.kept = text;
      },
    };
    return new NvmeFunction({
      memory: fusedMemory(this.memory, fuse),
      store: this.store,
      queues: QUEUES,
      interrupts: { raise: () => fuse.step() },
      journal,
    });
  }

  /** The host's calls reach whatever controller lives; a message that it died on is sent again. */
  #protect(): void {
    let device = this.host.device;
    const survive = <T>(call: (alive: typeof device) => T): T => {
      for (;;) {
        try {
          return call(device);
        } catch (error) {
          if (!(error instanceof Crash)) throw error;
          this.deaths += 1;
          this.fuse = new Fuse();
          // What the dead process had begun with the disk ends all the same.
          this.store.finish();
          device = this.#build();
          if (this.kept !== null) device.restore(JSON.parse(this.kept));
        }
      }
    };
    this.host.device = {
      get regions() {
        return device.regions;
      },
      get vectors() {
        return device.vectors;
      },
      get revision() {
        return device.revision;
      },
      read: (...parameters) => survive((alive) => alive.read(...parameters)),
      write: (...parameters) => survive((alive) => alive.write(...parameters)),
      work: () => survive((alive) => alive.work()),
      reset: () => survive((alive) => alive.reset()),
      save: () => survive((alive) => alive.save()),
      restore: (state) => survive((alive) => alive.restore(state)),
    };
  }
}

/** A life with everything in it. Throws when something is wrong. */
function live(rig: MortalRig): void {
  const { host, store } = rig;
  expect(host.start(QUEUES, 4)).toBe(1024);
  const buffers = [0, 1, 2].map(() => host.dma.allocate(4));
  const list = host.dma.allocate(1);
  const queue = host.queues[0]!;
  const expected = store.data.slice();
  // More than the queue has room for, so that it wraps and its phase turns.
  for (let round = 0; round < 6; round += 1) {
    const ids: number[] = [];
    const reads: [number, number][] = [];
    for (const [index, buffer] of buffers.entries()) {
      const block = 40 * index + 8 * round;
      if ((round + index) % 2 === 0) {
        const bytes = new Uint8Array(8192).fill(16 * round + index);
        buffer.write(0, bytes);
        expected.set(bytes, block * 512);
        ids.push(host.put(queue, transfer(1, block, 16, buffer, list)));
      } else {
        reads.push([index, block]);
        ids.push(host.put(queue, transfer(2, block, 16, buffer, list)));
      }
    }
    host.ring(queue);
    for (const id of ids) expect(host.await(queue, id).status).toBe(0);
    for (const [index, block] of reads) {
      const got = buffers[index]!.read(0, 8192);
      // Writes of the round do not overlap its reads.
      expect(Buffer.compare(got, expected.slice(block * 512, block * 512 + 8192))).toBe(0);
    }
    // The buffers are the host's again: whatever is in them must stay.
    for (const buffer of buffers) buffer.write(0, new Uint8Array(8192).fill(0xee));
  }
  store.isSlow = true;
  const second = host.queues[1]!;
  const range = host.dma.allocate(1);
  range.write(0, new Uint8Array(Uint32Array.of(0, 4, 1000, 0, 0, 2, 1010, 0).buffer));
  const slow = [
    host.put(second, { opcode: 0, namespace: 1 }),
    host.put(second, { opcode: 8, namespace: 1, words: [900, 0, 7] }),
    host.put(second, { opcode: 9, namespace: 1, prp1: range.address, words: [1, 4] }),
  ];
  host.ring(second);
  host.device.work();
  host.device.work();
  store.finish();
  store.isSlow = false;
  for (const id of slow) expect(host.await(second, id).status).toBe(0);
  expected.fill(0, 900 * 512, 908 * 512);
  expected.fill(0xdd, 1000 * 512, 1004 * 512);
  expected.fill(0xdd, 1010 * 512, 1012 * 512);
  const event = [...host.outstanding].find((key) => key < 65_536)!;
  host.writeRegister(0x1000 + 8 * 9, 1);
  expect(host.await(host.admin, event).result).toBe(0x0001_0000);
  for (const buffer of buffers)
    expect(buffer.read(0, 8192).every((byte) => byte === 0xee)).toBe(true);
  host.shutDown();
  expect(Buffer.compare(store.data, expected)).toBe(0);
  expect(host.strays).toEqual([]);
}

describe("a controller that dies", () => {
  const whole = new MortalRig();
  live(whole);
  const steps = whole.fuse.steps;

  it("makes enough steps for the sweep to mean something", () => {
    expect(steps).toBeGreaterThan(500);
    expect(whole.deaths).toBe(0);
  });

  it(`at any one of its ${steps} steps, is replaced without the host noticing`, () => {
    for (let left = 0; left < steps; left += 1) {
      const rig = new MortalRig();
      rig.fuse.left = left;
      try {
        live(rig);
      } catch (error) {
        throw new Error(`death after ${left} steps`, { cause: error });
      }
      expect(rig.deaths).toBe(1);
    }
  });
});
