/**
 * An NVMe controller whose state outlives its process: positions and unfinished commands are words
 * of the journal, the rest is what the controller gave last.
 *
 * A server saves its function with its own state. What is saved must not hold a copy of the words:
 * a successor would take that for newer than the words themselves.
 */

import type { BlockStore } from "../../block/block-store.ts";
import type { DeviceMemory } from "../../memory/device-memory.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import { NvmeFunction } from "../../nvme/function.ts";
import type { InterruptSink, PciFunction, PciRegion } from "../../pci/function.ts";

/** What a controller is made of. */
export interface KeptNvmeParts {
  readonly memory: DeviceMemory;
  readonly store: BlockStore;
  readonly interrupts: InterruptSink;
  readonly queues: number;
  /** Words of the journal, zero at first. */
  readonly words: Uint32Array;
}

/** The function. */
export class KeptNvme implements PciFunction {
  readonly regions: readonly PciRegion[];
  readonly vectors: number;
  /** Writes the state down; whoever serves the function sets it. */
  keep: () => void = () => {};
  readonly #function: NvmeFunction;
  #kept: unknown = null;

  constructor(parts: KeptNvmeParts) {
    const keep = (state: unknown) => {
      this.#kept = state;
      this.keep();
    };
    this.#function = new NvmeFunction({ ...parts, journal: { words: parts.words, keep } });
    this.regions = this.#function.regions;
    this.vectors = this.#function.vectors;
  }

  get revision(): number {
    return this.#function.revision;
  }

  read(region: number, offset: number, target: MemoryView, at: number, count: number): boolean {
    return this.#function.read(region, offset, target, at, count);
  }

  write(region: number, offset: number, source: MemoryView, at: number, count: number): boolean {
    return this.#function.write(region, offset, source, at, count);
  }

  work(): boolean {
    return this.#function.work();
  }

  reset(): void {
    this.#function.reset();
  }

  save(): unknown {
    return this.#kept ?? this.#function.save();
  }

  restore(state: unknown): void {
    this.#function.restore(state);
  }
}
