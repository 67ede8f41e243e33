/**
 * A region, or pages of one, that the client maps: the guest rings doorbells by storing to memory,
 * and nobody is told. Whoever serves the function looks.
 *
 * Each doorbell rests at all ones, a value that no driver writes. Looking exchanges what is there
 * for all ones in one step, so that no store between looking and resting is lost.
 */
import { assert } from "../../errors.ts";
import { type MemoryView, newView } from "../../memory/memory-view.ts";
import type { PciFunction } from "../../pci/function.ts";
import type { System } from "../system/system.ts";

/** Doorbells side by side. */
export interface DoorbellSlots {
  /** Offset of the first in the region, a multiple of the width. */
  readonly first: number;
  /** From one to the next, in bytes. */
  readonly stride: number;
  /** Bytes that the driver stores: virtio's queue numbers have 2, NVMe's positions 4. */
  readonly width: 2 | 4;
  readonly count: number;
}

/** Pages of a region that can be mapped. */
export interface MappableArea {
  readonly offset: number;
  readonly bytes: number;
}

/** What a client is told. */
export interface MappableRegion {
  readonly index: number;
  /** A file as large as the region. */
  readonly fd: number;
  /** Left out when all of it can be mapped. */
  readonly areas?: readonly MappableArea[];
}

/** What a doorbell region is made of. */
export interface DoorbellOptions extends MappableRegion {
  readonly slots: DoorbellSlots;
}

/** A region of doorbells in memory that is shared with the client. */
export class DoorbellRegion implements MappableRegion {
  readonly index: number;
  readonly fd: number;
  readonly areas?: readonly MappableArea[];
  /** Doorbells found rung. */
  rings = 0;
  readonly #slots: DoorbellSlots;
  readonly #words: Uint16Array | Uint32Array;
  readonly #value = newView(8);

  /**
   * @param buffer - the file in memory
   * @param byteOffset - where it begins there
   */
  constructor(options: DoorbellOptions, buffer: ArrayBufferLike, byteOffset = 0) {
    const { index, fd, slots, areas } = options;
    assert(slots.first % slots.width === 0, "doorbells are aligned");
    assert(slots.stride % slots.width === 0, "doorbells stay aligned");
    this.index = index;
    this.fd = fd;
    if (areas !== undefined) this.areas = areas;
    this.#slots = slots;
    const end = (slots.first + slots.stride * slots.count) / slots.width;
    this.#words =
      slots.width === 2
        ? new Uint16Array(buffer, byteOffset, end)
        : new Uint32Array(buffer, byteOffset, end);
    this.reset();
  }

  /** All doorbells rest. */
  reset(): void {
    const { first, stride, width, count } = this.#slots;
    for (let slot = 0; slot < count; slot += 1) {
      Atomics.store(this.#words, (first + slot * stride) / width, -1);
    }
  }

  /** Passes on what was rung since the last look. @returns whether anything was */
  poll(pci: PciFunction): boolean {
    const { first, stride, width, count } = this.#slots;
    const words = this.#words;
    const resting = width === 2 ? 0xffff : 0xffff_ffff;
    const value: MemoryView = this.#value;
    let isRung = false;
    for (let slot = 0; slot < count; slot += 1) {
      const offset = first + slot * stride;
      const at = offset / width;
      if (Atomics.load(words, at) === resting) continue;
      const rung = Atomics.exchange(words, at, -1);
      if (rung === resting) continue;
      value.u32[0] = rung;
      pci.write(this.index, offset, value, 0, width);
      this.rings += 1;
      isRung = true;
    }
    return isRung;
  }
}

/** What {@link createDoorbells} makes. */
export interface OwnedDoorbells {
  readonly region: DoorbellRegion;
  /** Gives the memory back, and the file unless it was given. */
  dispose(): void;
}

/**
 * Makes a doorbell region.
 *
 * @param options.bytes - of the region, whole pages
 * @param options.fd - a file of that size which somebody else keeps, so that a successor finds the
 *   page that the client has mapped; one of its own without it
 * @returns the region, or a negative error number
 */
export function createDoorbells(
  system: System,
  options: Omit<DoorbellOptions, "fd"> & {
    readonly bytes: number;
    readonly owner: string;
    readonly fd?: number;
  },
): OwnedDoorbells | number {
  const { bytes, owner } = options;
  const fd = options.fd ?? system.createMemoryFile(owner, bytes, owner);
  if (fd < 0) return fd;
  const closeOwn = () => {
    if (options.fd === undefined) system.close(fd);
  };
  const mapping = system.map({ fd, offset: 0, bytes, access: "shared" }, owner);
  if (typeof mapping === "number") {
    closeOwn();
    return mapping;
  }
  const region = new DoorbellRegion({ ...options, fd }, mapping.buffer, mapping.byteOffset);
  return {
    region,
    dispose() {
      system.unmap(mapping);
      closeOwn();
    },
  };
}
