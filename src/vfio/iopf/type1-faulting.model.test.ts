/** I/O page faults of a container beside a plain model: a set of pages, and no tables. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { PROT_RW } from "../../iommu/prot.ts";
import { NO_PASID } from "../../iommu/tag-array.ts";
import { Outcome, Translation } from "../../iommu/translation-unit.ts";
import { detachGroup } from "../type1/detach.ts";
import { FaultingWorld } from "./faulting-world.suite.ts";

const VPN = 0x10_0000;
const PAGES = 1200;
const VADDR = 4;

const REACHES = ["forward", "aligned"] as const;
const LEAVES = ["4KiB", "2MiB"] as const;

const action = fc.record({
  do: fc.constantFrom(
    "dma",
    "dma",
    "dma",
    "discard",
    "munmap",
    "mmap",
    "mprotect",
    "migrate",
    "map",
    "map",
    "unmap",
    "vaddr",
    "attach",
    "detach",
  ),
  at: fc.nat(PAGES - 1),
  pages: fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 700 })),
  other: fc.nat(3),
});
type Action = typeof action extends fc.Arbitrary<infer T> ? T : never;

/** Where mappings may lie: two show the same memory, one lies askew. */
const SLOTS = [
  { iova: 0x4000, vpn: VPN, pages: PAGES },
  { iova: 0x8000, vpn: VPN, pages: PAGES },
  { iova: 0xc123, vpn: VPN + 100, pages: 300 },
  { iova: 0x1_0000, vpn: VPN + 600, pages: 600 },
];

/** Frames that were mapped at some time, by world: caches must not remember what is gone. */
const everMapped = new WeakMap<FaultingWorld, Set<number>>();

/** Asserts that every device reaches what is expected and nothing else, caches included. */
function checkReach(world: FaultingWorld, expected: ReadonlyMap<number, number>): void {
  const ever = everMapped.get(world) ?? new Set<number>();
  everMapped.set(world, ever);
  for (const iovaPfn of expected.keys()) ever.add(iovaPfn);
  const out = new Translation();
  const devices = world.devices.filter(({ faultParam }) => faultParam !== null);
  for (const { rid } of devices.slice(0, 2)) {
    const { unit } = world.units[rid % world.units.length]!;
    for (const iovaPfn of ever) {
      const outcome = unit.translateAts(rid, NO_PASID, iovaPfn, PROT_RW, out);
      const reached = outcome === Outcome.FAULT ? undefined : out.physPfn;
      if (reached !== expected.get(iovaPfn)) expect(reached).toBe(expected.get(iovaPfn));
    }
  }
}

/** Asserts what must hold between any two calls. */
function check(world: FaultingWorld): void {
  const expected = new Map<number, number>();
  for (const mapping of world.type1.mappings) {
    const state = world.faulting.stateOf(mapping)!;
    for (let page = state.mapped.next(0); page >= 0; page = state.mapped.next(page + 1)) {
      const pfn = world.memory.frameAt(mapping.vpn + page);
      // Whatever a device can reach is what the process has there now.
      expect(pfn).toBeGreaterThan(0);
      expected.set(mapping.iovaPfn + page, pfn);
    }
    expect(state.memory === null).toBe(state.mapped.count === 0);
  }
  const sorted = (pages: Map<number, number>) => [...pages].sort(([a], [b]) => a - b);
  const wanted = sorted(expected);
  for (let index = 0; index < world.type1.domains.length; index += 1) {
    expect(sorted(world.leaves(index))).toEqual(wanted);
  }
  checkReach(world, expected);
  expect(world.waiting).toBe(0);
  expect(world.devices.every(({ faultParam }) => (faultParam?.pending.length ?? 0) === 0)).toBe(
    true,
  );
  expect(world.process.lockedPages).toBe(0);
}

/** What the process's memory is, plainly. */
class PlainMemory {
  readonly writable = new Set<number>();
  readonly present = new Set<number>();

  set(vpn: number, pages: number, isPresent: boolean, isWritable: boolean): void {
    for (let page = vpn; page < vpn + pages; page += 1) {
      if (isPresent) this.present.add(page);
      else this.present.delete(page);
      if (isPresent && isWritable) this.writable.add(page);
      else this.writable.delete(page);
    }
  }
}

/** Does one action in world and model, and compares what a device could reach. */
function act(world: FaultingWorld, plain: PlainMemory, step: Action): void {
  const { at, other } = step;
  const pages = Math.min(step.pages, PAGES - at);
  const vpn = VPN + at;
  const slot = SLOTS[other]!;
  switch (step.do) {
    case "dma": {
      const device = world.devices.findIndex(({ faultParam }) => faultParam !== null);
      if (device < 0) return;
      const first = slot.iova + (at % slot.pages);
      const mapping = world.type1.mappings.find(first);
      let reachable = 0;
      for (let page = first; page < first + pages; page += 1) {
        const target = world.type1.mappings.find(page);
        if (target === null) continue;
        if (plain.writable.has(target.vpn + page - target.iovaPfn)) reachable += 1;
      }
      expect(world.dma(device, first, pages)).toEqual([reachable, pages - reachable]);
      expect(mapping).toBe(world.type1.mappings.find(first));
      return;
    }
    case "discard":
      world.memory.discard(vpn, pages);
      return;
    case "munmap":
      world.memory.munmap(vpn, pages);
      plain.set(vpn, pages, false, false);
      return;
    case "mmap":
      world.memory.mmap({ vpn, pages, backing: { kind: "anonymous", isHuge: other > 1 } });
      plain.set(vpn, pages, true, true);
      return;
    case "mprotect": {
      const isWritable = other > 1;
      world.memory.mprotect(vpn, pages, true, isWritable);
      // At a hole it stops with ENOMEM, and what came before has its new rights.
      let changed = 0;
      while (changed < pages && plain.present.has(vpn + changed)) changed += 1;
      plain.set(vpn, changed, true, isWritable);
      return;
    }
    case "migrate":
      world.memory.migrate(vpn, pages);
      return;
    case "map":
      world.map(slot.iova, slot.vpn, slot.pages);
      return;
    case "unmap":
      world.unmap(slot.iova, slot.pages);
      return;
    case "vaddr":
      if (world.unmap(slot.iova, slot.pages, VADDR) !== Errno.OK) return;
      world.map(slot.iova, slot.vpn, slot.pages, VADDR);
      return;
    case "attach":
      if (world.devices.length < 5) expect(world.attach()).toBe(Errno.OK);
      return;
    case "detach":
      if (other === 0) return;
      for (const [index, group] of world.groups.entries()) {
        if (world.devices[index]!.faultParam === null) continue;
        // The last group takes all mappings along; without it nothing is left to look at.
        const left = world.devices.filter(({ faultParam }) => faultParam !== null).length;
        if (left > 1) detachGroup(world.type1, group);
        return;
      }
  }
}

describe.each(REACHES)("faults with a pre-map %s", (reach) => {
  describe.each(LEAVES)("and leaves of %s", (leaves) => {
    it("show a device exactly the process's memory, whatever happens to that", () => {
      fc.assert(
        fc.property(
          fc.array(action, { minLength: 1, maxLength: 25 }),
          fc.constantFrom(1, 8, 512),
          fc.boolean(),
          (steps, pages, hasPri) => {
            const premap = { pages, reach, leaves };
            const world = new FaultingWorld({ premap, hasPri, isMixed: true });
            const plain = new PlainMemory();
            expect(world.enable()).toBe(Errno.OK);
            const space = { vpn: VPN, pages: PAGES };
            world.memory.mmap({ ...space, backing: { kind: "anonymous", isHuge: true } });
            plain.set(VPN, PAGES, true, true);
            world.map(SLOTS[0]!.iova, VPN, PAGES);
            for (const step of steps) {
              act(world, plain, step);
              check(world);
            }
            for (const group of world.groups) {
              const isIn = world.type1.domains.some(({ groups }) =>
                groups.some((member) => member.group === group),
              );
              if (isIn) detachGroup(world.type1, group);
            }
            expect([world.type1.mappings.count, world.faulting.watchCount]).toEqual([0, 0]);
            expect(world.meter.amount("pagePin")).toBe(world.meter.amount("pageUnpin"));
          },
        ),
        { numRuns: 30 },
      );
    });
  });
});

describe("a lack of memory", () => {
  it.each([1, 512])(
    "at the n-th allocation answers the device and leaks nothing, pre-map %i",
    (pages) => {
      let failures = 0;
      for (let n = 0; n < 40; n += 1) {
        const world = new FaultingWorld({ premap: { pages }, groups: 2, isMixed: true });
        world.enable();
        const backing = { kind: "anonymous", isHuge: false } as const;
        world.memory.mmap({ vpn: VPN, pages: PAGES, backing });
        world.map(0x4000, VPN, PAGES);
        const before = world.pool.usedFrames;
        world.pool.failAfter(n, 1);
        const [done, failed] = world.dma(0, 0x4000, 600);
        failures += world.pool.injectedFailures;
        world.pool.failAfter(Number.POSITIVE_INFINITY);
        expect(done + failed).toBe(600);
        check(world);
        expect(world.dma(0, 0x4000, 600)).toEqual([600, 0]);
        check(world);
        world.unmap(0x4000, PAGES);
        // Tables that became empty go with what they held, or stay empty until the domain goes.
        expect(world.leaves(0).size + world.leaves(1).size).toBe(0);
        expect(world.pool.usedFrames).toBeGreaterThanOrEqual(before);
        for (const group of world.groups) detachGroup(world.type1, group);
        const fresh = new FaultingWorld({ groups: 2, isMixed: true });
        for (const group of fresh.groups) detachGroup(fresh.type1, group);
        expect(world.pool.usedFrames).toBe(fresh.pool.usedFrames);
      }
      expect(failures).toBeGreaterThan(3);
    },
  );

  it("of the framework is answered too: every stalled access ends, at every n", () => {
    for (let n = 0; n < 24; n += 1) {
      let left = Number.POSITIVE_INFINITY;
      const allowIopf = () => {
        left -= 1;
        return left !== -1;
      };
      const world = new FaultingWorld({ allowIopf, groups: 3, premap: { pages: 4 } });
      left = n;
      const errno = world.enable();
      expect(errno).toBe(n < 3 ? Errno.ENOMEM : Errno.OK);
      if (n < 3) {
        expect(world.devices.every(({ faultParam }) => faultParam === null)).toBe(true);
        continue;
      }
      const backing = { kind: "anonymous", isHuge: false } as const;
      world.memory.mmap({ vpn: VPN, pages: PAGES, backing });
      world.map(0x4000, VPN, PAGES);
      // A group that cannot be allocated is answered FAILURE, which ends its access.
      expect(world.dma(0, 0x4000, 40)).toEqual(n < 13 ? [39, 1] : [40, 0]);
      check(world);
    }
  });

  it("for bookkeeping makes the answer INVALID, and the next one good", () => {
    let failures = 0;
    for (let n = 0; n < 12; n += 1) {
      let left = Number.POSITIVE_INFINITY;
      const allow = () => {
        left -= 1;
        if (left === -1) failures += 1;
        return left !== -1;
      };
      const world = new FaultingWorld({ allow, premap: { pages: 4 } });
      world.enable();
      const backing = { kind: "anonymous", isHuge: false } as const;
      world.memory.mmap({ vpn: VPN, pages: PAGES, backing });
      world.map(0x4000, VPN, PAGES);
      left = n;
      const [done, failed] = world.dma(0, 0x4000, 20);
      expect(done + failed).toBe(20);
      check(world);
      expect(world.dma(0, 0x4000, 20)).toEqual([20, 0]);
      check(world);
    }
    expect(failures).toBeGreaterThan(3);
  });

  it("when a second domain joins refuses it, at every n", () => {
    let failures = 0;
    for (let n = 0; n < 12; n += 1) {
      const world = new FaultingWorld({ isMixed: true, premap: { pages: 4 } });
      world.enable();
      const backing = { kind: "anonymous", isHuge: false } as const;
      world.memory.mmap({ vpn: VPN, pages: PAGES, backing });
      world.map(0x4000, VPN, PAGES);
      world.dma(0, 0x4000, 9);
      world.pool.failAfter(n, 1);
      const before = world.leaves(0);
      let errno: number = Errno.OK;
      try {
        errno = world.attach();
      } catch {
        // The world's own set-up of a group ran out of memory, before the call.
        continue;
      }
      if (world.pool.injectedFailures > 0 && errno !== Errno.OK) failures += 1;
      expect(world.leaves(0)).toEqual(before);
      check(world);
    }
    expect(failures).toBeGreaterThan(1);
  });
});
