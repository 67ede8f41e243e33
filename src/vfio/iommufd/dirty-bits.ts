/**
 * A dirty bitmap in the memory of a process: a bit for each page, counted from bit 0 of byte 0.
 *
 * Source: drivers/iommu/iommufd/iova_bitmap.c:iova_bitmap_set (bits are added to those there).
 */
import type { UserMemory } from "../uapi/user-memory.ts";

const CHUNK_BYTES = 4096;

/**
 * Whether a process has all of a bitmap, so that nothing is made clean that cannot be told.
 *
 * @param length - bytes of IOVAs
 * @param pageSize - bytes that a bit stands for
 */
export function probeBitmap(
  memory: UserMemory,
  address: bigint,
  length: bigint,
  pageSize: bigint,
): boolean {
  const bits = (length + pageSize - 1n) / pageSize;
  const end = address + (bits + 7n) / 8n;
  const chunk = new Uint8Array(CHUNK_BYTES);
  // It ends at the first page that is not there, so memory bounds it.
  for (let at = address; at < end; at += BigInt(CHUNK_BYTES)) {
    const rest = end - at;
    const bytes = rest < BigInt(CHUNK_BYTES) ? chunk.subarray(0, Number(rest)) : chunk;
    if (!memory.read(at, bytes)) return false;
  }
  return true;
}

/** Sets bits. @returns false when they cannot be written */
export function markDirtyBits(
  memory: UserMemory,
  address: bigint,
  first: bigint,
  count: bigint,
): boolean {
  let bit = first;
  const end = first + count;
  while (bit < end) {
    const at = address + (bit >> 3n);
    const inByte = Number(bit & 7n);
    const bits = Math.min(Number(end - bit), CHUNK_BYTES * 8 - inByte);
    const bytes = new Uint8Array(Math.ceil((inByte + bits) / 8));
    if (!memory.read(at, bytes)) return false;
    for (let index = inByte; index < inByte + bits; index += 1) {
      bytes[index >> 3]! |= 1 << (index & 7);
    }
    if (!memory.write(at, bytes)) return false;
    bit += BigInt(bits);
  }
  return true;
}
