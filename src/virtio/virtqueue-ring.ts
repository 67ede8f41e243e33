/**
 * The three parts of a split virtqueue as typed arrays, for either side. The parts are looked up
 * again when memory changes; while one of them is unmapped the ring is unusable, not lost.
 *
 * Indexes are loaded and stored as single 16-bit accesses; in shared memory they are atomic, which
 * orders them against the entries and gives the full barrier that notification needs.
 */
import type { GuestMemory } from "../memory/guest-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { descriptorBytes, deviceBytes, driverBytes, type QueueAreas } from "./virtqueue-layout.ts";

const nothing = newView(8);

/** A split ring in memory. Positions count freely, 0 … 65535; a slot is position modulo size. */
export class SplitRing {
  readonly memory: GuestMemory;
  readonly areas: QueueAreas;
  readonly size: number;
  /** Descriptor table; entry i starts at `table[tableAt + 4 * i]`. */
  table = nothing.u32;
  tableAt = 0;
  /** Driver area by 16 bits; flags at `driverAt`. */
  driver = nothing.u16;
  driverAt = 0;
  /** Used ring by 32 bits; entry i at `used[usedAt + 2 * i]`. */
  used = nothing.u32;
  usedAt = 0;
  /** Device area by 16 bits; flags at `deviceAt`. */
  device = nothing.u16;
  deviceAt = 0;
  readonly #mask: number;
  #generation = -1;
  #isShared = false;

  constructor(memory: GuestMemory, areas: QueueAreas) {
    this.memory = memory;
    this.areas = areas;
    this.size = areas.size;
    this.#mask = areas.size - 1;
  }

  /** Whether all parts can be accessed now. Call before each use of the arrays. */
  isUsable(): boolean {
    return this.memory.generation === this.#generation || this.#lookUp();
  }

  /** The driver's position: available.idx. */
  availableIndex(): number {
    const at = this.driverAt + 1;
    return this.#isShared ? Atomics.load(this.driver, at) : this.driver[at]!;
  }

  storeAvailableIndex(position: number): void {
    const at = this.driverAt + 1;
    if (this.#isShared) Atomics.store(this.driver, at, position);
    else this.driver[at] = position;
  }

  /** The head in the slot of a position. */
  availableEntry(position: number): number {
    return this.driver[this.driverAt + 2 + (position & this.#mask)]!;
  }

  storeAvailableEntry(position: number, head: number): void {
    this.driver[this.driverAt + 2 + (position & this.#mask)] = head;
  }

  /** The device's position: used.idx. */
  usedIndex(): number {
    const at = this.deviceAt + 1;
    return this.#isShared ? Atomics.load(this.device, at) : this.device[at]!;
  }

  storeUsedIndex(position: number): void {
    const at = this.deviceAt + 1;
    if (this.#isShared) Atomics.store(this.device, at, position);
    else this.device[at] = position;
  }

  /** Index of a position's entry in {@link used}: the id, then the length. */
  usedEntryAt(position: number): number {
    return this.usedAt + 2 * (position & this.#mask);
  }

  driverFlags(): number {
    return this.#isShared ? Atomics.load(this.driver, this.driverAt) : this.driver[this.driverAt]!;
  }

  storeDriverFlags(flags: number): void {
    if (this.#isShared) Atomics.store(this.driver, this.driverAt, flags);
    else this.driver[this.driverAt] = flags;
  }

  deviceFlags(): number {
    return this.#isShared ? Atomics.load(this.device, this.deviceAt) : this.device[this.deviceAt]!;
  }

  storeDeviceFlags(flags: number): void {
    if (this.#isShared) Atomics.store(this.device, this.deviceAt, flags);
    else this.device[this.deviceAt] = flags;
  }

  /** The driver area's last field: after which used entry the driver wants an interrupt. */
  usedEvent(): number {
    const at = this.driverAt + 2 + this.size;
    return this.#isShared ? Atomics.load(this.driver, at) : this.driver[at]!;
  }

  storeUsedEvent(position: number): void {
    const at = this.driverAt + 2 + this.size;
    if (this.#isShared) Atomics.store(this.driver, at, position);
    else this.driver[at] = position;
  }

  /** The device area's last field: after which available entry the device wants a notification. */
  availableEvent(): number {
    const at = this.deviceAt + 2 + 4 * this.size;
    return this.#isShared ? Atomics.load(this.device, at) : this.device[at]!;
  }

  storeAvailableEvent(position: number): void {
    const at = this.deviceAt + 2 + 4 * this.size;
    if (this.#isShared) Atomics.store(this.device, at, position);
    else this.device[at] = position;
  }

  #lookUp(): boolean {
    const { memory, areas, size } = this;
    this.#generation = -1;
    // Making one part contiguous can move another that shares a chunk with it: then look again.
    for (let round = 0; round < 4; round += 1) {
      const generation = memory.generation;
      const table = memory.window(areas.descriptor, descriptorBytes(size));
      if (table === null) return false;
      this.table = table.u32;
      this.tableAt = memory.at >> 2;
      const driver = memory.window(areas.driver, driverBytes(size));
      if (driver === null) return false;
      this.driver = driver.u16;
      this.driverAt = memory.at >> 1;
      const device = memory.window(areas.device, deviceBytes(size));
      if (device === null) return false;
      this.#useDevice(device, memory.at);
      if (generation !== memory.generation) continue;
      this.#generation = generation;
      this.#isShared = [areas.descriptor, areas.driver, areas.device].some((address) =>
        memory.isShared(address),
      );
      return true;
    }
    return false;
  }

  #useDevice(view: MemoryView, at: number): void {
    this.device = view.u16;
    this.deviceAt = at >> 1;
    this.used = view.u32;
    this.usedAt = (at >> 2) + 1;
  }
}
