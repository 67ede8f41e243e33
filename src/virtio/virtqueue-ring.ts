/**
 * The three parts of a split virtqueue as typed arrays, for either side. The parts are looked up
 * again when memory changes; while one of them is unmapped the ring is unusable, not lost.
 *
 * In guest memory each part is one array. Behind an IOMMU pages that follow each other need not be
 * neighbours in memory: there each page is found by its own view.
 *
 * Indexes are loaded and stored as single 16-bit accesses; in shared memory they are atomic, which
 * orders them against the entries and gives the full barrier that notification needs.
 * Speed: bench/virtqueue.bench.ts.
 */
import type { DeviceMemory } from "../memory/device-memory.ts";
import { type MemoryView, newView } from "../memory/memory-view.ts";
import { descriptorBytes, deviceBytes, driverBytes, type QueueAreas } from "./virtqueue-layout.ts";
import { RingPages } from "./virtqueue-pages.ts";

const nothing = newView(8);

/** A split ring in memory. Positions count freely, 0 … 65535; a slot is position modulo size. */
export class SplitRing {
  readonly memory: DeviceMemory;
  readonly areas: QueueAreas;
  readonly size: number;
  /** Whether the parts are found page by page. */
  readonly isPaged: boolean;
  /** Descriptor table; where it is paged, the page that {@link descriptorAt} found last. */
  table = nothing.u32;
  /** Entry i starts at `table[tableAt + 4 * i]` unless the ring is paged. */
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
  readonly #tablePages = new RingPages();
  readonly #driverPages = new RingPages();
  readonly #devicePages = new RingPages();
  #generation = -1;
  /** Generation at which a part could not be found: asking again needs another one. */
  #failedAt = -1;
  #isShared = false;

  constructor(memory: DeviceMemory, areas: QueueAreas) {
    this.memory = memory;
    this.areas = areas;
    this.size = areas.size;
    this.isPaged = memory.isTranslated;
    this.#mask = areas.size - 1;
  }

  /** Whether all parts can be accessed now. Call before each use of the arrays. */
  isUsable(): boolean {
    const generation = this.memory.generation;
    if (generation === this.#generation) return true;
    if (generation === this.#failedAt) return false;
    if (this.isPaged ? this.#lookUpPages() : this.#lookUp()) return true;
    this.#failedAt = this.memory.generation;
    return false;
  }

  /** Index in {@link table} of a descriptor's first word; {@link table} is another array then. */
  descriptorAt(index: number): number {
    if (!this.isPaged) return this.tableAt + 4 * index;
    const pages = this.#tablePages;
    pages.seek(16 * index);
    this.table = pages.view.u32;
    return pages.at >> 2;
  }

  /** The driver's position: available.idx. */
  availableIndex(): number {
    return this.#loadDriver(1);
  }

  storeAvailableIndex(position: number): void {
    this.#storeDriver(1, position);
  }

  /** The head in the slot of a position. */
  availableEntry(position: number): number {
    const field = 2 + (position & this.#mask);
    if (this.isPaged) return this.#driverPages.load(2 * field);
    return this.driver[this.driverAt + field]!;
  }

  storeAvailableEntry(position: number, head: number): void {
    const field = 2 + (position & this.#mask);
    if (this.isPaged) this.#driverPages.store(2 * field, head);
    else this.driver[this.driverAt + field] = head;
  }

  /** The device's position: used.idx. */
  usedIndex(): number {
    return this.#loadDevice(1);
  }

  storeUsedIndex(position: number): void {
    this.#storeDevice(1, position);
  }

  /** The id in a position's used entry. */
  usedId(position: number): number {
    const slot = position & this.#mask;
    if (this.isPaged) return this.#devicePages.word(4 + 8 * slot);
    return this.used[this.usedAt + 2 * slot]!;
  }

  /** The length in a position's used entry. */
  usedLength(position: number): number {
    const slot = position & this.#mask;
    if (this.isPaged) return this.#devicePages.word(8 + 8 * slot);
    return this.used[this.usedAt + 2 * slot + 1]!;
  }

  storeUsedEntry(position: number, head: number, length: number): void {
    const slot = position & this.#mask;
    if (this.isPaged) {
      // The two words may lie in two pages: the area is aligned to 4 bytes only.
      this.#devicePages.storeWord(4 + 8 * slot, head);
      this.#devicePages.storeWord(8 + 8 * slot, length);
      return;
    }
    const at = this.usedAt + 2 * slot;
    this.used[at] = head;
    this.used[at + 1] = length;
  }

  driverFlags(): number {
    return this.#loadDriver(0);
  }

  storeDriverFlags(flags: number): void {
    this.#storeDriver(0, flags);
  }

  deviceFlags(): number {
    return this.#loadDevice(0);
  }

  storeDeviceFlags(flags: number): void {
    this.#storeDevice(0, flags);
  }

  /** The driver area's last field: after which used entry the driver wants an interrupt. */
  usedEvent(): number {
    return this.#loadDriver(2 + this.size);
  }

  storeUsedEvent(position: number): void {
    this.#storeDriver(2 + this.size, position);
  }

  /** The device area's last field: after which available entry the device wants a notification. */
  availableEvent(): number {
    return this.#loadDevice(2 + 4 * this.size);
  }

  storeAvailableEvent(position: number): void {
    this.#storeDevice(2 + 4 * this.size, position);
  }

  /** @param field - counts 16-bit fields from the start of the area, as in the three below */
  #loadDriver(field: number): number {
    if (this.isPaged) return this.#driverPages.load(2 * field);
    const at = this.driverAt + field;
    return this.#isShared ? Atomics.load(this.driver, at) : this.driver[at]!;
  }

  #storeDriver(field: number, value: number): void {
    const at = this.driverAt + field;
    if (this.isPaged) this.#driverPages.store(2 * field, value);
    else if (this.#isShared) Atomics.store(this.driver, at, value);
    else this.driver[at] = value;
  }

  #loadDevice(field: number): number {
    if (this.isPaged) return this.#devicePages.load(2 * field);
    const at = this.deviceAt + field;
    return this.#isShared ? Atomics.load(this.device, at) : this.device[at]!;
  }

  #storeDevice(field: number, value: number): void {
    const at = this.deviceAt + field;
    if (this.isPaged) this.#devicePages.store(2 * field, value);
    else if (this.#isShared) Atomics.store(this.device, at, value);
    else this.device[at] = value;
  }

  #lookUp(): boolean {
    const { memory, areas, size } = this;
    this.#generation = -1;
    // Making one part contiguous can move another that shares a chunk with it: then look again.
    for (let round = 0; round < 4; round += 1) {
      const generation = memory.generation;
      const table = memory.window(areas.descriptor, descriptorBytes(size), true);
      if (table === null) return false;
      this.table = table.u32;
      this.tableAt = memory.at >> 2;
      const driver = memory.window(areas.driver, driverBytes(size), true);
      if (driver === null) return false;
      this.driver = driver.u16;
      this.driverAt = memory.at >> 1;
      const device = memory.window(areas.device, deviceBytes(size), true);
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

  /** Finds each part's pages. [P] Only the device area must be writable (V144). */
  #lookUpPages(): boolean {
    const { memory, areas, size } = this;
    this.#generation = -1;
    for (let round = 0; round < 4; round += 1) {
      const generation = memory.generation;
      const isFound =
        this.#tablePages.lookUp(memory, areas.descriptor, descriptorBytes(size), false) &&
        this.#driverPages.lookUp(memory, areas.driver, driverBytes(size), false) &&
        this.#devicePages.lookUp(memory, areas.device, deviceBytes(size), true);
      if (!isFound) return false;
      if (generation !== memory.generation) continue;
      this.#generation = generation;
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
