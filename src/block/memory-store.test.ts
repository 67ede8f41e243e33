/** A disk in memory against a flat array. */
import { expect, it } from "vitest";
import { newView } from "../memory/memory-view.ts";
import { Random } from "../random.ts";
import { MemoryStore } from "./memory-store.ts";

const BYTES = 2 ** 20;

it("reads, writes, discards and clears as a flat array does", () => {
  const store = new MemoryStore({ bytes: BYTES });
  const flat = new Uint8Array(BYTES);
  const random = new Random(3);
  const view = newView(0x6_0000);
  for (let step = 0; step < 400; step += 1) {
    const sectors = 1 + random.below(600);
    const at = 512 * random.below(BYTES / 512 - sectors + 1);
    const bytes = sectors * 512;
    const split = random.below(bytes + 1);
    const segments = [
      { view, at: 16, bytes: split },
      { view, at: 16 + split, bytes: bytes - split },
    ];
    const results: number[] = [];
    const done = (errno: number): number => results.push(errno);
    const kind = random.below(4);
    if (kind < 2) {
      for (let index = 0; index < bytes; index += 1) view.u8[16 + index] = step + index * 7;
      store.write(at, segments, done);
      flat.set(view.u8.subarray(16, 16 + bytes), at);
    } else if (kind === 2) {
      if (random.chance(1, 2)) store.discard(at, bytes, done);
      else store.writeZeroes(at, bytes, true, done);
      flat.fill(0, at, at + bytes);
    } else {
      view.u8.fill(0xee);
      store.read(at, segments, done);
      const got = view.u8.subarray(16, 16 + bytes);
      expect(got.findIndex((byte, index) => byte !== flat[at + index])).toBe(-1);
      expect(view.u8[16 + bytes]).toBe(0xee);
    }
    expect(results).toEqual([0]);
  }
});

it("occupies what was written, gives it back, and refuses more than it may have", () => {
  const store = new MemoryStore({ bytes: 2 ** 40, occupiedMax: 2 ** 19 });
  const segments = [{ view: newView(512), at: 0, bytes: 512 }];
  const results: number[] = [];
  const done = (errno: number): number => results.push(errno);
  for (const at of [0, 2 ** 39, 2 ** 30]) store.write(at, segments, done);
  expect(results).toEqual([0, 0, 28]);
  expect(store.occupied).toBe(2 ** 19);
  store.discard(2 ** 39, 2 ** 18, done);
  store.write(2 ** 30, segments, done);
  store.flush(done);
  expect(results).toEqual([0, 0, 28, 0, 0, 0]);
  expect(store.flushes).toBe(1);
});
