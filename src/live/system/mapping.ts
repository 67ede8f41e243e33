/**
 * Memory of this process that system calls may be given: mappings, and where they lie.
 */
import type { MemoryView } from "../../memory/memory-view.ts";

/** Largest mapping: a larger view aborts the process above 4 GiB, and windows suffice. */
export const MAP_BYTES_MAX: number = 2 ** 30;

/** Bytes of this process's memory. */
export interface Mapping {
  readonly buffer: ArrayBuffer;
  /** Where in `buffer` the mapping begins. */
  readonly byteOffset: number;
  /** The whole mapping. */
  readonly view: MemoryView;
  readonly address: number;
  readonly bytes: number;
}

/** Where memory for calls comes from. */
export interface CallMemory {
  /** Zeroed memory of this process alone. */
  allocate(bytes: number, owner: string): Mapping;
  /**
   * Takes the memory away. Views of it stay harmless: on Linux they show zeros from now on, and
   * stores reach nobody; the address range itself goes when the last view has been collected.
   */
  unmap(mapping: Mapping): void;
  /** Address of the first byte of a buffer, which must stay reachable while calls use it. */
  addressOf(buffer: ArrayBufferLike): number;
}
