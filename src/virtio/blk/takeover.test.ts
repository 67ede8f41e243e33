/** Devices that another process goes on with: hand-over at every step, and after a crash. */
import { describe, expect, it } from "vitest";
import { MemoryStore } from "../../block/memory-store.ts";
import { newView } from "../../memory/memory-view.ts";
import { Random } from "../../random.ts";
import type { RequestLog } from "../iommu/device-queue.ts";
import { DATA, Hardware, Machine, type MachineOptions, sharedMemory } from "./machine.suite.ts";
import { BlockStatus, BlockType } from "./protocol.ts";

const PAGE = 4096;

/** A log in memory. */
class ListLog implements RequestLog {
  records: Uint32Array<ArrayBuffer>[] = [];
  capacity = Number.POSITIVE_INFINITY;

  append(view: { u32: Uint32Array }, at: number, bytes: number): boolean {
    if (this.records.length >= this.capacity) return false;
    this.records.push(view.u32.slice(at >> 2, (at + bytes) >> 2) as Uint32Array<ArrayBuffer>);
    return true;
  }

  replay(take: Parameters<RequestLog["replay"]>[0]): void {
    for (const record of this.records) {
      const view = newView(record.byteLength);
      view.u32.set(record);
      take(view, 0, record.byteLength);
    }
  }
}

const saved = (value: unknown): unknown => JSON.parse(JSON.stringify(value));

/** Devices built anew from what the old ones saved. */
function takeOver(machine: Machine, options: MachineOptions): void {
  const { hardware } = machine;
  const states = [saved(hardware.iommuPci.save()), saved(hardware.diskPci.save())];
  const next = new Hardware(options, { memory: hardware.memory, store: hardware.store });
  machine.replace(next);
  next.iommuPci.restore(states[0]);
  next.diskPci.restore(states[1]);
}

/** What a run gave: statuses in order, then a hash of guest data. */
function randomRun(options: MachineOptions, seed: number, between: (machine: Machine) => void) {
  const machine = new Machine(options);
  const { guest } = machine;
  const random = new Random(seed);
  const results: string[] = [];
  guest.transport.isEager = false;
  for (let step = 0; step < 60; step += 1) {
    const count = 1 + random.below(4);
    for (let index = 0; index < count; index += 1) {
      const slot = random.below(64);
      const buffer = { address: DATA + slot * 4 * PAGE, bytes: 512 * (1 + random.below(16)) };
      const sector = random.below(4096);
      const kind = [BlockType.IN, BlockType.OUT, BlockType.FLUSH, BlockType.GET_ID][
        random.below(4)
      ]!;
      const hasData = kind !== BlockType.FLUSH;
      const name = `${step}.${index}`;
      guest.memory.writeU32(buffer.address, step * 1000 + index);
      guest.add(kind, sector, hasData ? [buffer] : [], kind === BlockType.OUT, (status, used) =>
        results.push(`${name} ${status} ${used}`),
      );
    }
    guest.kick();
    between(machine);
    if (random.chance(1, 2)) machine.hardware.diskPci.work();
    between(machine);
    machine.hardware.work();
    guest.reap();
  }
  const view = guest.memory.window(DATA, 64 * 4 * PAGE)!;
  const at = guest.memory.at;
  let hash = 0;
  for (const byte of view.u8.subarray(at, at + 64 * 4 * PAGE)) hash = (hash * 31 + byte) | 0;
  return { results, hash, broken: guest.queue.fault };
}

describe.each(["none", "identity", "strict", "lazy"] as const)("in mode %s", (mode) => {
  it("a hand-over at every step changes nothing that a guest sees", () => {
    for (let seed = 1; seed <= 3; seed += 1) {
      const options = { mode };
      const plain = randomRun(options, seed, () => {});
      const handed = randomRun(options, seed, (machine) => takeOver(machine, options));
      expect(plain.results.length).toBeGreaterThan(60);
      expect(handed).toEqual(plain);
    }
  });
});

describe("a crash", () => {
  it.each([Number.POSITIVE_INFINITY, 20])("loses and repeats no request, log of %d", (capacity) => {
    const options: MachineOptions = { mode: "strict" };
    const memory = sharedMemory();
    const store = new MemoryStore({ bytes: 2 ** 30 });
    const log = new ListLog();
    log.capacity = capacity;
    const machine = new Machine(options, { memory, store, log });
    const { guest } = machine;
    const random = new Random(41);
    let kept: unknown[] = [];
    let revision = -1;
    /** What whoever keeps the journal does after each turn. */
    const keep = (): void => {
      const { iommuPci, diskPci } = machine.hardware;
      if (iommuPci.revision + diskPci.revision === revision) return;
      revision = iommuPci.revision + diskPci.revision;
      kept = [saved(iommuPci.save()), saved(diskPci.save())];
      log.records = [];
    };
    const crash = (): void => {
      const next = new Hardware(options, { memory, store, log });
      machine.replace(next);
      next.iommuPci.restore(kept[0]);
      next.diskPci.restore(kept[1]);
      revision = -1;
    };
    // The journal is kept while the devices work, as the worker does it after every turn.
    const { iommuTransport } = machine;
    iommuTransport!.wait = () => {
      for (let more = true; more; keep()) more = machine.hardware.iommuPci.work();
      return true;
    };
    guest.transport.isEager = false;
    keep();
    let done = 0;
    let added = 0;
    const expected = new Map<number, number>();
    for (let step = 0; step < 200; step += 1) {
      const page = random.below(32);
      const address = DATA + page * PAGE;
      memory.writeU32(address, step + 1);
      guest.add(BlockType.OUT, page * 8, [{ address, bytes: PAGE }], true, (status) => {
        expect(status).toBe(BlockStatus.OK);
        done += 1;
      });
      added += 1;
      expected.set(page, step + 1);
      guest.kick();
      if (random.chance(1, 2)) machine.hardware.diskPci.work();
      if (random.chance(1, 2)) crash();
      machine.hardware.work();
      guest.reap();
      expect(done).toBe(added);
    }
    expect(guest.queue.fault).toBe(null);
    for (const [page, value] of expected) {
      const buffer = { address: DATA + 64 * PAGE, bytes: PAGE };
      guest.add(BlockType.IN, page * 8, [buffer], false, () => {});
      guest.kick();
      machine.hardware.work();
      guest.reap();
      expect(memory.readU32(buffer.address)).toBe(value);
    }
    const live = machine.hardware.iommu.mappingCount;
    expect(live).toBeLessThan(10);
  });
});

it("a state that does not fit is refused with a reason, whatever is wrong with it", () => {
  const { hardware } = new Machine({ mode: "strict" });
  const states = [hardware.iommuPci.save(), hardware.diskPci.save()].map(saved);
  const damage = (value: unknown, random: Random): unknown => {
    if (Array.isArray(value)) {
      if (value.length === 0 || random.chance(1, 8)) return random.chance(1, 2) ? "x" : [{}];
      const copy = [...value];
      const at = random.below(copy.length);
      copy[at] = damage(copy[at], random);
      return copy;
    }
    if (typeof value === "object" && value !== null) {
      const entries = Object.entries(value);
      if (random.chance(1, 16)) return null;
      const at = random.below(entries.length);
      entries[at]![1] = damage(entries[at]![1], random);
      return Object.fromEntries(entries);
    }
    return [-1, 1.5, 2 ** 60, "text", null, true, Number.NaN][random.below(7)];
  };
  const random = new Random(5);
  let refused = 0;
  for (let round = 0; round < 400; round += 1) {
    const fresh = new Hardware({ mode: "strict" }, { memory: hardware.memory });
    try {
      fresh.iommuPci.restore(damage(states[0], random));
      fresh.diskPci.restore(damage(states[1], random));
      fresh.work();
    } catch (error) {
      expect(error).toMatchObject({ code: "pci/state" });
      refused += 1;
    }
  }
  expect(refused).toBeGreaterThan(200);
});
