/**
 * Fuzzes a disk and the IOMMU in front of it through everything that a guest can reach: rings,
 * descriptors, headers, registers, configuration space. Nothing may throw, spin, or touch a byte
 * outside of guest memory, and a reset must bring a working disk back. Planted bugs are found.
 */
import { expect, it } from "vitest";
import { MemoryStore } from "../../block/memory-store.ts";
import type { SegmentCollector } from "../../memory/device-memory.ts";
import { GuestMemory } from "../../memory/guest-memory.ts";
import { newView, viewOf } from "../../memory/memory-view.ts";
import { CONFIG_REGION } from "../../pci/function.ts";
import { Random } from "../../random.ts";
import { DATA, Machine, type MachineOptions, MEMORY_BYTES, MEMORY_START } from "./machine.suite.ts";
import { BlockStatus, BlockType } from "./protocol.ts";

const GUARD_BYTES = 0x1_0000;
const GUARD = 0xa5;
const LIVES = 150;
/** More turns of work than any life has requests for. */
const TURNS_MAX = 20_000;
const MODES = ["none", "strict", "identity"] as const;

type PlantedBug = "memory-unchecked" | "capacity-unchecked" | "none";

/** Memory with guards around it; by a planted bug, one that lets transfers leave it. */
class GuardedMemory extends GuestMemory {
  readonly buffer = new SharedArrayBuffer(MEMORY_BYTES + 2 * GUARD_BYTES);
  readonly #isUnchecked: boolean;

  constructor(bug: PlantedBug) {
    super();
    this.#isUnchecked = bug === "memory-unchecked";
    this.guards().forEach((guard) => {
      guard.fill(GUARD);
    });
    const backing = { buffer: this.buffer, byteOffset: GUARD_BYTES };
    this.addRegion({ start: MEMORY_START, bytes: MEMORY_BYTES, backing });
  }

  guards(): Uint8Array[] {
    const end = GUARD_BYTES + MEMORY_BYTES;
    return [
      new Uint8Array(this.buffer, 0, GUARD_BYTES),
      new Uint8Array(this.buffer, end, GUARD_BYTES),
    ];
  }

  override collect(
    low: number,
    high: number,
    length: number,
    forWrite: boolean,
    into: SegmentCollector,
  ): boolean {
    const at = low - MEMORY_START + GUARD_BYTES;
    const isNear = high === 0 && at >= 0 && at + length <= this.buffer.byteLength;
    if (!this.#isUnchecked || !isNear) return super.collect(low, high, length, forWrite, into);
    into.add(viewOf(this.buffer, 0, this.buffer.byteLength), at, length);
    return true;
  }

  override contains(address: number, length: number, forWrite = false): boolean {
    const isNear =
      address >= MEMORY_START && address + length <= MEMORY_START + MEMORY_BYTES + GUARD_BYTES;
    return (this.#isUnchecked && isNear) || super.contains(address, length, forWrite);
  }
}

/** A store that is smaller than it says, by a planted bug. */
class LyingStore extends MemoryStore {
  override readonly bytes: number;
  constructor(bytes: number, said: number) {
    super({ bytes });
    this.bytes = said;
  }
  override read(...args: Parameters<MemoryStore["read"]>): void {
    if (args[0] >= 2 ** 20) throw new Error("an access past the end of the disk");
    super.read(...args);
  }
}

/** One hostile life. @returns what went wrong, or null */
function life(seed: number, bug: PlantedBug): string | null {
  const random = new Random(seed);
  const memory = new GuardedMemory(bug);
  const store = new LyingStore(2 ** 20, bug === "capacity-unchecked" ? 2 ** 21 : 2 ** 20);
  const options: MachineOptions = { mode: MODES[random.below(MODES.length)]! };
  try {
    const machine = new Machine(options, { memory, store });
    const functions = [machine.hardware.diskPci, machine.hardware.iommuPci];
    machine.guest.transport.isEager = false;
    machine.guest.transport.onInterrupt = null;
    const view = newView(64);
    for (let step = 0; step < 60; step += 1) {
      attack(machine, random, view);
      for (const pci of functions) {
        let turns = 0;
        while (pci.work()) {
          turns += 1;
          if (turns > TURNS_MAX) return "work does not end";
        }
      }
      if (random.chance(1, 10)) functions[random.below(2)]!.reset();
    }
    if (memory.guards().some((guard) => guard.some((byte) => byte !== GUARD)))
      return "a byte outside of guest memory was written";
    for (const pci of functions) pci.reset();
    const again = new Machine(options, { memory, store });
    const buffer = { address: DATA, bytes: 4096 };
    const status = again.guest.run(BlockType.IN, 0, [buffer], false);
    return status === BlockStatus.OK ? null : "no working disk after a reset";
  } catch (error) {
    return String(error);
  }
}

/** A few things that a hostile guest does. */
function attack(machine: Machine, random: Random, view: ReturnType<typeof newView>): void {
  const { guest, hardware } = machine;
  const { memory } = guest;
  if (random.chance(3, 4) && guest.queue.freeCount > 8) {
    const data = [{ address: DATA + 512 * random.below(64), bytes: 512 * random.below(9) }];
    // The last bytes of memory, and those that follow.
    if (random.chance(1, 4))
      data[0] = { address: MEMORY_START + MEMORY_BYTES - 512 * random.below(3), bytes: 1024 };
    const kind = [BlockType.IN, BlockType.OUT, BlockType.DISCARD, random.below(16)][
      random.below(4)
    ]!;
    try {
      guest.add(kind, random.below(2100), data, random.chance(1, 2), () => {});
    } catch {
      // The guest's own driver gives up where its rings are damaged.
    }
  }
  // Words of rings, tables, headers and requests of either driver.
  const count = random.below(3);
  for (let index = 0; index < count; index += 1) {
    const area = random.chance(1, 4) ? MEMORY_START : MEMORY_START + 0x10_0000;
    const at = area + 4 * random.below([0x100, 0x800, 0x8000][random.below(3)]!);
    const value = [0, 1, 2, 4, 0xffff, MEMORY_START + MEMORY_BYTES - 16, random.below(2 ** 31)][
      random.below(7)
    ]!;
    memory.writeU32(at, value);
  }
  const pci = random.chance(1, 3) ? hardware.iommuPci : hardware.diskPci;
  if (random.chance(1, 4)) {
    for (let at = 0; at < 64; at += 1) view.u8[at] = random.below(256);
    if (random.chance(1, 2)) view.u8.fill(0, 2);
    const region = [0, 0, 0, 1, CONFIG_REGION][random.below(5)]!;
    const offset = random.below(80) + (region === 0 ? 0x1000 * random.below(4) : 0);
    const bytes = [1, 2, 4, 8, 16][random.below(5)]!;
    if (random.chance(3, 4)) pci.write(region, offset, view, 0, bytes);
    else pci.read(region, offset, view, 0, bytes);
  }
  for (const queueIndex of [0, 1]) {
    view.u32[0] = queueIndex;
    pci.write(0, 0x3000 + 4 * queueIndex, view, 0, 2);
    hardware.diskPci.write(0, 0x3000 + 4 * queueIndex, view, 0, 2);
  }
}

it(`a hostile guest gets nowhere in ${LIVES} lives`, () => {
  for (let seed = 1; seed <= LIVES; seed += 1)
    expect([seed, life(seed, "none")]).toEqual([seed, null]);
});

it.each(["memory-unchecked", "capacity-unchecked"] as const)(
  "the planted bug %s is found",
  (bug) => {
    let found: string | null = null;
    for (let seed = 1; seed <= 400 && found === null; seed += 1) found = life(seed, bug);
    expect(found).not.toBe(null);
  },
);
