/** Queues: wrap, phase, fullness, doorbells, and rings that memory refuses for a while. */
import { describe, expect, it } from "vitest";
import { GuestMemory } from "../memory/guest-memory.ts";
import { transfer } from "./host.suite.ts";
import { NvmeRig, type TranslatedDma } from "./rig.suite.ts";

const READ = 2;

function started(options: ConstructorParameters<typeof NvmeRig>[0] = {}, entries = 8) {
  const rig = new NvmeRig(options);
  rig.host.start(2, entries);
  const buffer = rig.dma.allocate(1);
  const list = rig.dma.allocate(1);
  return { rig, host: rig.host, read: transfer(READ, 0, 8, buffer, list), buffer };
}

describe.each([false, true])("behind an IOMMU: %s", (isTranslated) => {
  it("1.4, 4.6: a queue wraps many times, its phase turns, heads are reported", () => {
    const { host, rig, read } = started({ isTranslated });
    for (let count = 1; count <= 50; count += 1) {
      const done = host.execute(rig.queue, read);
      expect([done.status, done.head, done.queue]).toEqual([0, count % 8, 1]);
    }
    expect(host.strays).toEqual([]);
  });

  it("data in scattered pages arrives where its addresses say", () => {
    const { host, rig } = started({ isTranslated }, 64);
    const buffer = rig.dma.allocate(64);
    const list = rig.dma.allocate(1);
    expect(host.execute(rig.queue, transfer(READ, 16, 512, buffer, list)).status).toBe(0);
    expect(
      Buffer.compare(buffer.read(0, 2 ** 18), rig.store.data.slice(8192, 8192 + 2 ** 18)),
    ).toBe(0);
  });

  it("a hand-over between any two commands is not noticed", () => {
    const { host, rig, read, buffer } = started({ isTranslated });
    for (let count = 0; count < 20; count += 1) {
      const id = host.submit(rig.queue, read);
      if (count % 2 === 0) rig.handOver();
      host.run();
      if (count % 3 === 0) rig.handOver();
      expect(host.await(rig.queue, id).status).toBe(0);
      expect(Buffer.compare(buffer.read(0, 4096), rig.store.data.slice(0, 4096))).toBe(0);
    }
    rig.handOver();
    host.writeRegister(0x1000 + 8 * 9, 1);
    const event = [...host.outstanding].find((key) => key < 65_536)!;
    expect(host.await(host.admin, event).result).toBe(0x0001_0000);
    expect(host.strays).toEqual([]);
    host.shutDown();
  });
});

describe("1.4, 4.1.1: a full completion queue", () => {
  it("stops its submission queues until the host has read, and loses nothing", () => {
    const { host, rig, read } = started();
    const ids = [0, 1, 2, 3, 4].map(() => host.put(rig.queue, read));
    host.ring(rig.queue);
    host.run();
    // Seven of eight entries can be posted; the host reads none of them.
    const more = [0, 1].map(() => host.put(rig.queue, read));
    host.ring(rig.queue);
    host.run();
    const last = host.put(rig.queue, read);
    host.ring(rig.queue);
    host.run();
    expect(rig.store.calls.length).toBe(7);
    expect(host.poll(rig.queue, 1)).toBe(1);
    host.run();
    expect(rig.store.calls.length).toBe(8);
    for (const id of [...ids, ...more, last]) expect(host.await(rig.queue, id).status).toBe(0);
  });

  it("a completion that comes late waits for room", () => {
    const { host, rig, read } = started();
    rig.store.isSlow = true;
    const flush = host.submit(rig.queue, { opcode: 0, namespace: 1 });
    host.run();
    for (let count = 0; count < 7; count += 1) host.put(rig.queue, read);
    host.ring(rig.queue);
    host.run();
    rig.store.finish();
    host.run();
    expect(host.poll(rig.queue)).toBe(7);
    expect(host.take(rig.queue, flush)).toBe(null);
    expect(host.await(rig.queue, flush).status).toBe(0);
  });
});

describe("interrupts", () => {
  it("a batch of completions is one interrupt of the queue's vector", () => {
    const { host, rig, read } = started({}, 64);
    rig.raised.length = 0;
    for (let count = 0; count < 16; count += 1) host.put(rig.queue, read);
    host.ring(rig.queue);
    host.run();
    expect(rig.raised).toEqual([1]);
  });

  it("a queue without interrupts raises none", () => {
    const { host, rig } = started();
    host.deleteQueue(2);
    const memory = [rig.dma.allocate(1), rig.dma.allocate(1)];
    const size = (7 << 16) | 2;
    host.execute(host.admin, { opcode: 5, prp1: memory[0]!.address, words: [size, 1] });
    host.execute(host.admin, { opcode: 1, prp1: memory[1]!.address, words: [size, 0x2_0001] });
    rig.raised.length = 0;
    memory[1]!.write(0, Uint8Array.of(0, 0, 9, 0, 1));
    host.writeRegister(0x1010, 1);
    host.run();
    expect(rig.raised).toEqual([]);
    expect(memory[0]!.read(12, 4)).toEqual(Uint8Array.of(9, 0, 1, 0));
  });
});

describe("1.4, 3.1.24: doorbells", () => {
  it("values out of range, or beyond what there is room for, change nothing", () => {
    const { host, rig, read } = started();
    for (const value of [8, 9, 0xffff]) host.writeRegister(0x1008, value);
    host.writeRegister(0x100c, 3);
    host.run();
    expect(rig.store.calls).toEqual([]);
    expect(host.execute(rig.queue, read).status).toBe(0);
    const ids = [0, 1, 2].map(() => host.put(rig.queue, read));
    // One entry less than before: as if seven had been added.
    host.writeRegister(0x1008, 4);
    host.writeRegister(0x1008, 3);
    host.run();
    for (const id of ids) expect(host.await(rig.queue, id).status).toBe(0);
  });

  it("narrow and odd writes are no doorbells", () => {
    const { host, rig, read } = started();
    host.put(rig.queue, read);
    host.writeRegister(0x1008, 1, 2);
    host.writeRegister(0x1009, 1, 1);
    host.run();
    expect(rig.store.calls).toEqual([]);
  });
});

describe("U52: a ring that memory refuses", () => {
  const backing = { buffer: new ArrayBuffer(1 << 24), byteOffset: 0 };
  const region = { start: 0, bytes: 1 << 24, backing };
  const memory = (): GuestMemory => {
    const made = new GuestMemory();
    made.addRegion(region);
    return made;
  };

  it("waits while memory is mapped anew, and goes on without another doorbell", () => {
    const { host, rig, read } = started({ memory: memory() });
    const id = host.submit(rig.queue, read);
    rig.memory.removeRegion(0);
    host.device.work();
    host.device.work();
    expect(host.readRegister(0x1c)).toBe(1);
    rig.memory.addRegion(region);
    expect(host.await(rig.queue, id).status).toBe(0);
  });

  it("is fatal only when a later doorbell finds it refused still; a reset cures", () => {
    const { host, rig, read } = started({ memory: memory() });
    host.submit(rig.queue, read);
    rig.memory.removeRegion(0);
    host.run();
    host.run();
    expect(host.readRegister(0x1c)).toBe(1);
    host.writeRegister(0x1008, 2);
    host.run();
    expect(host.readRegister(0x1c)).toBe(3);
    rig.memory.addRegion(region);
    host.start(1);
    expect(host.execute(rig.queue, read).status).toBe(0);
  });

  it("behind an IOMMU: an unmapped ring waits for its mapping; unmapped data fails the command", () => {
    const { host, rig, read } = started({ isTranslated: true });
    const dma = rig.dma as TranslatedDma;
    dma.unmap(read.prp1!, 1);
    const refused = host.execute(rig.queue, read);
    expect([refused.status, refused.doNotRetry]).toEqual([4, false]);
    expect(dma.iommu.takeFaults().map(({ address }) => address)).toContain(BigInt(read.prp1!));
    dma.map(read.prp1!, 0x200);
    const ring = rig.queue.submission.address;
    const frame = dma.iommu.reach(8, BigInt(ring))!;
    const id = host.put(rig.queue, read);
    dma.unmap(ring, 1);
    host.ring(rig.queue);
    host.run();
    expect(host.poll(rig.queue)).toBe(0);
    dma.map(ring, Number(frame >> 12n));
    expect(host.await(rig.queue, id).status).toBe(0);
    expect(host.readRegister(0x1c)).toBe(1);
  });
});
