/** I/O commands: what they do to the disk, and each reason to refuse. */
import { describe, expect, it } from "vitest";
import { type Command, type Completion, TestStore, transfer } from "./host.suite.ts";
import { NvmeRig } from "./rig.suite.ts";

const LBA_RANGE = 0x80;
const INVALID_FIELD = 0x02;
const WRITE_PROTECTED = 0x20;
const FUA = 1 << 30;

function started(store = new TestStore()) {
  const rig = new NvmeRig({ store });
  rig.host.start(1);
  const buffer = rig.dma.allocate(257);
  const list = rig.dma.allocate(1);
  const run = (command: Command): Completion => rig.host.execute(rig.queue, command);
  const io = (opcode: number, words: number[], prp1 = buffer.address): Completion =>
    run({ opcode, namespace: 1, prp1, words });
  return { rig, store, buffer, list, run, io };
}

describe("1.4, 6.9 and 6.15: Read and Write", () => {
  it("a transfer of MDTS works, one block more is refused", () => {
    const { run, store, buffer, list } = started(new TestStore(1 << 21));
    expect(run(transfer(2, 5, 2048, buffer, list)).status).toBe(0);
    expect(Buffer.compare(buffer.read(0, 2 ** 20), store.data.slice(2560, 2560 + 2 ** 20))).toBe(0);
    expect(run(transfer(2, 5, 2049, buffer, list)).status).toBe(INVALID_FIELD);
  });

  it("blocks beyond the end are refused, however large the number", () => {
    const { io } = started();
    expect(io(2, [2047, 0, 0]).status).toBe(0);
    expect(io(2, [2048, 0, 0]).status).toBe(LBA_RANGE);
    expect(io(2, [2047, 0, 1]).status).toBe(LBA_RANGE);
    expect(io(1, [0, 1, 0]).status).toBe(LBA_RANGE);
    expect(io(1, [0xffff_ffff, 0xffff_ffff, 0]).status).toBe(LBA_RANGE);
  });

  it("force unit access, and a write cache that is off, make a write durable", () => {
    const { io, store, rig } = started();
    io(1, [0, 0, 0]);
    expect(store.calls).toEqual(["write 0"]);
    io(1, [0, 0, FUA]);
    expect(store.calls.slice(1)).toEqual(["write 0", "flush"]);
    rig.host.execute(rig.host.admin, { opcode: 9, words: [6, 0] });
    io(1, [0, 0, 0]);
    expect(store.calls.slice(3)).toEqual(["write 0", "flush"]);
  });

  it("errors of the disk are media errors; data that memory refuses moves nothing", () => {
    const { io, store } = started();
    store.errno = 5;
    expect(io(2, [0, 0, 0]).status).toBe(0x281);
    expect(io(1, [0, 0, 0]).status).toBe(0x280);
    expect(io(0, []).status).toBe(0x280);
    store.errno = 28;
    expect(io(1, [0, 0, 0]).status).toBe(0x81);
    store.errno = 0;
    const calls = store.calls.length;
    const refused = io(1, [0, 0, 0], 2 ** 40);
    expect([refused.status, refused.doNotRetry]).toEqual([4, false]);
    expect(store.calls.length).toBe(calls);
  });

  it("blocks of 4096 bytes are counted as such", () => {
    const { io, store, buffer } = started(new TestStore(1 << 20, 4096));
    expect(io(2, [3, 0, 0]).status).toBe(0);
    expect(buffer.read(0, 4096)).toEqual(store.data.slice(3 * 4096, 4 * 4096));
    expect(io(2, [256, 0, 0]).status).toBe(LBA_RANGE);
  });

  it("an SGL with a bit bucket reads what is between", () => {
    const { rig, run, store, buffer, list } = started();
    const view = new DataView(new ArrayBuffer(48));
    view.setBigUint64(0, BigInt(buffer.address), true);
    view.setUint32(8, 300, true);
    view.setUint32(24, 200, true);
    view.setUint8(31, 0x10);
    view.setBigUint64(32, BigInt(buffer.address + 4095), true);
    view.setUint32(40, 524, true);
    list.write(0, new Uint8Array(view.buffer));
    const sgl = new Uint8Array(16);
    new DataView(sgl.buffer).setBigUint64(0, BigInt(list.address), true);
    sgl[8] = 48;
    sgl[15] = 0x30;
    expect(run({ opcode: 2, namespace: 1, sgl, words: [0, 0, 1] }).status).toBe(0);
    expect(buffer.read(0, 300)).toEqual(store.data.slice(0, 300));
    expect(buffer.read(4095, 524)).toEqual(store.data.slice(500, 1024));
    expect(rig.host.strays).toEqual([]);
  });
});

describe("1.4, 6.6, 6.7, 6.8, 6.16: Compare, Dataset Management, Flush, Write Zeroes", () => {
  it("compare finds one byte that differs", () => {
    const { io, store, buffer } = started();
    const bytes = store.data.slice(512, 1536);
    buffer.write(0, bytes);
    expect(io(5, [1, 0, 1]).status).toBe(0);
    buffer.write(1023, Uint8Array.of(bytes[1023]! ^ 1));
    expect(io(5, [1, 0, 1]).status).toBe(0x285);
  });

  it("zeroes are written, with or without giving space back, and beyond MDTS", () => {
    const { io, store } = started(new TestStore(1 << 22));
    expect(io(8, [8, 0, 8191 - 8]).status).toBe(0);
    expect(store.calls).toEqual([`zero 4096 ${8184 * 512} keep`]);
    expect(store.data.subarray(4096).every((byte) => byte === 0)).toBe(true);
    expect(io(8, [0, 0, 7 | (1 << 25) | FUA]).status).toBe(0);
    expect(store.calls.slice(1)).toEqual(["zero 0 4096 unmap", "flush"]);
    expect(io(8, [8191, 0, 1]).status).toBe(LBA_RANGE);
  });

  it("ranges are discarded, or none when one of them is beyond the end", () => {
    const { io, store, buffer } = started();
    const ranges = (...words: number[]): void =>
      buffer.write(0, new Uint8Array(Uint32Array.from(words).buffer));
    ranges(0, 4, 10, 0, 0, 0, 5, 0, 0, 1, 2047, 0);
    expect(io(9, [2, 4]).status).toBe(0);
    expect(store.calls).toEqual(["discard 5120 2048", "discard 1048064 512"]);
    expect(io(9, [2, 3]).status).toBe(0);
    ranges(0, 4, 10, 0, 0, 2, 2047, 0);
    expect(io(9, [1, 4]).status).toBe(LBA_RANGE);
    expect(store.calls.length).toBe(2);
  });

  it("a discard of 256 ranges of a large disk goes on over many turns, other commands between", () => {
    const calls: number[] = [];
    const store = Object.assign(new TestStore(), {
      discard: (_at: number, bytes: number, done: (errno: number) => void) => {
        calls.push(bytes);
        done(0);
      },
    });
    Object.defineProperty(store, "bytes", { value: 2 ** 36 });
    const { rig, buffer } = started(store);
    const words = new Uint32Array(1024);
    for (let range = 0; range < 256; range += 1) words[4 * range + 1] = 2 ** 18;
    buffer.write(0, new Uint8Array(words.buffer));
    const command = { opcode: 9, namespace: 1, prp1: buffer.address, words: [255, 4] };
    const id = rig.host.submit(rig.queue, command);
    rig.device.work();
    const read = rig.host.submit(rig.queue, transfer(2, 0, 8, buffer, buffer));
    rig.device.work();
    rig.host.poll(rig.queue);
    expect(rig.host.take(rig.queue, read)?.status).toBe(0);
    expect(Math.max(...calls)).toBeLessThanOrEqual(2 ** 24);
    rig.host.patience = 10_000;
    expect(rig.host.await(rig.queue, id).status).toBe(0);
    expect(calls.reduce((sum, bytes) => sum + bytes, 0)).toBe(2 ** 35);
  });

  it("a disk that must not be written refuses all that writes, and says so", () => {
    const store = new TestStore();
    store.isReadOnly = true;
    const { io, rig, buffer } = started(store);
    for (const opcode of [1, 8]) expect(io(opcode, [0, 0, 0]).status).toBe(WRITE_PROTECTED);
    expect(io(9, [0, 4]).status).toBe(WRITE_PROTECTED);
    expect(io(2, [0, 0, 0]).status).toBe(0);
    const prp1 = buffer.address;
    rig.host.execute(rig.host.admin, { opcode: 6, namespace: 1, prp1, words: [0] });
    expect(buffer.read(99, 1)[0]).toBe(1);
  });

  it("flush is for the namespace or for all; other commands for the namespace only", () => {
    const { run } = started();
    expect(run({ opcode: 0, namespace: 0xffff_ffff }).status).toBe(0);
    for (const namespace of [0, 2]) expect(run({ opcode: 0, namespace }).status).toBe(0x0b);
    expect(run({ opcode: 2, namespace: 0xffff_ffff, words: [0, 0, 0] }).status).toBe(0x0b);
  });

  it("commands that there are not, are refused", () => {
    const { io } = started();
    for (const opcode of [3, 4, 6, 7, 0x0c, 0x0d, 0x11, 0x15, 0x19, 0x80, 0xff])
      expect(io(opcode, [0, 0, 0]).status).toBe(1);
  });
});
