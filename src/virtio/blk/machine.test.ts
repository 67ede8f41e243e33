/** A guest's driver, registers, device and store from end to end, behind the virtio-iommu. */
import { describe, expect, it } from "vitest";
import { CommonFeature } from "../features.ts";
import { DATA, ENDPOINT, Machine, type MachineOptions } from "./machine.suite.ts";
import { BlockStatus, BlockType } from "./protocol.ts";

const MODES = ["none", "identity", "strict", "lazy"] as const;
const PAGE = 4096;

/** Runs requests of one page at a depth; gives what each counted for, per request. */
function perRequest(options: MachineOptions, depth: number, batches: number): number[] {
  const machine = new Machine(options);
  const { guest, hardware } = machine;
  const before = machine.counts();
  let done = 0;
  for (let batch = 0; batch < batches; batch += 1) {
    for (let index = 0; index < depth; index += 1) {
      const buffer = { address: DATA + 2 * index * PAGE, bytes: PAGE };
      guest.add(BlockType.IN, 8 * (batch * depth + index), [buffer], false, (status) => {
        if (status === BlockStatus.OK) done += 1;
      });
    }
    guest.kick();
    hardware.work();
  }
  expect(done).toBe(depth * batches);
  // In lazy mode the last UNMAPs lie in the ring until the next MAP's notification.
  if (options.mode === "lazy") machine.iommuTransport!.client.write(0, 0x3000, 2, 0);
  hardware.work();
  const [kicks] = hardware.iommuPci.kicks;
  const ofDriver = machine.iommuTransport?.kicks[0] ?? 0;
  expect(kicks).toBe(ofDriver + (options.mode === "lazy" ? 1 : 0));
  expect(hardware.iommuPci.batches[0]).toBe(ofDriver === 0 ? 0 : kicks);
  return machine.counts().map((count, index) => (count - before[index]!) / done);
}

describe("4 KiB requests", () => {
  it("cost 4 MAP, 4 UNMAP and 8 kicks each in strict mode", () => {
    expect(perRequest({ mode: "strict" }, 1, 50)).toEqual([4, 4, 8, 1, 1]);
    expect(perRequest({ mode: "strict" }, 16, 5)).toEqual([4, 4, 8, 1 / 16, 1 / 16]);
  });

  it("cost 4 kicks each in lazy mode, until the flush queue is full", () => {
    expect(perRequest({ mode: "lazy" }, 1, 50)).toEqual([4, 4, 4, 1, 1]);
    expect(perRequest({ mode: "lazy" }, 16, 3)).toEqual([4, 4, 4, 1 / 16, 1 / 16]);
  });

  it("cost the IOMMU nothing with an identity domain, or without ACCESS_PLATFORM", () => {
    expect(perRequest({ mode: "identity" }, 1, 20)).toEqual([0, 0, 0, 1, 1]);
    expect(perRequest({ mode: "none" }, 16, 5)).toEqual([0, 0, 0, 1 / 16, 1 / 16]);
  });

  it("cost 3 MAP and 3 UNMAP each without indirect descriptors", () => {
    const featuresLow = ~CommonFeature.INDIRECT_DESC;
    expect(perRequest({ mode: "strict", featuresLow }, 1, 20)).toEqual([3, 3, 6, 1, 1]);
  });

  it("count the same without EVENT_IDX, one at a time", () => {
    const featuresLow = ~CommonFeature.EVENT_IDX;
    expect(perRequest({ mode: "strict", featuresLow }, 1, 20)).toEqual([4, 4, 8, 1, 1]);
  });
});

describe.each(MODES)("a disk in mode %s", (mode) => {
  it("keeps what was written, wherever its pages lie", () => {
    const { guest, hardware } = new Machine({ mode });
    const { memory } = hardware;
    const pages = Array.from({ length: 16 }, (_, index) => ({
      address: DATA + 3 * index * PAGE + 512 * (index % 3),
      bytes: PAGE,
    }));
    for (const [index, { address }] of pages.entries())
      for (let at = 0; at < PAGE; at += 4) memory.writeU32(address + at, index * 0x1_0001 + at);
    expect(guest.run(BlockType.OUT, 8, pages, true)).toBe(BlockStatus.OK);
    const back = { address: DATA + 0x20_0000, bytes: 16 * PAGE };
    expect(guest.run(BlockType.IN, 8, [back], false)).toBe(BlockStatus.OK);
    let wrong = 0;
    for (let at = 0; at < 16 * PAGE; at += 4) {
      const index = Math.floor(at / PAGE);
      const expected = index * 0x1_0001 + (at % PAGE);
      if (memory.readU32(back.address + at) !== expected) wrong += 1;
    }
    expect(wrong).toBe(0);
    expect(guest.run(BlockType.FLUSH, 0, [], false)).toBe(BlockStatus.OK);
    expect(hardware.store.flushes).toBe(1);
  });
});

describe("an access that the IOMMU refuses", () => {
  it("fails its request, is reported once, and the disk goes on", () => {
    const machine = new Machine({ mode: "strict" });
    const { guest, hardware, driver } = machine;
    const faults: unknown[] = [];
    driver!.onFault = (fault) => faults.push(fault);
    const { queue } = guest;
    // A request whose data buffer is at an address that nobody mapped.
    const memory = hardware.memory;
    const realAdd = queue.add.bind(queue);
    queue.add = (list) => {
      list.lows[1] = 0xdead_0000;
      return realAdd(list);
    };
    expect(guest.run(BlockType.IN, 0, [{ address: DATA, bytes: PAGE }], false)).toBe(
      BlockStatus.IOERR,
    );
    queue.add = realAdd;
    hardware.work();
    expect(faults).toHaveLength(1);
    expect(faults[0]).toMatchObject({ endpoint: ENDPOINT });
    expect(hardware.iommuSink.count(2)).toBe(1);
    expect(memory.readU8(DATA)).toBe(0);
    expect(guest.run(BlockType.IN, 0, [{ address: DATA, bytes: PAGE }], false)).toBe(
      BlockStatus.OK,
    );
  });
});
