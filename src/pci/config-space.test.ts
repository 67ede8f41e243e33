/** Configuration space: header, BARs, capabilities, what may be written, and saved states. */
import { describe, expect, it } from "vitest";
import { newView } from "../memory/memory-view.ts";
import { Random } from "../random.ts";
import { expressCapability, msixBarBytes, msixCapability, msixPendingAt } from "./capabilities.ts";
import { ConfigSpace } from "./config-space.ts";
import { MsixTable } from "./msix-table.ts";
import { SavedState } from "./saved-state.ts";

const header = {
  vendor: 0x1b36,
  device: 0x0010,
  revision: 2,
  classCode: 0x01_0802,
  subsystemVendor: 0x1af4,
  subsystem: 0x1100,
};

function build(bytes: 256 | 4096 = 256): ConfigSpace {
  return new ConfigSpace({
    header,
    bars: [
      { index: 0, bytes: 0x4000, is64: true },
      { index: 3, bytes: 0x1000 },
    ],
    capabilities: [msixCapability(5, 3), expressCapability()],
    bytes,
  });
}

function write(config: ConfigSpace, offset: number, bytes: readonly number[]): boolean {
  const view = newView(64);
  view.u8.set(bytes);
  return config.write(offset, view, 0, bytes.length);
}

describe("a configuration space", () => {
  it("shows its header and links its capabilities", () => {
    const config = build();
    expect(config.word(0)).toBe(0x0010_1b36);
    expect(config.word(8)).toBe(0x0108_0202);
    expect(config.word(0x2c)).toBe(0x1100_1af4);
    expect(config.byte(6) & 0x10).toBe(0x10);
    expect(config.byte(0x34)).toBe(0x40);
    expect([config.byte(0x40), config.byte(0x41)]).toEqual([0x11, 0x50]);
    expect([config.byte(0x50), config.byte(0x51)]).toEqual([0x10, 0]);
    expect(config.capabilityOffsets).toEqual([0x40, 0x50]);
  });

  it("answers the sizing of a BAR of 64 bits by both halves, and of 32 bits by one", () => {
    const config = build();
    expect(config.word(0x10)).toBe(4);
    write(config, 0x10, new Array(8).fill(0xff));
    expect([config.word(0x10), config.word(0x14)]).toEqual([0xffff_c004, 0xffff_ffff]);
    write(config, 0x1c, new Array(4).fill(0xff));
    expect(config.word(0x1c)).toBe(0xffff_f000);
    write(config, 0x18, new Array(4).fill(0xff));
    expect(config.word(0x18)).toBe(0);
  });

  it("knows bus mastering, and forgets all that a driver wrote by a reset", () => {
    const config = build();
    const before = Array.from({ length: 256 }, (_, at) => config.byte(at));
    expect(config.isBusMaster).toBe(false);
    write(config, 4, [6, 0]);
    expect(config.isBusMaster).toBe(true);
    write(config, 0x3c, [11]);
    expect(config.byte(0x3c)).toBe(11);
    config.reset();
    expect(Array.from({ length: 256 }, (_, at) => config.byte(at))).toEqual(before);
  });

  it("lets no write of any width change what is fixed, and refuses what lies outside", () => {
    const config = build();
    const all = build();
    for (let at = 0; at < 256; at += 1) write(all, at, [0xff]);
    const none = build();
    for (let at = 0; at < 256; at += 1) write(none, at, [0]);
    const random = new Random(17);
    for (let round = 0; round < 3000; round += 1) {
      const count = random.below(9);
      const offset = random.below(270) - 4;
      const bytes = Array.from({ length: count }, () => random.below(256));
      expect(write(config, offset, bytes)).toBe(offset >= 0 && offset + count <= 256);
      expect(config.read(offset, newView(16), 0, count)).toBe(offset >= 0 && offset + count <= 256);
    }
    for (let at = 0; at < 256; at += 1) {
      // A bit that may be written is 1 in one and 0 in the other; every other bit is the same.
      const writable = all.byte(at) ^ none.byte(at);
      expect(config.byte(at) & ~writable).toBe(all.byte(at) & none.byte(at));
    }
  });

  it("comes back from what it saved, and only from that", () => {
    const config = build(4096);
    write(config, 4, [6, 4]);
    write(config, 0x10, [0, 0, 0xbf, 0xfe]);
    write(config, 0x42, [0, 0x80]);
    const other = build(4096);
    other.restore(JSON.parse(JSON.stringify(config.save())));
    for (let at = 0; at < 4096; at += 1) expect(other.byte(at)).toBe(config.byte(at));
    other.restore([0, 0xff, 2, 0xff]);
    expect(other.word(0)).toBe(0x0010_1b36);
    for (const state of [null, {}, [1], ["a", 1], [4096, 1], [-1, 1], [0.5, 1]])
      expect(() => other.restore(state)).toThrow(/saved configuration space/);
  });
});

describe("MSI-X", () => {
  it.each([1, 2, 128, 129, 2048])(
    "of %i vectors has room for table and pending bits",
    (vectors) => {
      const pendingAt = msixPendingAt(vectors);
      expect(pendingAt).toBeGreaterThanOrEqual(vectors * 16);
      expect(msixBarBytes(vectors)).toBeGreaterThanOrEqual(pendingAt + Math.ceil(vectors / 64) * 8);
      const table = new MsixTable(vectors);
      const view = newView(32);
      table.read(vectors * 16 - 4, view, 0, 4);
      expect(view.u32[0]).toBe(1);
      view.u32.fill(0xffff_ffff);
      table.write(vectors * 16 - 8, view, 0, 16);
      table.read(vectors * 16 - 8, view, 0, 16);
      expect([...view.u32.slice(0, 4)]).toEqual([0xffff_ffff, 0xffff_ffff, 0, 0]);
      table.reset();
      table.read(vectors * 16 - 8, view, 0, 8);
      expect([...view.u32.slice(0, 2)]).toEqual([0, 1]);
    },
  );
});

it("saved state says which part of it does not fit", () => {
  expect(() => new SavedState("a thing", [])).toThrow(/a thing does not fit: it/);
  const state = new SavedState("a thing", { a: 3, b: true, c: [1, 2], d: "x" });
  expect([state.count("a", 3), state.flag("b"), state.counts("c", 2, 2)]).toEqual([
    3,
    true,
    [1, 2],
  ]);
  expect(() => state.count("a", 2)).toThrow(/fit: a/);
  expect(() => state.count("d", 2)).toThrow(/fit: d/);
  expect(() => state.flag("a")).toThrow(/fit: a/);
  expect(() => state.list("c", 3)).toThrow(/fit: c/);
  expect(() => state.counts("c", 1)).toThrow(/fit: c/);
  expect(() => state.list("e")).toThrow(/fit: e/);
});
