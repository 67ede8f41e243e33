import { mkdtempSync, readFileSync, rmSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { Errno } from "../../errno.ts";
import type { Segment } from "../../memory/device-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import { openLinuxSystem } from "../system/linux-system.ts";
import { SimulatedKernel } from "../system/simulated-kernel.ts";
import { SimulatedSystem } from "../system/simulated-system.ts";
import type { System } from "../system/system.ts";
import { PollLoop } from "../worker/poll-loop.ts";
import { FileStore } from "./file-store.ts";

const MIB = 2 ** 20;
const options = { path: "/disk", id: "serial", name: "blk0" };

function make(bytes: number, isReadOnly = false) {
  const kernel = new SimulatedKernel();
  const file = kernel.createFile("/disk", bytes, isReadOnly);
  const system = new SimulatedSystem(kernel);
  const loop = new PollLoop(system, (_, error) => {
    throw error;
  });
  const store = FileStore.open(system, loop, { ...options, isReadOnly });
  return { kernel, file, system, loop, store };
}

/** Segments of `sizes` bytes of one view, with gaps between. */
function scattered(sizes: readonly number[]): { segments: Segment[]; view: Segment["view"] } {
  const view = newView(sizes.reduce((sum, size) => sum + size + 8, 0));
  let at = 0;
  const segments = sizes.map((bytes) => {
    const segment = { view, at: at + 8, bytes };
    at += bytes + 8;
    return segment;
  });
  return { segments, view };
}

describe("a disk in a file", () => {
  it("stores and gives back what more segments hold than one call takes", () => {
    const { store, file } = make(2 * MIB);
    const { segments } = scattered(new Array(2500).fill(512));
    for (const [index, { view, at }] of segments.entries()) view.u8.fill(index % 251, at, at + 512);
    let errno = -1;
    store.write(4096, segments, (result) => {
      errno = result;
    });
    expect(errno).toBe(0);
    expect(new Uint8Array(file.buffer)[4096 + 2499 * 512]).toBe(2499 % 251);
    const back = scattered(new Array(2500).fill(512));
    store.read(4096, back.segments, (result) => {
      errno = result;
    });
    expect(back.segments.every(({ view, at }, index) => view.u8[at + 511] === index % 251)).toBe(
      true,
    );
  });

  it("flushes in the background: done is called by the loop, once", () => {
    const { store, loop, file } = make(MIB);
    const told: number[] = [];
    store.flush((errno) => told.push(errno));
    expect(told).toEqual([]);
    loop.turn(0);
    loop.turn(0);
    expect(told).toEqual([0]);
    expect(file.syncs).toBe(1);
  });

  it("says when a flush failed", () => {
    const { store, loop, kernel } = make(MIB);
    kernel.fault = (call) => (call === "sync" ? Errno.EIO : 0);
    const told: number[] = [];
    store.flush((errno) => told.push(errno));
    loop.turn(0);
    expect(told).toEqual([Errno.EIO]);
  });

  it("flushes at once what is too much for the queue", () => {
    const { store, loop } = make(MIB);
    const told: number[] = [];
    for (let index = 0; index < 70; index += 1) store.flush((errno) => told.push(errno));
    expect(told).toHaveLength(6);
    loop.turn(0);
    expect(told).toEqual(new Array(70).fill(0));
  });

  it("discards and zeroes, also where the file system can do neither", () => {
    for (const missing of [[], ["punchHole"], ["punchHole", "zeroRange"]]) {
      const { store, file, loop, kernel } = make(4 * MIB);
      kernel.fault = (call) => (missing.includes(call) ? Errno.EOPNOTSUPP : 0);
      new Uint8Array(file.buffer).fill(9);
      const told: number[] = [];
      store.discard(0, MIB, (errno) => told.push(errno));
      store.writeZeroes(MIB + 512, 3 * MIB - 1024, true, (errno) => told.push(errno));
      for (let turn = 0; turn < 5; turn += 1) loop.turn(0);
      expect(told).toEqual([0, 0]);
      const bytes = new Uint8Array(file.buffer);
      expect([bytes[MIB + 511], bytes[4 * MIB - 512]]).toEqual([9, 9]);
      expect(bytes.subarray(MIB + 512, 4 * MIB - 512).every((byte) => byte === 0)).toBe(true);
    }
  });

  it("does a long range in pieces, one a turn", () => {
    const { store, loop, kernel } = make(8 * MIB);
    kernel.fault = (call) => (call === "punchHole" || call === "zeroRange" ? Errno.EOPNOTSUPP : 0);
    let isDone = false;
    store.writeZeroes(0, 8 * MIB, false, () => {
      isDone = true;
    });
    for (let turn = 0; turn < 6; turn += 1) loop.turn(0);
    expect(isDone).toBe(false);
    loop.turn(0);
    expect(isDone).toBe(true);
  });

  it("answers EIO when the file has become shorter, and when the disk fails in a later piece", () => {
    const { store, file, kernel } = make(MIB);
    file.resize(8192);
    const { segments } = scattered([4096, 4096]);
    const errors: number[] = [];
    store.read(4096, segments, (errno) => errors.push(errno));
    store.read(0, segments, (errno) => errors.push(errno));
    kernel.fault = (call) => (call === "write" ? Errno.ENOSPC : 0);
    store.write(0, segments, (errno) => errors.push(errno));
    expect(errors).toEqual([Errno.EIO, 0, Errno.ENOSPC]);
  });

  it("that may only be read refuses everything else, and needs no flush", () => {
    const { store } = make(MIB, true);
    const errors: number[] = [];
    const tell = (errno: number) => errors.push(errno);
    store.write(0, scattered([512]).segments, tell);
    store.discard(0, 512, tell);
    store.writeZeroes(0, 512, false, tell);
    store.flush(tell);
    expect(errors).toEqual([Errno.EROFS, Errno.EROFS, Errno.EROFS, 0]);
  });

  it.each([
    ["missing", null, "cannot be opened"],
    ["empty", 0, "is empty"],
    ["of half a block", 700, "no multiple"],
  ])("that is %s cannot be opened, and leaves nothing behind", (_, bytes, message) => {
    const kernel = new SimulatedKernel();
    if (bytes !== null) kernel.createFile("/disk", bytes);
    const system = new SimulatedSystem(kernel);
    const loop = new PollLoop(system, () => {});
    const before = system.ledger.open.length;
    expect(() => FileStore.open(system, loop, options)).toThrow(message);
    expect(system.ledger.open).toHaveLength(before);
  });

  it("leaves nothing open when it is disposed of", () => {
    const { store, loop, system } = make(MIB);
    store.flush(() => {});
    store.dispose();
    loop.dispose();
    expect(system.ledger.open).toEqual([]);
  });
});

describe.skipIf(process.platform !== "linux")("a disk in a file on Linux", () => {
  const folder = mkdtempSync(join(tmpdir(), "iommukit-"));
  afterAll(() => rmSync(folder, { recursive: true }));

  it("gives blocks back, keeps its data, survives being cut, and leaves nothing open", async () => {
    const system: System = await openLinuxSystem();
    const loop = new PollLoop(system, (_, error) => {
      throw error;
    });
    const path = join(folder, "disk");
    writeFileSync(path, new Uint8Array(4 * MIB).fill(7));
    const store = FileStore.open(system, loop, { ...options, path });
    const told: number[] = [];
    const tell = (errno: number) => told.push(errno);
    const { segments, view } = scattered([4096, 512]);
    view.u8.fill(1);
    store.write(MIB, segments, tell);
    store.discard(2 * MIB, MIB, tell);
    store.flush(tell);
    while (told.length < 3) loop.turn(100_000);
    expect(told).toEqual([0, 0, 0]);
    const bytes = readFileSync(path);
    expect([bytes[MIB - 1], bytes[MIB], bytes[MIB + 4607], bytes[MIB + 4608]]).toEqual([
      7, 1, 1, 7,
    ]);
    expect([bytes[2 * MIB], statSync(path).size]).toEqual([0, 4 * MIB]);
    truncateSync(path, MIB);
    store.read(MIB, segments, tell);
    expect(told.at(-1)).toBe(Errno.EIO);
    store.dispose();
    loop.dispose();
    expect(system.ledger.open).toEqual([]);
  });

  it("refuses directories and sockets", async () => {
    const system = await openLinuxSystem();
    const loop = new PollLoop(system, () => {});
    const readOnly = { ...options, path: folder, isReadOnly: true };
    expect(() => FileStore.open(system, loop, readOnly)).toThrow("is a directory");
    loop.dispose();
    expect(system.ledger.open).toEqual([]);
  });
});
