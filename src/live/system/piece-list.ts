/**
 * A list of pieces of memory as `struct iovec`: what one read or write of a file fills or takes.
 * Source: preadv(2).
 */
import { assert } from "../../errors.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import type { CallMemory, Mapping } from "./mapping.ts";

const TWO_32 = 2 ** 32;
const PIECE_BYTES = 16;
/** Most pieces of one call (IOV_MAX). */
export const PIECES_MAX = 1024;

/** Pieces for one call at a time; reused. */
export class PieceList {
  readonly address: number;
  count = 0;
  /** Sum of the pieces. */
  bytes = 0;
  readonly #system: CallMemory;
  readonly #memory: Mapping;
  /** Keeps what the addresses point at reachable until the list is cleared. */
  readonly #held: ArrayBufferLike[] = [];

  constructor(system: CallMemory, owner: string) {
    this.#system = system;
    this.#memory = system.allocate(PIECES_MAX * PIECE_BYTES, owner);
    this.address = this.#memory.address;
  }

  clear(): void {
    this.count = 0;
    this.bytes = 0;
    this.#held.length = 0;
  }

  /** Adds bytes of a view. @returns false when the list is full */
  add(view: MemoryView, at: number, bytes: number): boolean {
    assert(at >= 0 && at + bytes <= view.u8.length, "a piece lies within its view");
    const { buffer } = view.u8;
    const held = this.#held;
    if (held[held.length - 1] !== buffer) held.push(buffer);
    return this.addAddress(this.#system.addressOf(buffer) + view.u8.byteOffset + at, bytes);
  }

  /** As {@link add}, for memory that the caller keeps alive. */
  addAddress(address: number, bytes: number): boolean {
    if (this.count === PIECES_MAX) return false;
    const { u32 } = this.#memory.view;
    const word = this.count * (PIECE_BYTES >> 2);
    u32[word] = address >>> 0;
    u32[word + 1] = Math.floor(address / TWO_32);
    u32[word + 2] = bytes;
    u32[word + 3] = 0;
    this.count += 1;
    this.bytes += bytes;
    return true;
  }

  pieceAddress(index: number): number {
    const { u32 } = this.#memory.view;
    return u32[index * 4]! + u32[index * 4 + 1]! * TWO_32;
  }

  pieceBytes(index: number): number {
    return this.#memory.view.u32[index * 4 + 2]!;
  }

  /** Takes `bytes` away from the front: what a short call has done already. */
  advance(bytes: number): void {
    assert(bytes <= this.bytes, "no more is done than was asked for");
    let left = bytes;
    let first = 0;
    while (first < this.count && left >= this.pieceBytes(first)) {
      left -= this.pieceBytes(first);
      first += 1;
    }
    const total = this.bytes - bytes;
    const rest = Array.from({ length: this.count - first }, (_, index) => [
      this.pieceAddress(first + index) + (index === 0 ? left : 0),
      this.pieceBytes(first + index) - (index === 0 ? left : 0),
    ]);
    this.count = 0;
    for (const [address, length] of rest) this.addAddress(address!, length!);
    this.bytes = total;
  }

  dispose(): void {
    this.clear();
    this.#system.unmap(this.#memory);
  }
}
