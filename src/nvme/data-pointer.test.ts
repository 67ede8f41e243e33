/** PRP and SGL beside a plain reading of the specification, and their rules one by one. */
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { DataPointer } from "./data-pointer.ts";

const PAGE = 4096;
/** Memory is pages 1 … 32; page 33 on is a hole. */
const START = PAGE;
const END = 33 * PAGE;

const SUCCESS = 0;
const TRANSFER_ERROR = 0x04;
const FIELD = 0x02;
const SEGMENT = 0x0d;
const COUNT = 0x0e;
const LENGTH = 0x0f;
const TYPE = 0x11;
const OFFSET = 0x13;

/** What a pointer means: a status, or stretches of memory; null stands for a bit bucket's bytes. */
type Meaning = number | readonly (readonly [address: number | null, bytes: number])[];

class World {
  readonly bytes = new Uint8Array(END);
  readonly view = new DataView(this.bytes.buffer);
  readonly pointer: DataPointer;

  constructor() {
    const memory = new GuestMemory();
    const backing = { buffer: this.bytes.buffer, byteOffset: START };
    memory.addRegion({ start: START, bytes: END - START, backing });
    this.pointer = new DataPointer(memory);
  }

  /** What the controller makes of a command. */
  actual(command: Uint32Array, bytes: number, forWrite: boolean): Meaning {
    const status = this.pointer.gather(command, bytes, forWrite, false);
    if (status !== SUCCESS) return status & 0x7ff;
    return this.pointer.list.segments.map(({ view, at, bytes: count }) => [
      view.u8.buffer === this.bytes.buffer ? view.u8.byteOffset + at : null,
      count,
    ]);
  }
}

/** Stretches with neighbours joined, so that only which bytes, in which order, is compared. */
function joined(meaning: Meaning): Meaning {
  if (typeof meaning === "number") return meaning;
  const list: [number | null, number][] = [];
  for (const [address, bytes] of meaning) {
    const last = list.at(-1);
    const follows = last !== undefined && last[0] !== null && last[0] + last[1] === address;
    const isBucket = last !== undefined && last[0] === null && address === null;
    if (follows || isBucket) last[1] += bytes;
    else list.push([address, bytes]);
  }
  return list;
}

const isMemory = (address: number, bytes: number): boolean =>
  address >= START && address + bytes <= END;

/** 1.4, 4.3, read entry by entry with 64-bit integers. */
function plainPrp(world: World, first: bigint, second: bigint, total: number): Meaning {
  const found: [number, number][] = [];
  if (first % 4n !== 0n) return OFFSET;
  const take = (entry: bigint, bytes: number): boolean => {
    found.push([Number(entry), bytes]);
    return isMemory(Number(entry), bytes);
  };
  let left = total;
  const opening = Math.min(left, PAGE - Number(first % 4096n));
  if (!take(first, opening)) return TRANSFER_ERROR;
  left -= opening;
  if (left === 0) return found;
  if (left <= PAGE) {
    if (second % 4096n !== 0n) return OFFSET;
    return take(second, left) ? found : TRANSFER_ERROR;
  }
  let at = second;
  if (at % 8n !== 0n) return OFFSET;
  // All of a list that is needed is fetched before any of it is looked at.
  for (;;) {
    const room = (PAGE - Number(at % 4096n)) / 8;
    const needed = Math.ceil(left / PAGE);
    const count = Math.min(room, needed);
    if (!isMemory(Number(at), count * 8)) return TRANSFER_ERROR;
    for (let index = 0; index < count; index += 1) {
      const entry = world.view.getBigUint64(Number(at) + index * 8, true);
      if (entry % 4096n !== 0n) return OFFSET;
      const leads = needed > room && index === count - 1;
      if (leads) {
        at = entry;
        break;
      }
      const bytes = Math.min(left, PAGE);
      if (!take(entry, bytes)) return TRANSFER_ERROR;
      left -= bytes;
    }
    if (left === 0) return found;
  }
}

interface Descriptor {
  readonly address: bigint;
  readonly length: number;
  readonly type: number;
  readonly subtype: number;
}

function descriptorAt(view: DataView, at: number): Descriptor {
  return {
    address: view.getBigUint64(at, true),
    length: view.getUint32(at + 8, true),
    type: view.getUint8(at + 15) >> 4,
    subtype: view.getUint8(at + 15) & 15,
  };
}

/** 1.4, 4.4. Segments are read in pages of descriptors, as far as memory goes. */
function plainSgl(world: World, top: Descriptor, total: number, forWrite: boolean): Meaning {
  const found: [number | null, number][] = [];
  let sum = 0;
  const data = ({ address, length, type, subtype }: Descriptor): number => {
    if (subtype !== 0 || type > 1) return TYPE;
    if (length === 0 || (type === 1 && !forWrite)) return SUCCESS;
    if (sum + length > total) return LENGTH;
    sum += length;
    found.push([type === 1 ? null : Number(address), length]);
    return type === 1 || isMemory(Number(address), length) ? SUCCESS : TRANSFER_ERROR;
  };
  let current = top;
  let seen = 1;
  if (top.type < 2 || top.type > 3 || top.subtype !== 0) {
    const status = data(top);
    return status !== SUCCESS ? status : sum === total ? found : LENGTH;
  }
  for (;;) {
    if (current.subtype !== 0) return TYPE;
    if (current.length === 0 || current.length % 16 !== 0) return SEGMENT;
    const start = Number(current.address);
    const isLast = current.type === 3;
    let next: Descriptor | null = null;
    for (let at = 0; at < current.length; at += 16) {
      if (at % PAGE === 0 && !isMemory(start + at, Math.min(PAGE, current.length - at)))
        return TRANSFER_ERROR;
      seen += 1;
      if (seen > 2048) return COUNT;
      const descriptor = descriptorAt(world.view, start + at);
      const leads = descriptor.type === 2 || descriptor.type === 3;
      if (leads !== (!isLast && at + 16 === current.length)) return SEGMENT;
      if (leads) next = descriptor;
      else {
        const status = data(descriptor);
        if (status !== SUCCESS) return status;
      }
    }
    if (next === null) return sum === total ? found : LENGTH;
    current = next;
  }
}

function commandOf(flags: number, words: readonly number[]): Uint32Array {
  const command = new Uint32Array(16);
  command[0] = flags << 14;
  command.set(words, 6);
  return command;
}
const halves = (value: bigint): number[] => [Number(value & 0xffff_ffffn), Number(value >> 32n)];

/** An address, mostly of a page of memory. */
const pageAddress = fc.oneof(
  { weight: 20, arbitrary: fc.integer({ min: 1, max: 32 }).map((page) => BigInt(page * PAGE)) },
  { weight: 1, arbitrary: fc.constantFrom(0n, BigInt(END), 2n ** 53n, 2n ** 64n - 4096n) },
);
const offset = (step: number) =>
  fc.oneof(
    { weight: 2, arbitrary: fc.constant(0) },
    { weight: 2, arbitrary: fc.integer({ min: 0, max: PAGE / step - 1 }).map((n) => n * step) },
    { weight: 1, arbitrary: fc.constantFrom(PAGE - 8, PAGE - 16, 1, 2, 4) },
  );

describe("PRP, 1.4, 4.3", () => {
  it("finds the bytes, and the errors, that a plain reading does", () => {
    const outcomes = new Set<number>();
    fc.assert(
      fc.property(
        fc.array(pageAddress, { minLength: 1, maxLength: 32 }),
        fc.tuple(pageAddress, offset(4), pageAddress, offset(8)),
        fc.oneof(fc.integer({ min: 1, max: 3 * PAGE }), fc.integer({ min: 1, max: 2 ** 20 })),
        fc.array(fc.tuple(fc.nat(32 * 512 - 1), fc.nat(PAGE)), { maxLength: 2 }),
        (entries, [page1, offset1, page2, offset2], total, spoiled) => {
          const world = new World();
          for (let at = START; at < END; at += 8)
            world.view.setBigUint64(at, entries[(at / 8) % entries.length]!, true);
          for (const [slot, extra] of spoiled) world.view.setUint16(START + slot * 8, extra, true);
          const first = page1 + BigInt(offset1);
          const second = page2 + BigInt(offset2);
          const command = commandOf(0, [...halves(first), ...halves(second)]);
          const actual = world.actual(command, total, true);
          expect(joined(actual)).toEqual(joined(plainPrp(world, first, second, total)));
          outcomes.add(typeof actual === "number" ? actual : SUCCESS);
        },
      ),
      { numRuns: 1500, seed: 1 },
    );
    expect([...outcomes].sort((a, b) => a - b)).toEqual([SUCCESS, TRANSFER_ERROR, OFFSET]);
  });

  it("a list that leads to itself for ever still ends with the transfer", () => {
    const world = new World();
    for (let at = START; at < END; at += 8) world.view.setBigUint64(at, BigInt(PAGE), true);
    const command = commandOf(0, [PAGE, 0, 2 * PAGE - 8, 0]);
    const meaning = world.actual(command, 2 ** 20, true);
    expect(meaning).toHaveLength(256);
  });
});

describe("SGL, 1.4, 4.4", () => {
  const kind = fc.oneof(
    { weight: 12, arbitrary: fc.constant(0x00) },
    { weight: 2, arbitrary: fc.constant(0x10) },
    { weight: 1, arbitrary: fc.constantFrom(0x20, 0x30, 0x01, 0x40, 0x50, 0xf0, 0x21) },
  );
  const piece = fc.record({
    address: fc.tuple(pageAddress, offset(1)).map(([page, add]) => page + BigInt(add)),
    length: fc.oneof(fc.integer({ min: 0, max: 600 }), fc.constantFrom(0, 16, PAGE, 2 ** 32 - 1)),
    kind,
  });
  /** Segments in a chain, each of some pieces; the last is of the type given. */
  const chain = fc.array(fc.array(piece, { minLength: 1, maxLength: 6 }), {
    minLength: 1,
    maxLength: 4,
  });
  type Piece = { address: bigint; length: number; kind: number };

  function put(view: DataView, at: number, { address, length, kind: byte }: Piece): void {
    view.setBigUint64(at, address, true);
    view.setUint32(at + 8, length, true);
    view.setUint32(at + 12, byte << 24, true);
  }

  it("finds the bytes, and the errors, that a plain reading does", () => {
    const outcomes = new Set<number>();
    fc.assert(
      fc.property(
        chain,
        fc.boolean(),
        fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(99) }),
        fc.oneof({ weight: 6, arbitrary: fc.constant(0) }, { weight: 1, arbitrary: fc.nat(40) }),
        (segments, forWrite, excess, shift) => {
          const world = new World();
          // Segment n lies in page n + 1; the last descriptor of each leads to the next.
          const bytesOf = (n: number): number =>
            (segments[n]!.length + (n + 1 < segments.length ? 1 : 0)) * 16 + shift;
          const leads = (n: number): Piece => ({
            address: BigInt((n + 1) * PAGE),
            length: bytesOf(n),
            kind: n + 1 < segments.length ? 0x20 : 0x30,
          });
          let total = 0;
          for (const [n, pieces] of segments.entries()) {
            for (const [index, one] of pieces.entries()) {
              put(world.view, (n + 1) * PAGE + index * 16, one);
              const counts = one.kind === 0 || (one.kind === 0x10 && forWrite);
              if (counts) total += Math.min(one.length, 2 ** 16);
            }
            if (n + 1 < segments.length)
              put(world.view, (n + 1) * PAGE + pieces.length * 16, leads(n + 1));
          }
          const bytes = Math.min(2 ** 20, Math.max(1, total + excess));
          const isSingle = segments.length === 1 && segments[0]!.length === 1;
          const top = isSingle ? segments[0]![0]! : leads(0);
          const entry = new DataView(new ArrayBuffer(16));
          put(entry, 0, top);
          const words = [0, 4, 8, 12].map((at) => entry.getUint32(at, true));
          const actual = world.actual(commandOf(1, words), bytes, forWrite);
          const plain = plainSgl(world, descriptorAt(entry, 0), bytes, forWrite);
          expect(joined(actual)).toEqual(joined(plain));
          outcomes.add(typeof actual === "number" ? actual : SUCCESS);
        },
      ),
      { numRuns: 3000, seed: 1 },
    );
    for (const status of [SUCCESS, TRANSFER_ERROR, SEGMENT, LENGTH, TYPE])
      expect([...outcomes], `status ${status}`).toContain(status);
  });

  it("a segment that leads to itself ends with too many descriptors", () => {
    const world = new World();
    put(world.view, PAGE, { address: BigInt(PAGE), length: 16, kind: 0x20 });
    expect(world.actual(commandOf(1, [PAGE, 0, 16, 0x2000_0000]), 512, true)).toBe(COUNT);
  });

  it("a last segment of 4 GiB is read as far as the bound, not further", () => {
    const world = new World();
    const words = [PAGE, 0, 0xffff_fff0, 0x3000_0000];
    expect(world.actual(commandOf(1, words), 512, true)).toBe(COUNT);
  });

  it("PSDT 3 is refused", () => {
    expect(new World().actual(commandOf(3, [PAGE]), 512, true)).toBe(FIELD);
  });
});
