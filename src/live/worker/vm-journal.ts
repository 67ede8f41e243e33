/**
 * The journal of a virtual machine: one memory file with a page for signs of life, the metrics, and
 * a part for each device. The supervisor makes it, workers come and go.
 */
import { assert } from "../../errors.ts";
import { MetricMemory } from "../metrics/metric-memory.ts";
import { type MetricGroup, MetricTable } from "../metrics/metric-table.ts";
import type { Mapping } from "../system/mapping.ts";
import { Seal, type System } from "../system/system.ts";
import { DEVICE_BYTES, DeviceJournal } from "./device-journal.ts";

const LIFE_BYTES = 4096;
const GRANULE = 2 ** 16;

/** The journal as one process sees it. */
export class VmJournal {
  readonly metrics: MetricMemory;
  readonly devices: ReadonlyMap<string, DeviceJournal>;
  /** How often the worker's loop has gone round; what {@link resuming} is. */
  readonly #life: Float64Array;
  readonly #system: System;
  readonly #mappings: readonly Mapping[];

  /** @param fd - a file made by {@link createJournal} for the same devices and metrics */
  constructor(
    system: System,
    fd: number,
    devices: readonly string[],
    metrics: readonly MetricGroup[],
  ) {
    this.#system = system;
    const table = new MetricTable(metrics);
    const common = commonBytes(table);
    const map = (offset: number, bytes: number) => {
      const mapping = system.map({ fd, offset, bytes, access: "shared" }, "journal");
      assert(typeof mapping !== "number", "the journal can be mapped");
      return mapping;
    };
    const first = map(0, common);
    const parts = devices.map((_, index) => map(common + index * DEVICE_BYTES, DEVICE_BYTES));
    this.#mappings = [first, ...parts];
    this.#life = new Float64Array(first.buffer, first.byteOffset, 2);
    this.metrics = new MetricMemory(table, first.buffer, first.byteOffset + LIFE_BYTES);
    this.devices = new Map(devices.map((name, index) => [name, new DeviceJournal(parts[index]!)]));
  }

  get turns(): number {
    return this.#life[0]!;
  }

  set turns(count: number) {
    this.#life[0] = count;
  }

  /** Number of the device whose client is being resumed, from 1 on; 0 for none. */
  get resuming(): number {
    return this.#life[1]!;
  }

  set resuming(device: number) {
    this.#life[1] = device;
  }

  device(name: string): DeviceJournal {
    const journal = this.devices.get(name);
    assert(journal !== undefined, `device ${name} has a journal`);
    return journal;
  }

  dispose(): void {
    for (const mapping of this.#mappings) this.#system.unmap(mapping);
  }
}

/** Makes the file. @returns a descriptor, or a negative error */
export function createJournal(
  system: System,
  deviceCount: number,
  metrics: readonly MetricGroup[],
): number {
  const bytes = commonBytes(new MetricTable(metrics)) + deviceCount * DEVICE_BYTES;
  const fd = system.createMemoryFile("iommukit-journal", bytes, "journal");
  if (fd >= 0) system.addSeals(fd, Seal.SHRINK | Seal.GROW);
  return fd;
}

function commonBytes(table: MetricTable): number {
  return Math.ceil((LIFE_BYTES + table.bytes) / GRANULE) * GRANULE;
}
