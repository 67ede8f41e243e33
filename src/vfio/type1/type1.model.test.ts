import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { DirtyFlag, MapFlag, UnmapFlag } from "../uapi/type1.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { readDirty, switchDirtyTracking } from "./dirty.ts";
import { pinPages, registerDevice, unpinPages } from "./external-pins.ts";
import { PlainType1 } from "./plain-type1.suite.ts";
import { leavesOf, VTD_RANGES, World } from "./type1-world.suite.ts";

const VPN = 0x1000;
const BITMAP = 0x10_0000n;

/** A step: what is called, and four small numbers that it takes its arguments from. */
type Step = readonly [name: string, a: number, b: number, c: number, d: number];

const number = fc.nat(23);
const step: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom("map", "map", "map", "unmap", "unmap", "unmapAll", "invalidate", "update"),
  number,
  number,
  number,
  number,
);
const lateStep: fc.Arbitrary<Step> = fc.tuple(
  fc.constantFrom("pin", "unpin", "dirty", "dirty", "start", "stop", "move"),
  number,
  number,
  number,
  number,
);

interface Setup {
  readonly domains: number;
  readonly isV2: boolean;
  /** Domains that nobody listens to take shorter ways. */
  readonly isTraced: boolean;
  readonly limit: number;
  readonly memory: readonly number[];
}

const setup: fc.Arbitrary<Setup> = fc.record({
  domains: fc.nat(2),
  isV2: fc.boolean(),
  isTraced: fc.boolean(),
  limit: fc.constantFrom(2, 12, 1000),
  memory: fc.array(fc.nat(99), { minLength: 64, maxLength: 64 }),
});

/** A container and what it takes to drive it. */
class Driven extends World {
  readonly buffer = new UserBuffer(BITMAP, new Uint8Array(64));
  readonly group;
  readonly held = new Map<number, number>();

  constructor(options: Setup, unmapMode: "extents" | "kernel") {
    super({
      domains: options.domains,
      isTraced: options.isTraced,
      type1: { isV2: options.isV2, unmapMode, parameters: { dmaEntryLimit: 5 } },
      process: { memlockPages: options.limit },
    });
    this.type1.allowed = VTD_RANGES;
    this.group = this.addEmulated();
    this.type1.emulatedGroups.length = 0;
    this.user = this.buffer;
    registerDevice(this.type1, { dmaUnmap: (first, pages) => this.letGo(first, pages) });
    options.memory.forEach((seed, index) => {
      this.change(index, seed);
    });
  }

  /** Gives a virtual page another frame, or none. */
  change(index: number, seed: number): void {
    const vpn = VPN + index;
    if (seed < 4) this.memory.pages.delete(vpn);
    else if (seed < 60) this.memory.put(vpn, 0x8000 + index, 1);
    else if (seed < 70) this.memory.put(vpn, 0x8000 + seed, 1, { isWritable: false });
    else if (seed < 85) this.memory.put(vpn, 0xf_0000 + index, 1, { isReserved: true });
    else this.memory.put(vpn, 0x9000 + seed, 1);
  }

  letGo(first: number, pages: number): void {
    for (const [pfn, users] of [...this.held]) {
      if (pfn < first || pfn >= first + pages) continue;
      for (let user = 0; user < users; user += 1) unpinPages(this.type1, pfn, 1);
      this.held.delete(pfn);
    }
  }

  do([name, a, b, c, d]: Step): unknown {
    const pages = 1 + (b % 5);
    const bytes = pages * 4096;
    const vaddr = (VPN + c) * 4096;
    if (name === "map") return this.map(a * 4096, vaddr, bytes, 1 + (d % 3));
    if (name === "unmap") return this.unmap(a * 4096, (b + 1) * 4096);
    if (name === "unmapAll") return this.unmap(0, 0, UnmapFlag.ALL);
    if (name === "invalidate") return this.unmap(a * 4096, (b + 1) * 4096, UnmapFlag.VADDR);
    if (name === "update") {
      const mapping = b < 12 ? this.type1.mappings.firstFrom(a) : null;
      const size = mapping === null ? bytes : mapping.pages * 4096;
      return this.map((mapping?.iovaPfn ?? a) * 4096, vaddr, size, MapFlag.VADDR);
    }
    if (name === "start") return switchDirtyTracking(this.type1, DirtyFlag.START);
    if (name === "stop") return switchDirtyTracking(this.type1, DirtyFlag.STOP);
    if (name === "dirty") return this.dirty(a, b + 1);
    if (name === "pin") {
      const mapping = b < 18 ? this.type1.mappings.firstFrom(a) : null;
      return this.pin(mapping?.iovaPfn ?? a, 1 + (b % 4), c % 4);
    }
    if (name === "unpin") return this.unpin(a, 1 + (b % 4));
    this.change(a, 2 * b);
    return Errno.OK;
  }

  dirty(first: number, pages: number): unknown {
    this.buffer.bytes.fill(0);
    const bitmap = { pgsize: 4096n, size: 64n, address: BITMAP };
    const size = BigInt(pages) << 12n;
    const errno = readDirty(this.type1, BigInt(first) << 12n, size, bitmap, this.buffer);
    if (errno !== Errno.OK) return errno;
    const bits: number[] = [];
    this.buffer.bytes.forEach((byte, index) => {
      for (let bit = 0; bit < 8; bit += 1) {
        if (((byte >> bit) & 1) !== 0) bits.push(first + 8 * index + bit);
      }
    });
    return bits;
  }

  pin(first: number, pages: number, prot: number): number {
    const errno = pinPages(this.type1, this.group, first, pages, prot, new Float64Array(4));
    if (errno !== Errno.OK) return errno;
    for (let pfn = first; pfn < first + pages; pfn += 1) {
      this.held.set(pfn, (this.held.get(pfn) ?? 0) + 1);
    }
    return errno;
  }

  unpin(first: number, pages: number): number {
    // Drivers unpin what they pinned.
    for (let pfn = first; pfn < first + pages; pfn += 1) {
      const users = this.held.get(pfn) ?? 0;
      if (users === 0) continue;
      unpinPages(this.type1, pfn, 1);
      if (users === 1) this.held.delete(pfn);
      else this.held.set(pfn, users - 1);
    }
    return Errno.OK;
  }

  /** What the twin knows as well. */
  seen(): unknown {
    return {
      mappings: [...this.type1.mappings].map((each) => [each.iovaPfn, each.vpn, each.pages]),
      dmaAvail: this.type1.dmaAvail,
      locked: this.process.lockedPages,
      pins: [...this.memory.pins].sort((x, y) => x[0] - y[0]),
      tables: this.tables.map((table) => pagesOf(leavesOf(table))),
    };
  }
}

/** A twin with the same memory. */
class DrivenTwin {
  readonly world: Driven;
  readonly plain: PlainType1;

  constructor(world: Driven, options: Setup) {
    this.world = world;
    const { isV2, limit } = options;
    const hasDomain = options.domains > 0;
    this.plain = new PlainType1(world.memory, { hasDomain, isV2, limit, entries: 5 });
  }

  do([name, a, b, c, d]: Step): unknown {
    const { plain } = this;
    const pages = 1 + (b % 5);
    if (name === "map") return plain.map(a, VPN + c, pages, 1 + (d % 3));
    if (name === "unmap") return bytesText(plain.unmap(a, a + b, false));
    if (name === "unmapAll") return bytesText(plain.unmap(0, 2 ** 52 - 1, true));
    if (name === "invalidate") return bytesText(plain.invalidate(a, a + b, false));
    if (name === "update") {
      const above = plain.mappings.find((each) => each.iovaPfn + each.pages > a);
      const mapping = b < 12 ? above : undefined;
      return plain.updateVaddr(mapping?.iovaPfn ?? a, VPN + c, mapping?.pages ?? pages);
    }
    if (!plain.isV2 && name !== "unpin" && name !== "move") return Errno.EACCES;
    if (name === "start") plain.track(true);
    if (name === "stop") plain.track(false);
    if (name === "dirty") return plain.readDirty(a, a + b);
    if (name === "pin") {
      const above = plain.mappings.find((each) => each.iovaPfn + each.pages > a);
      const mapping = b < 18 ? above : undefined;
      return plain.pin(mapping?.iovaPfn ?? a, 1 + (b % 4), c % 4);
    }
    if (name === "unpin") for (let at = a; at < a + 1 + (b % 4); at += 1) plain.unpin(at, 1);
    return Errno.OK;
  }

  seen(): unknown {
    const { plain } = this;
    return {
      mappings: plain.mappings.map((each) => [each.iovaPfn, each.vpn, each.pages]),
      dmaAvail: plain.dmaAvail,
      locked: plain.locked,
      pins: plain.pins(),
      tables: this.world.tables.map(() => plain.table()),
    };
  }
}

function bytesText(answer: number | string): number | string {
  return typeof answer === "string" ? `${Number(answer) * 4096}` : answer;
}

function pagesOf(leaves: readonly unknown[]): [number, number, number][] {
  return leaves.flatMap((each) => {
    const leaf = each as { iovaPfn: number; physPfn: number; pageShift: number; prot: number };
    return Array.from(
      { length: 2 ** (leaf.pageShift - 12) },
      (_, page): [number, number, number] => [
        leaf.iovaPfn + page,
        leaf.physPfn + page,
        leaf.prot & 3,
      ],
    );
  });
}

describe("type1 under random calls", () => {
  it("answers and accounts as a container that goes page by page, in both ways to unmap", () => {
    const outcomes = new Set<string>();
    const steps = fc.array(fc.oneof({ weight: 3, arbitrary: step }, lateStep), {
      maxLength: 80,
      size: "max",
    });
    fc.assert(
      fc.property(setup, steps, (options, calls) => {
        const world = new Driven(options, "extents");
        const kernel = new Driven(options, "kernel");
        const twin = new DrivenTwin(world, options);
        for (const call of calls) {
          const before = world.state();
          // The twin looks at the memory before the call that moves it.
          const expected = twin.do(call);
          expect(world.do(call)).toEqual(expected);
          const isRefused = typeof expected === "number" && expected !== Errno.OK;
          if (isRefused) expect(world.state()).toEqual(before);
          outcomes.add(`${call[0]} ${typeof expected === "number" ? expected : "answer"}`);
          expect(kernel.do(call)).toEqual(expected);
          expect(world.seen()).toEqual(twin.seen());
        }
        expect(kernel.state()).toEqual(world.state());
        expect(kernel.log.lines).toEqual(world.log.lines);
      }),
      { seed: 1, numRuns: 120 },
    );
    // The calls reach what they are meant to reach.
    const reached = ["map 0", "map 12", "map 14", "map 17", "map 28", "update 0", "update 2"];
    reached.push("unmap answer", "unmap 22", "invalidate answer", "invalidate 22");
    reached.push("dirty answer", "dirty 22", "start 0", "stop 0", "pin 0", "pin 22");
    expect([...outcomes]).toEqual(expect.arrayContaining(reached));
  });
});
