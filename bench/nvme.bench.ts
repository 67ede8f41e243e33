/** NVMe controller: what a read costs from doorbell to completion, over plain and backed memory. */
import { MemoryStore } from "../src/block/memory-store.ts";
import { GuestMemory } from "../src/memory/guest-memory.ts";
import { newView } from "../src/memory/memory-view.ts";
import { NvmeFunction } from "../src/nvme/function.ts";
import type { Benchmark } from "./harness.ts";

const ADMIN_SQ = 0x1_0000;
const ADMIN_CQ = 0x1_1000;
const SQ = 0x2_0000;
const CQ = 0x4_0000;
const LISTS = 0x6_0000;
const DATA = 0x10_0000;
const ENTRIES = 1024;
const MEMORY_BYTES = 2 ** 26;
const STORE_BYTES = 2 ** 24;

interface Form {
  /** Pages that a command reads. */
  readonly pages: number;
  /** Commands that a doorbell announces. */
  readonly depth: number;
  readonly isBacked: boolean;
}

/** A controller with one I/O queue, whose entries are all written; rounds only ring. */
function startedDevice(form: Form): { device: NvmeFunction; memory: GuestMemory } {
  const memory = new GuestMemory();
  // As mappings of a guest's memory are: a plain buffer that the guest shares all the same.
  const backing = { buffer: new ArrayBuffer(MEMORY_BYTES), byteOffset: 0 };
  memory.addRegion({ start: 0, bytes: MEMORY_BYTES, ...(form.isBacked ? { backing } : {}) });
  const store = new MemoryStore({ bytes: STORE_BYTES });
  const device = new NvmeFunction({ memory, store, interrupts: { raise: () => {} }, queues: 1 });
  const scratch = newView(8);
  const write = (region: number, offset: number, value: number): void => {
    scratch.u32[0] = value;
    device.write(region, offset, scratch, 0, 4);
  };
  write(7, 4, 6);
  write(0, 0x24, 0x001f_001f);
  write(0, 0x28, ADMIN_SQ);
  write(0, 0x30, ADMIN_CQ);
  write(0, 0x14, 0x0046_0001);
  const entry = (at: number, words: Readonly<Record<number, number>>): void => {
    for (const [word, value] of Object.entries(words))
      memory.writeU32(at + 4 * Number(word), value);
  };
  entry(ADMIN_SQ, { 0: 5, 6: CQ, 10: ((ENTRIES - 1) << 16) | 1, 11: 3 });
  entry(ADMIN_SQ + 64, { 0: 1, 6: SQ, 10: ((ENTRIES - 1) << 16) | 1, 11: 0x1_0001 });
  write(0, 0x1000, 2);
  while (device.work());
  const blocks = form.pages * 8;
  for (let index = 0; index < ENTRIES; index += 1) {
    const at = DATA + (index % 64) * form.pages * 4096;
    const list = LISTS + (index % 64) * 4096;
    const prp2 = form.pages === 2 ? at + 4096 : form.pages > 2 ? list : 0;
    for (let page = 1; page < form.pages; page += 1)
      memory.writeU32(list + 8 * (page - 1), at + page * 4096);
    const block = (index * blocks * 7) % (STORE_BYTES / 512 - blocks);
    entry(SQ + 64 * index, {
      0: 2 | (index << 16),
      1: 1,
      6: at,
      8: prp2,
      10: block,
      12: blocks - 1,
    });
  }
  return { device, memory };
}

function reads(form: Form, scale: number): { units: number; round: () => number } {
  const { device, memory } = startedDevice(form);
  const scratch = newView(8);
  const ring = (offset: number, value: number): void => {
    scratch.u32[0] = value;
    device.write(0, offset, scratch, 0, 4);
  };
  const units = Math.max(1, Math.floor((form.pages > 1 ? 20 : 200) * scale)) * ENTRIES;
  let tail = 0;
  const round = (): number => {
    let hash = 0;
    for (let done = 0; done < units; done += form.depth) {
      tail = (tail + form.depth) % ENTRIES;
      ring(0x1008, tail);
      while (device.work());
      const last = (tail + ENTRIES - 1) % ENTRIES;
      hash = (hash * 31 + (memory.readU32(CQ + 16 * last + 12) & 0xfffe_ffff)) | 0;
      ring(0x100c, tail);
    }
    return hash;
  };
  return { units, round };
}

const base: Form = { pages: 1, depth: 16, isBacked: true };

export const benchmarks: readonly Benchmark[] = [
  {
    name: "nvme 4K read, 16 deep, backed memory",
    unit: "command",
    target: { perSecond: 500_000 },
    prepare: (scale) => reads(base, scale),
  },
  {
    name: "nvme 4K read, one at a time, backed memory",
    unit: "command",
    target: { perSecond: 400_000 },
    prepare: (scale) => reads({ ...base, depth: 1 }, scale),
  },
  {
    name: "nvme 4K read, 16 deep, sparse memory",
    unit: "command",
    prepare: (scale) => reads({ ...base, isBacked: false }, scale),
  },
  {
    name: "nvme 64K read by PRP list, 16 deep, backed memory",
    unit: "command",
    prepare: (scale) => reads({ ...base, pages: 16 }, scale),
  },
];
