/** iommufd against its twin, with the rule that a failed call changes nothing. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import { reach } from "../../iommu/hardware-world.suite.ts";
import { Prot } from "../../iommu/prot.ts";
import { Random } from "../../random.ts";
import { FakeMemory, makeWorld, stateOf } from "./iommufd-world.suite.ts";
import { PlainIommufd } from "./plain-iommufd.suite.ts";
import { MapFlag } from "./uapi.ts";

const SPACES = 2;
const PAGES = 48;
const HOLES = [5, 30];
const READ_ONLY = [11, 12];
const WINDOW = [20, 22] as const;
const STEPS = 60;
const bytes = (pages: number) => BigInt(pages) * 4096n;

function makePair(limit: number) {
  const memory = new FakeMemory(4);
  for (const hole of HOLES) memory.holes.add(hole);
  for (const page of READ_ONLY) memory.readOnly.add(page);
  const [start, last] = [bytes(WINDOW[0]), bytes(WINDOW[1] + 1) - 1n];
  const regions = [{ type: 2, start, last, prot: 0 }] as const;
  const world = makeWorld({ memory, memlockPages: limit, regions, isMixed: true });
  const twin = new PlainIommufd(
    {
      holes: memory.holes,
      readOnly: memory.readOnly,
      window: WINDOW,
      limit,
      frameOf: (vpn) => memory.frameOf(vpn),
    },
    SPACES,
  );
  const spaces = Array.from({ length: SPACES }, () => world.iommufd.ioasAlloc().ioasId);
  const devices = [0, 1, 2, 3].map((index) => world.bind(index));
  const { accessId } = world.iommufd.createAccess({
    unmap: (iova, length) => access.unpinOverlapping(iova, length),
  });
  const access = world.iommufd.access(accessId);
  // It stays at space 0, and whole pages are all that is mapped.
  world.iommufd.attachAccess(accessId, spaces[0]!);
  return { world, twin, spaces, devices, access, at: new Map<number, number>() };
}

type Pair = ReturnType<typeof makePair>;

/** One random call on both. @returns what each answered, and whether a failure may have changed things */
function step(pair: Pair, random: Random): { got: unknown; want: unknown; mayChange: boolean } {
  const { world, twin, spaces, devices, access, at } = pair;
  const { iommufd } = world;
  const space = random.below(SPACES);
  const ioasId = spaces[space]!;
  const first = random.below(PAGES);
  const pages = 1 + random.below(random.chance(1, 5) ? 20 : 6);
  const isWritable = random.chance(2, 3);
  const isFixed = random.chance(2, 3);
  const vpn = random.below(PAGES - 8);
  const flags =
    MapFlag.READABLE | (isWritable ? MapFlag.WRITEABLE : 0) | (isFixed ? MapFlag.FIXED_IOVA : 0);
  const done = (got: unknown, want: unknown, mayChange = false) => ({ got, want, mayChange });
  switch (random.below(9)) {
    case 0:
    case 1: {
      const call = { ioasId, flags, userVa: bytes(vpn), length: bytes(pages), iova: bytes(first) };
      const { errno, iova } = iommufd.ioasMap(call);
      const want = twin.map(space, vpn, pages, isFixed ? first : -1, isWritable);
      return done([errno, Number(iova / 4096n)], want);
    }
    case 2: {
      const from = random.below(SPACES);
      const source = random.below(PAGES);
      const ids = { srcIoasId: spaces[from]!, dstIoasId: ioasId, flags };
      const where = { srcIova: bytes(source), dstIova: bytes(first), length: bytes(pages) };
      const { errno, iova } = iommufd.ioasCopy({ ...ids, ...where });
      const want = twin.copy(from, source, space, pages, isFixed ? first : -1, isWritable);
      return done([errno, Number(iova / 4096n)], want);
    }
    case 3:
    case 4: {
      const { errno, length } = iommufd.ioasUnmap({
        ioasId,
        iova: bytes(first),
        length: bytes(pages),
      });
      const unmapped = Number(length / 4096n);
      return done([errno, unmapped], twin.unmap(space, first, pages), unmapped > 0);
    }
    case 5: {
      const device = random.below(4);
      const devId = devices[device]!;
      const where = at.get(device);
      if (where === undefined) {
        const { errno } = iommufd.attach(devId, ioasId);
        if (errno === Errno.OK) at.set(device, space);
        return done(errno, twin.attach(space, device));
      }
      at.delete(device);
      iommufd.detach(devId);
      return done(undefined, twin.detach(where, device));
    }
    case 6: {
      const last = first + pages;
      const isAny = random.chance(1, 2);
      const range = { start: bytes(first), last: bytes(last + 1) - 1n };
      const got = iommufd.ioasAllowIovas(ioasId, isAny ? [] : [range]);
      return done(got, twin.allow(space, isAny ? null : [first, last]));
    }
    case 7: {
      const { errno } = access.pin(bytes(first), bytes(pages), isWritable);
      return done(errno, twin.pin(first, pages, isWritable));
    }
    default: {
      const index = random.below(Math.max(twin.pins.length, 1));
      const pin = twin.pins[index];
      if (pin === undefined) return done(0, 0);
      access.unpin(bytes(pin.first), bytes(pin.pages));
      twin.unpin(
        twin.pins.findIndex((each) => each.first === pin.first && each.pages === pin.pages),
      );
      return done(0, 0);
    }
  }
}

/** Compares pins, charges and where every page leads. */
function compare({ world, twin, at }: Pair): void {
  expect(new Map([...world.memory.pins].sort((a, b) => a[0] - b[0]))).toEqual(
    new Map([...twin.pinCounts()].sort((a, b) => a[0] - b[0])),
  );
  let pinned = 0;
  for (const pages of twin.pinned().values()) pinned += pages.size;
  expect(world.user.lockedPages).toBe(pinned);
  for (const [device, space] of at) {
    const { rid, node } = world.devices[device]!;
    const got: number[] = [];
    const want: number[] = [];
    for (let page = 1; page < PAGES + 20; page += 1) {
      got.push(reach(world.units[node]!, rid, page, Prot.READ));
      want.push(twin.reach(space, page));
    }
    expect(got).toEqual(want);
  }
}

function errnoOf(answer: unknown): number {
  return Array.isArray(answer) ? Number(answer[0]) : Number(answer ?? 0);
}

describe("iommufd against its twin", () => {
  it("agrees on errnos, places, pins, charges and translations; failed calls change nothing", () => {
    let failures = 0;
    const property = fc.property(fc.integer({ min: 0, max: 2 ** 31 }), (seed) => {
      const random = new Random(seed);
      const pair = makePair(random.chance(1, 2) ? 24 : Number.POSITIVE_INFINITY);
      for (let index = 0; index < STEPS; index += 1) {
        const before = stateOf(pair.world);
        const { got, want, mayChange } = step(pair, random);
        expect(got).toEqual(want);
        if (errnoOf(got) !== Errno.OK && !mayChange) {
          failures += 1;
          expect(stateOf(pair.world)).toBe(before);
        }
        if (index % 4 === 0) compare(pair);
      }
      compare(pair);
    });
    fc.assert(property, { numRuns: 60, examples: [[839_636_757]] });
    expect(failures).toBeGreaterThan(500);
  });
});
