/**
 * The address space of a simulated process: which buffer an address lies in.
 */
import { assert } from "../../errors.ts";
import { viewOf } from "../../memory/memory-view.ts";
import type { Mapping } from "./mapping.ts";

const FIRST_ADDRESS = 0x10_0000_0000;
const GAP_BYTES = 2 ** 21;

interface Area {
  readonly address: number;
  readonly bytes: number;
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
}

/** Areas of addresses, in ascending order because each new one comes last. */
export class SimulatedMemory {
  readonly #areas: Area[] = [];
  readonly #bases = new WeakMap<ArrayBufferLike, number>();
  #next = FIRST_ADDRESS;

  /** Gives a window of a buffer an address range of its own. */
  map(buffer: ArrayBuffer, byteOffset: number, bytes: number): Mapping {
    const address = this.#enter(buffer, byteOffset, bytes);
    return { buffer, byteOffset, view: viewOf(buffer, byteOffset, bytes), address, bytes };
  }

  unmap(mapping: Mapping): void {
    const index = this.#areas.findIndex((area) => area.address === mapping.address);
    assert(index >= 0, "what is unmapped was mapped");
    this.#areas.splice(index, 1);
  }

  addressOf(buffer: ArrayBufferLike): number {
    const known = this.#bases.get(buffer);
    if (known !== undefined) return known;
    const address = this.#enter(buffer, 0, buffer.byteLength);
    this.#bases.set(buffer, address);
    return address;
  }

  /** The bytes of a range, or null when it is not memory of this process. */
  bytesAt(address: number, bytes: number): Uint8Array | null {
    for (const area of this.#areas) {
      const at = address - area.address;
      if (at >= 0 && at + bytes <= area.bytes)
        return new Uint8Array(area.buffer, area.byteOffset + at, bytes);
    }
    return null;
  }

  #enter(buffer: ArrayBufferLike, byteOffset: number, bytes: number): number {
    const address = this.#next;
    this.#next += Math.ceil((bytes + 1) / GAP_BYTES) * GAP_BYTES;
    this.#areas.push({ address, bytes, buffer, byteOffset });
    return address;
  }
}
