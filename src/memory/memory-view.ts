/**
 * A stretch of bytes seen in units of 1, 2 and 4 bytes at once, little endian as every structure of
 * virtio, ACPI and vfio-user is: what hot paths read and write instead of a DataView.
 */
import { assert } from "../errors.ts";

/** One stretch of bytes; the three arrays start at the same byte. */
export interface MemoryView {
  readonly u8: Uint8Array;
  readonly u16: Uint16Array;
  readonly u32: Uint32Array;
}

const isLittleEndian = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
assert(isLittleEndian, "this stack runs on little-endian machines");

/**
 * The view of a window of a buffer. Bytes past the last multiple of 4 show in `u8` only.
 *
 * @param byteOffset - a multiple of 4
 */
export function viewOf(buffer: ArrayBufferLike, byteOffset: number, bytes: number): MemoryView {
  return {
    u8: new Uint8Array(buffer, byteOffset, bytes),
    u16: new Uint16Array(buffer, byteOffset, bytes >> 1),
    u32: new Uint32Array(buffer, byteOffset, bytes >> 2),
  };
}

/** A view of fresh zero bytes. */
export function newView(bytes: number): MemoryView {
  return viewOf(new ArrayBuffer((bytes + 7) & ~7), 0, bytes);
}

/** Copies between two views: by words where both sides are aligned, and short copies by bytes. */
export function copyBetween(
  source: MemoryView,
  sourceAt: number,
  target: MemoryView,
  targetAt: number,
  length: number,
): void {
  if (length > 256) {
    target.u8.set(source.u8.subarray(sourceAt, sourceAt + length), targetAt);
    return;
  }
  let done = 0;
  if (((sourceAt | targetAt) & 3) === 0) {
    const words = length >> 2;
    const sourceWord = sourceAt >> 2;
    const targetWord = targetAt >> 2;
    const from = source.u32;
    const to = target.u32;
    for (let index = 0; index < words; index += 1)
      to[targetWord + index] = from[sourceWord + index]!;
    done = words << 2;
  }
  for (; done < length; done += 1) target.u8[targetAt + done] = source.u8[sourceAt + done]!;
}
