import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { SegmentCollector } from "./device-memory.ts";
import { addressOfHalves, GuestMemory } from "./guest-memory.ts";
import { newView } from "./memory-view.ts";

const bytesOf = (view: { u8: Uint8Array }, count: number): number[] => [
  ...view.u8.subarray(0, count),
];

describe("addressOfHalves", () => {
  it("gives every address below 2^53 exactly", () => {
    expect(addressOfHalves(0xffff_f000, 0)).toBe(0xffff_f000);
    expect(addressOfHalves(0xffff_ffff, 0x1f_ffff)).toBe(2 ** 53 - 1);
  });

  it("gives -1 for an address of 2^53 or more", () => {
    expect(addressOfHalves(0, 0x20_0000)).toBe(-1);
    expect(addressOfHalves(0xffff_ffff, 0xffff_ffff)).toBe(-1);
    expect(addressOfHalves(-1, -1)).toBe(-1);
  });
});

describe("regions", () => {
  it("refuses an overlap and accepts neighbours", () => {
    const memory = new GuestMemory();
    expect(memory.addRegion({ start: 0x2000, bytes: 0x1000 })).toBe("added");
    expect(memory.addRegion({ start: 0x2ff8, bytes: 8 })).toBe("overlap");
    expect(memory.addRegion({ start: 0x1000, bytes: 0x1008 })).toBe("overlap");
    expect(memory.addRegion({ start: 0x1000, bytes: 0x1000 })).toBe("added");
    expect(memory.addRegion({ start: 0x3000, bytes: 0x1000 })).toBe("added");
    expect(memory.regions.map((region) => region.start)).toEqual([0x1000, 0x2000, 0x3000]);
  });

  it("refuses misaligned regions and regions outside the address space or their buffer", () => {
    const memory = new GuestMemory();
    const buffer = new ArrayBuffer(64);
    expect(memory.addRegion({ start: 4, bytes: 8 })).toBe("misaligned");
    expect(memory.addRegion({ start: 8, bytes: 12 })).toBe("misaligned");
    expect(memory.addRegion({ start: 0, bytes: 8, backing: { buffer, byteOffset: 4 } })).toBe(
      "misaligned",
    );
    expect(memory.addRegion({ start: -8, bytes: 16 })).toBe("outside-address-space");
    expect(memory.addRegion({ start: 0, bytes: 0 })).toBe("outside-address-space");
    expect(memory.addRegion({ start: 2 ** 53 - 8, bytes: 16 })).toBe("outside-address-space");
    expect(memory.addRegion({ start: Number.NaN, bytes: 16 })).toBe("outside-address-space");
    expect(memory.addRegion({ start: 0, bytes: 64, backing: { buffer, byteOffset: 8 } })).toBe(
      "outside-address-space",
    );
    expect(memory.regions).toEqual([]);
  });

  it("gives a removed region's memory back and forgets its bytes", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x10000 });
    memory.writeU32(0x1000, 7);
    expect(memory.sparseBytes).toBe(65_536);
    const before = memory.generation;
    expect(memory.removeRegion(0x1008)).toBe(false);
    expect(memory.removeRegion(0x1000)).toBe(true);
    expect(memory.sparseBytes).toBe(0);
    expect(memory.generation).toBeGreaterThan(before);
    expect(memory.readU32(0x1000)).toBe(-1);
    memory.addRegion({ start: 0x1000, bytes: 0x10000 });
    expect(memory.readU32(0x1000)).toBe(0);
  });
});

describe("access", () => {
  it("is refused at every edge of a region", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x1000 });
    for (const address of [-1, 0, 0xfff, 0x2000, 2 ** 52, Number.NaN]) {
      expect(memory.readU8(address)).toBe(-1);
      expect(memory.writeU8(address, 1)).toBe(false);
    }
    expect(memory.readU16(0x1fff)).toBe(-1);
    expect(memory.readU32(0x1ffd)).toBe(-1);
    expect(memory.readU64(0x1ff9, { low: 0, high: 0 })).toBe(false);
    expect(memory.writeU16(0xfff, 1)).toBe(false);
    expect(memory.writeU32(0x1ffd, 1)).toBe(false);
    expect(memory.writeU64(0x1ff9, 1, 1)).toBe(false);
    expect(memory.copyOut(0x1fff, newView(8), 0, 2)).toBe(false);
    expect(memory.copyIn(0xfff, newView(8), 0, 2)).toBe(false);
    expect(memory.contains(0x1000, 0x1000)).toBe(true);
    expect(memory.contains(0x1000, 0x1001)).toBe(false);
    expect(memory.contains(5, 0)).toBe(true);
  });

  it("does not fold addresses beyond 64 bits, negative ones or huge halves back into memory", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0, bytes: 0x2_0000 });
    memory.writeU8(0x1000, 7);
    memory.writeU8(0x1_0000, 8);
    expect([memory.readU8(0x1000), memory.readU8(0x1_0000)]).toEqual([7, 8]);
    for (const address of [2 ** 64, 2 ** 64 + 2 ** 16, -(2 ** 64), 2 ** 32 + 0x1000, Number.NaN])
      expect(memory.readU8(address)).toBe(-1);
    for (const high of [1, 0x20_0000, 0x8000_0000, 0xffff_ffff]) {
      expect(memory.locateHalves(0x1000, high, 1, false)).toBe(null);
      expect(memory.copyOutHalves(0x1000, high, newView(8), 0, 1)).toBe(false);
      expect(memory.copyInHalves(0x1000, high, newView(8), 0, 1)).toBe(false);
    }
    expect(memory.locateHalves(0xffff_ffff, 0xffff_ffff, 1, false)).toBe(null);
    expect(memory.locateHalves(0x1000, 0, 1, false)?.u8[memory.at]).toBe(7);
    expect(memory.locateHalves(0x1_fff8, 0, 9, false)).toBe(null);
    expect(memory.locateHalves(0x1000, 0, 0xffff_ffff, false)).toBe(null);
  });

  it("finds the right one of two regions that share a page of 64 KiB", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x1000 });
    memory.addRegion({ start: 0x3000, bytes: 0x1000 });
    for (let round = 0; round < 3; round += 1) {
      expect(memory.writeU8(0x1008, 1)).toBe(true);
      expect(memory.writeU8(0x3008, 3)).toBe(true);
      expect([memory.readU8(0x1008), memory.readU8(0x3008)]).toEqual([1, 3]);
      expect(memory.readU8(0x2008)).toBe(-1);
      expect(memory.readU8(0x0ff8)).toBe(-1);
    }
  });

  it("is little endian, aligned or not, and crosses chunks and neighbouring regions", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x1_0000 + 8 });
    memory.addRegion({ start: 0x1_1008, bytes: 0x1000 });
    for (const address of [0x1000, 0x1001, 0x1002, 0x1003, 0x1_0ffe, 0x1_0fff, 0x1_1006]) {
      expect(memory.writeU64(address, 0x8765_4321, 0xfedc_ba98)).toBe(true);
      const halves = { low: 0, high: 0 };
      expect(memory.readU64(address, halves)).toBe(true);
      expect(halves).toEqual({ low: 0x8765_4321, high: 0xfedc_ba98 });
      expect(memory.readU16(address + 1)).toBe(0x6543);
      expect(memory.readU8(address)).toBe(0x21);
      const copy = newView(8);
      expect(memory.copyOut(address, copy, 0, 8)).toBe(true);
      expect(bytesOf(copy, 8)).toEqual([0x21, 0x43, 0x65, 0x87, 0x98, 0xba, 0xdc, 0xfe]);
    }
  });

  it("reads untouched sparse memory as zero without allocating it", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0, bytes: 2 ** 40 });
    expect(memory.readU32(2 ** 39)).toBe(0);
    expect(memory.copyOut(2 ** 39 - 100, newView(300), 0, 300)).toBe(true);
    expect(memory.sparseBytes).toBe(0);
    expect(memory.writeU32(2 ** 39, 5)).toBe(true);
    expect(memory.readU32(2 ** 39)).toBe(5);
    expect(memory.sparseBytes).toBe(65_536);
  });

  it("refuses writes beyond the bound on sparse memory, and keeps what was written", () => {
    const memory = new GuestMemory(2 * 65_536);
    memory.addRegion({ start: 0, bytes: 2 ** 30 });
    expect(memory.writeU8(0, 1)).toBe(true);
    expect(memory.writeU8(2 ** 20, 2)).toBe(true);
    expect(memory.writeU8(2 ** 21, 3)).toBe(false);
    expect(memory.writeU32(2 ** 21 + 2, 3)).toBe(false);
    expect(memory.copyIn(2 ** 21, newView(8), 0, 8)).toBe(false);
    expect(memory.window(2 ** 21, 16)).toBe(null);
    expect(memory.window(0x8000, 0x1_0000)).toBe(null);
    expect(memory.readU8(0)).toBe(1);
    expect(memory.readU8(2 ** 21)).toBe(0);
  });

  it("goes to the buffer behind a backed region and to nothing around it", () => {
    const buffer = new SharedArrayBuffer(64);
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 16, backing: { buffer, byteOffset: 24 } });
    expect(memory.isShared(0x1000)).toBe(true);
    expect(memory.writeU64(0x1008, 0xffff_ffff, 0xffff_ffff)).toBe(true);
    expect(memory.writeU64(0x1009, 1, 1)).toBe(false);
    const bytes = new Uint8Array(buffer);
    expect([...bytes].findIndex((byte) => byte !== 0)).toBe(32);
    expect([...bytes].findLastIndex((byte) => byte !== 0)).toBe(39);
    bytes[24] = 0x5a;
    expect(memory.readU8(0x1000)).toBe(0x5a);
    expect(memory.sparseBytes).toBe(0);
  });
});

it("a read-only region is read and never written, not even in part", () => {
  const buffer = new ArrayBuffer(0x2000);
  const memory = new GuestMemory();
  memory.addRegion({ start: 0x1000, bytes: 0x1000, backing: { buffer, byteOffset: 0 } });
  const backing = { buffer, byteOffset: 0x1000 };
  memory.addRegion({ start: 0x2000, bytes: 0x1000, backing, isReadOnly: true });
  new Uint8Array(buffer).fill(0x5a);
  for (let round = 0; round < 2; round += 1) {
    expect(memory.readU32(0x2000)).toBe(0x5a5a_5a5a);
    expect(memory.locate(0x2000, 4, true)).toBe(null);
    expect(memory.window(0x2000, 4)).toBe(null);
    expect(memory.window(0x2000, 4, false)?.u8[memory.at]).toBe(0x5a);
    expect(memory.writeU8(0x2000, 1)).toBe(false);
    expect(memory.writeU16(0x1fff, 1)).toBe(false);
    expect(memory.writeU32(0x1ffd, 1)).toBe(false);
    expect(memory.writeU64(0x1ffc, 1, 1)).toBe(false);
    expect(memory.copyIn(0x1ff0, newView(0x20), 0, 0x20)).toBe(false);
    const into = new SegmentCollector();
    expect(memory.collect(0x1ff0, 0, 0x20, true, into)).toBe(false);
    expect(memory.collect(0x1ff0, 0, 0x20, false, into)).toBe(true);
    expect(into.bytes).toBe(0x20);
  }
  expect(new Uint8Array(buffer).every((byte) => byte === 0x5a)).toBe(true);
  expect(memory.regions[1]?.isReadOnly).toBe(true);
});

it("a backed region of more than half a GiB has no seam", () => {
  const memory = new GuestMemory();
  const bytes = 2 ** 29 + 65_536;
  memory.addRegion({ start: 0, bytes, backing: { buffer: new ArrayBuffer(bytes), byteOffset: 0 } });
  const seam = 2 ** 29;
  expect(memory.writeU64(seam - 4, 0x1111_1111, 0x2222_2222)).toBe(true);
  expect(memory.readU32(seam)).toBe(0x2222_2222);
  expect(memory.window(seam - 4, 8)?.u32[memory.at >> 2]).toBe(0x1111_1111);
  expect(memory.readU32(bytes - 4)).toBe(0);
  expect(memory.readU8(bytes)).toBe(-1);
});

describe("windows", () => {
  it("join sparse chunks, keep their bytes, and change the generation", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x10_0000 });
    const edge = 0x1000 + 65_536;
    memory.writeU32(edge - 4, 0x1111_1111);
    memory.writeU32(edge, 0x2222_2222);
    const small = memory.window(edge - 4, 4);
    expect(small?.u32[memory.at >> 2]).toBe(0x1111_1111);
    const before = memory.generation;
    const view = memory.window(edge - 4, 8)!;
    const at = memory.at >> 2;
    expect([view.u32[at], view.u32[at + 1]]).toEqual([0x1111_1111, 0x2222_2222]);
    expect(memory.generation).toBeGreaterThan(before);
    view.u32[at + 1] = 0x3333_3333;
    expect(memory.readU32(edge)).toBe(0x3333_3333);
    expect(memory.sparseBytes).toBe(2 * 65_536);
    const settled = memory.generation;
    memory.window(edge - 4, 8);
    expect(memory.generation).toBe(settled);
  });

  it("widen what was joined before without taking it apart", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0, bytes: 0x100_0000 });
    memory.window(0x1_0000, 0x2_0000);
    memory.writeU8(0x1_0001, 1);
    memory.writeU8(0x4_0001, 4);
    memory.window(0x2_0000, 0x3_0000);
    const whole = memory.window(0x1_0000, 0x4_0000)!;
    expect(whole.u8[memory.at + 1]).toBe(1);
    expect(whole.u8[memory.at + 0x3_0001]).toBe(4);
    expect(memory.sparseBytes).toBe(4 * 65_536);
  });

  it("do not reach outside a region", () => {
    const memory = new GuestMemory();
    memory.addRegion({ start: 0x1000, bytes: 0x1000 });
    memory.addRegion({ start: 0x2000, bytes: 0x1000 });
    expect(memory.window(0x1ff8, 16)).toBe(null);
    expect(memory.window(0x4000, 8)).toBe(null);
    expect(memory.window(0x1ff8, 8)).not.toBe(null);
  });
});

it("guest memory equals a flat array under random access", () => {
  const spans: readonly (readonly [number, number])[] = [
    [0x1000, 0x3_0000],
    [0x3_1000, 0x1000],
    [0x5_0000, 0x2_0000],
  ];
  const inside = (address: number, length: number): boolean => {
    for (let at = address; at < address + length; at += 1) {
      if (!spans.some(([start, bytes]) => at >= start && at < start + bytes)) return false;
    }
    return true;
  };
  const near = fc
    .constantFrom(0x1000, 0x1_0000, 0x1_1000, 0x2_1000, 0x3_1000, 0x3_2000, 0x5_0000, 0x6_0000)
    .chain((edge) => fc.integer({ min: edge - 12, max: edge + 12 }));
  const access = fc.record({
    kind: fc.constantFrom("u8", "u16", "u32", "u64", "in", "out", "window"),
    address: near,
    length: fc.integer({ min: 0, max: 300 }),
    value: fc.integer({ min: 0, max: 0xffff_ffff }),
  });
  fc.assert(
    fc.property(fc.array(access, { maxLength: 60 }), (accesses) => {
      const memory = new GuestMemory();
      for (const [start, bytes] of spans) memory.addRegion({ start, bytes });
      const flat = new Uint8Array(0x8_0000);
      const words = new DataView(flat.buffer);
      for (const { kind, address, length, value } of accesses) {
        const size = kind.startsWith("u") ? Number(kind.slice(1)) / 8 : length;
        const isInside = inside(address, size);
        if (kind === "u8") {
          expect(memory.writeU8(address, value & 0xff)).toBe(isInside);
          if (isInside) flat[address] = value;
          expect(memory.readU8(address)).toBe(isInside ? flat[address] : -1);
        } else if (kind === "u16") {
          expect(memory.writeU16(address, value & 0xffff)).toBe(isInside);
          if (isInside) words.setUint16(address, value, true);
          expect(memory.readU16(address)).toBe(isInside ? words.getUint16(address, true) : -1);
        } else if (kind === "u32") {
          expect(memory.writeU32(address, value)).toBe(isInside);
          if (isInside) words.setUint32(address, value, true);
          expect(memory.readU32(address)).toBe(isInside ? words.getUint32(address, true) : -1);
        } else if (kind === "u64") {
          expect(memory.writeU64(address, value, ~value >>> 0)).toBe(isInside);
          if (isInside) words.setUint32(address, value, true);
          if (isInside) words.setUint32(address + 4, ~value, true);
        } else if (kind === "in") {
          const source = newView(512);
          for (let index = 0; index < 512; index += 1) source.u8[index] = value + index;
          expect(memory.copyIn(address, source, value & 3, length)).toBe(isInside);
          if (isInside) flat.set(source.u8.subarray(value & 3, (value & 3) + length), address);
        } else if (kind === "out") {
          const target = newView(512);
          expect(memory.copyOut(address, target, value & 3, length)).toBe(isInside);
          const got = target.u8.subarray(value & 3, (value & 3) + length);
          if (isInside) expect([...got]).toEqual([...flat.subarray(address, address + length)]);
          else expect(got.every((byte) => byte === 0)).toBe(true);
        } else if (length > 0) {
          const view = memory.window(address, length);
          if (view !== null) {
            const got = view.u8.subarray(memory.at, memory.at + length);
            expect([...got]).toEqual([...flat.subarray(address, address + length)]);
          }
        }
      }
    }),
    { seed: 20_231, numRuns: 300 },
  );
});
