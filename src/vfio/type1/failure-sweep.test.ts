import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DirtyFlag, UnmapFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { readDirty, switchDirtyTracking } from "./dirty.ts";
import { pinPages, registerDevice } from "./external-pins.ts";
import { World } from "./type1-world.suite.ts";
import { unmapDma, unmapRequest } from "./unmap.ts";

const BITMAP = 0x10_0000n;

/** What fails: at its n-th use, once. */
type Failing = (world: World, successes: number) => { readonly happened: () => boolean };

let allowed = 0;
let refused = 0;

const failing: Record<string, Failing> = {
  "a page-table allocation": (world, successes) => {
    world.pool.failAfter(successes, 1);
    return { happened: () => world.pool.injectedFailures > 0 };
  },
  "a pin": (world, successes) => {
    world.memory.pinsLeft = successes;
    return { happened: () => world.memory.failures > 0 };
  },
  "memory for bookkeeping": (_, successes) => {
    allowed = successes;
    refused = 0;
    return { happened: () => refused > 0 };
  },
};

/** Memory in pieces, with device memory in the middle; two mappings exist. */
function makeWorld(domains: number, isTraced = true): World {
  allowed = Number.POSITIVE_INFINITY;
  const allow = () => {
    allowed -= 1;
    if (allowed >= 0) return true;
    refused += 1;
    return false;
  };
  const world = new World({ domains, isTraced, type1: { allow } });
  for (let index = 0; index < 24; index += 1)
    world.memory.put(0x1000 + index, 0x8000 + 3 * index, 1);
  world.memory.put(0x1010, 0xf_0000, 4, { isReserved: true });
  world.memory.put(0x2000, 0xa_0200, 1024);
  world.map(0x10_0000, 0x100_0000, 0x1000);
  world.map(0x4000_0000, 0x200_0000, 0x20_0000);
  return world;
}

const calls: Record<string, (world: World) => number | string> = {
  "MAP of scattered pages and device memory": (world) =>
    world.map(0x7ff0_0000, 0x100_0000, 0x1_8000),
  "MAP over several tables": (world) => world.map(0x7ffe_0000, 0x200_0000, 0x40_0000),
  "MAP while dirty pages are tracked": (world) => {
    switchDirtyTracking(world.type1, DirtyFlag.START);
    return world.map(0x7ff0_0000, 0x100_0000, 0x1_8000);
  },
  "DIRTY_PAGES START": (world) => switchDirtyTracking(world.type1, DirtyFlag.START),
};

describe("type1 with a failure at every n-th step", () => {
  for (const [what, fail] of Object.entries(failing)) {
    for (const [name, call] of Object.entries(calls)) {
      it.each([
        [1, true],
        [1, false],
        [2, true],
      ])(
        `${what} fails in ${name}: ENOMEM, all as before (%i domains, traced %s)`,
        (domains, isTraced) => {
          let successes = 0;
          for (let isDone = false; !isDone; successes += 1) {
            const world = makeWorld(domains, isTraced);
            if (name.includes("tracked")) switchDirtyTracking(world.type1, DirtyFlag.START);
            const before = world.state();
            const injected = fail(world, successes);
            const errno = call(world);
            isDone = !injected.happened();
            if (isDone) expect(errno).toBe(Errno.OK);
            else {
              expect(errno).toBe(Errno.ENOMEM);
              expect(world.state()).toEqual(before);
            }
            expect(successes).toBeLessThan(200);
          }
        },
      );
    }
  }

  it.each(["a pin", "memory for bookkeeping"])(
    "%s fails in pin_pages: none stays pinned",
    (what) => {
      let successes = 0;
      for (let isDone = false; !isDone; successes += 1) {
        const world = makeWorld(0);
        registerDevice(world.type1, { dmaUnmap: () => {} });
        const group = world.addEmulated();
        const before = world.state();
        const injected = failing[what]!(world, successes);
        const errno = pinPages(world.type1, group, 0x4_0000, 8, 3, new Float64Array(8));
        isDone = !injected.happened();
        expect(errno).toBe(isDone ? Errno.OK : Errno.ENOMEM);
        if (!isDone) expect(world.state()).toEqual(before);
      }
      expect(successes).toBe(9);
    },
  );

  it("the user's bitmap ends half-way: EFAULT, and nothing is unmapped or forgotten", () => {
    for (let bytes = 0; bytes < 0x1000; bytes += 0x800) {
      const world = makeWorld(1);
      switchDirtyTracking(world.type1, DirtyFlag.START);
      const user = new UserBuffer(BITMAP, new Uint8Array(bytes));
      const bitmap = { pgsize: 4096n, size: 0x2_0000n, address: BITMAP };
      const before = world.state();
      expect(readDirty(world.type1, 0n, 0x8000_0000n, bitmap, user)).toBe(Errno.EFAULT);
      const request = unmapRequest(UnmapFlag.GET_DIRTY_BITMAP, 0n, 0x8000_0000n, bitmap);
      expect(unmapDma(world.type1, request, user)).toBe(Errno.EFAULT);
      expect(world.state()).toEqual(before);
    }
  });
});
