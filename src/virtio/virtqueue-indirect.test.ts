/** Rules V140 to V143 of the reference "virtio-iommu", section 9, each with its number. */
import { describe, expect, it } from "vitest";
import { AREA_BYTES, BUFFERS, reasonOf, simpleQueue } from "./virtqueue-raw.suite.ts";

const NEXT = 1;
const WRITE = 2;
const INDIRECT = 4;

describe("V140: INDIRECT", () => {
  it("without negotiation is malformed", () => {
    const raw = simpleQueue();
    raw.descriptor(0, BUFFERS + 0x1000, 32, INDIRECT);
    expect(reasonOf(raw)).toBe("indirect-not-negotiated");
  });

  it("together with NEXT is malformed", () => {
    const raw = simpleQueue({ indirect: true });
    raw.descriptor(0, BUFFERS + 0x1000, 32, INDIRECT | NEXT, 1);
    expect(reasonOf(raw)).toBe("indirect-with-next");
  });

  it("inside an indirect table is malformed", () => {
    const raw = simpleQueue({ indirect: true });
    raw.descriptor(0, BUFFERS + 0x1000, 32, INDIRECT);
    raw.descriptorAt(BUFFERS + 0x1000, BUFFERS + 0x1000, 32, INDIRECT);
    expect(reasonOf(raw)).toBe("indirect-nested");
  });
});

describe("V141: an indirect table", () => {
  it("of 0 bytes, of a length that is no multiple of 16, or of more than N entries is malformed", () => {
    for (const length of [0, 8, 17, 31, 5 * 16, 0xffff_fff0]) {
      const raw = simpleQueue({ indirect: true });
      raw.descriptor(0, BUFFERS + 0x1000, length, INDIRECT);
      expect(reasonOf(raw)).toBe("indirect-length");
    }
  });

  it("outside memory is malformed, as far as only its last byte", () => {
    const raw = simpleQueue({ indirect: true });
    raw.descriptor(0, BUFFERS + AREA_BYTES - 16, 32, INDIRECT);
    expect(reasonOf(raw)).toBe("indirect-outside-memory");
  });

  it("at any address, also across the pieces that memory is made of, is read", () => {
    for (const table of [BUFFERS + 0x1001, BUFFERS + 0x1_0000 - 8, BUFFERS - 16]) {
      const raw = simpleQueue({ indirect: true });
      raw.descriptor(0, table, 32, INDIRECT);
      raw.descriptorAt(table, BUFFERS + 0x2000, 2, NEXT, 1);
      raw.descriptorAt(table + 16, BUFFERS + 0x3000, 4, WRITE);
      raw.fill(BUFFERS + 0x2000, [4, 2]);
      raw.offer(0);
      expect(raw.take()).toEqual([4, 2]);
      expect(raw.chain.writableBytes).toBe(4);
    }
  });
});

it("V142: WRITE on the descriptor that points to an indirect table is ignored", () => {
  const raw = simpleQueue({ indirect: true });
  raw.descriptor(0, BUFFERS + 0x1000, 16, INDIRECT | WRITE);
  raw.descriptorAt(BUFFERS + 0x1000, BUFFERS, 4);
  raw.offer(0);
  expect(raw.take()).toEqual([1, 2, 3, 4]);
  expect(raw.chain.writableBytes).toBe(0);
});

it("V143: a chain of ordinary descriptors whose last one is INDIRECT is handled", () => {
  const raw = simpleQueue({ indirect: true });
  raw.descriptor(0, BUFFERS, 2, NEXT, 1);
  raw.descriptor(1, BUFFERS + 0x1000, 32, INDIRECT);
  raw.descriptorAt(BUFFERS + 0x1000, BUFFERS + 2, 2, NEXT, 1);
  raw.descriptorAt(BUFFERS + 0x1010, BUFFERS + 0x100, 8, WRITE);
  raw.offer(0);
  expect(raw.take()).toEqual([1, 2, 3, 4]);
  expect(raw.chain.writableBytes).toBe(8);
  expect(raw.reply([1])).toBe(true);
  expect(raw.used(0)).toEqual({ id: 0, length: 1 });
});
