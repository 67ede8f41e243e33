/**
 * Dirty page tracking: VFIO_IOMMU_DIRTY_PAGES, and the bitmaps that it and UNMAP_DMA give out.
 *
 * A page counts as written when a device's driver pinned it, when dma_rw wrote it, and always when
 * some group can write anywhere.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_dirty_pages, vfio_iova_dirty_bitmap,
 * update_user_bitmap, vfio_dma_bitmap_alloc_all, vfio_dma_populate_bitmap, verify_bitmap_size.
 */
import { Errno } from "../../errno.ts";
import { PAGE_SHIFT } from "../../units.ts";
import { DirtyFlag } from "../uapi/type1.ts";
import { isUserRange, type UserMemory } from "../uapi/user-memory.ts";
import { DIRTY_PAGES_MAX, DirtyBitmap, dirtyBytes } from "./dirty-bitmap.ts";
import type { DmaMapping } from "./mapping.ts";
import type { Type1 } from "./type1.ts";

/** A user's bitmap: struct vfio_bitmap. */
export interface UserBitmap {
  /** Bytes that a bit stands for. */
  readonly pgsize: bigint;
  /** Length in bytes. */
  readonly size: bigint;
  readonly address: bigint;
}

/** Most bytes of a bitmap (DIRTY_BITMAP_SIZE_MAX). */
export const DIRTY_BYTES_MAX = dirtyBytes(DIRTY_PAGES_MAX);

/** Bits of one piece that is written to the user's bitmap. */
const PIECE_BITS = 2 ** 15;

/** START and STOP; both may be repeated. @returns EACCES for v1, EINVAL, ENOMEM */
export function switchDirtyTracking(type1: Type1, flag: number): number {
  if (!type1.isV2) return Errno.EACCES;
  if (flag === DirtyFlag.START) return start(type1);
  if (flag !== DirtyFlag.STOP) return Errno.EINVAL;
  type1.isTrackingDirty = false;
  for (const mapping of type1.mappings) mapping.dirty = null;
  return Errno.OK;
}

/**
 * GET_BITMAP: tells the pages written since the last time and begins anew.
 *
 * A failure leaves what is to be told; part of the user's bitmap may have been written.
 *
 * @param iova - start and length in bytes
 */
export function readDirty(
  type1: Type1,
  iova: bigint,
  size: bigint,
  bitmap: UserBitmap,
  user: UserMemory,
): number {
  if (!type1.isV2) return Errno.EACCES;
  if (iova < 0n || size <= 0n) return Errno.EINVAL;
  if (iova + size - 1n > 0xffff_ffff_ffff_ffffn) return Errno.EOVERFLOW;
  const errno = checkBitmap(size, bitmap);
  if (errno !== Errno.OK) return errno;
  if (!hasSmallestPages(type1, bitmap)) return Errno.EINVAL;
  const mask = BigInt(type1.pageFrames) * 4096n - 1n;
  if (((iova | size) & mask) !== 0n || !type1.isTrackingDirty) return Errno.EINVAL;
  const firstPfn = Number(iova >> 12n);
  const lastPfn = firstPfn + Number(size >> 12n) - 1;
  if (type1.mappings.isCut(firstPfn, lastPfn)) return Errno.EINVAL;
  const mappings = mappingsIn(type1, firstPfn, lastPfn);
  for (const mapping of mappings) {
    const failure = writeDirty(type1, mapping, firstPfn, bitmap.address, user);
    if (failure !== Errno.OK) return failure;
  }
  for (const mapping of mappings) {
    mapping.dirty!.clear();
    populate(type1, mapping);
  }
  return Errno.OK;
}

/** Whether a user's bitmap suits a range of `size` bytes. @returns EINVAL if not */
export function checkBitmap(size: bigint, bitmap: UserBitmap): number {
  if (!isUserRange(bitmap.address, bitmap.size)) return Errno.EINVAL;
  if (bitmap.pgsize === 0n || bitmap.size > BigInt(DIRTY_BYTES_MAX)) return Errno.EINVAL;
  // The page size is the lowest bit of what was given; what else is set is refused later.
  const bits = size / (bitmap.pgsize & -bitmap.pgsize);
  const needed = ((bits + 63n) / 64n) * 8n;
  return bits === 0n || bitmap.size < needed ? Errno.EINVAL : Errno.OK;
}

/** Whether a bitmap has a bit for each page of the smallest size, the only one there is. */
export function hasSmallestPages(type1: Type1, bitmap: UserBitmap): boolean {
  return bitmap.pgsize === BigInt(type1.pageFrames) << BigInt(PAGE_SHIFT);
}

/** Begins to track a new mapping. @returns EINVAL when it is too large for a bitmap, ENOMEM */
export function trackMapping(type1: Type1, mapping: DmaMapping): number {
  const bits = mapping.pages / type1.pageFrames;
  if (bits > DIRTY_PAGES_MAX) return Errno.EINVAL;
  if (!type1.allow(dirtyBytes(bits) + 8)) return Errno.ENOMEM;
  mapping.dirty = new DirtyBitmap(bits);
  return Errno.OK;
}

/** Notes pages of a mapping as written, if that is tracked. */
export function markDirty(type1: Type1, mapping: DmaMapping, page: number, pages: number): void {
  const { dirty } = mapping;
  if (dirty === null) return;
  const { pageFrames } = type1;
  const first = Math.floor(page / pageFrames);
  dirty.set(first, Math.floor((page + pages - 1) / pageFrames) - first + 1);
}

/**
 * Writes a mapping's bits to where they belong in the bitmap of a range that begins at `basePfn`.
 *
 * The kernel shifts its bitmap by whole words and joins all of the user's first word to it, so bits
 * beside the mapping's own come out as well: see {@link DirtyBitmap.hasLeftover}. A user reads
 * pages as written that are not mapped.
 *
 * @returns EFAULT
 */
export function writeDirty(
  type1: Type1,
  mapping: DmaMapping,
  basePfn: number,
  address: bigint,
  user: UserMemory,
): number {
  const { pageFrames } = type1;
  const bits = mapping.pages / pageFrames;
  const offset = (mapping.iovaPfn - basePfn) / pageFrames;
  const shift = offset % 64;
  const start = address + BigInt(((offset - shift) / 64) * 8);
  const dirty = mapping.dirty!;
  const isAllDirty = type1.nonPinnedGroups > 0 && mapping.isMapped;
  const theirs = new Uint8Array(8);
  if (shift > 0 && !user.read(start, theirs)) return Errno.EFAULT;
  const length = dirtyBytes(shift + bits) * 8;
  for (let at = 0; at < length; at += PIECE_BITS) {
    const piece = new Uint8Array(Math.min(PIECE_BITS, length - at) / 8);
    if (at === 0) piece.set(theirs);
    const set = (bit: number) => {
      const position = bit + shift - at;
      piece[position >>> 3]! |= 1 << (position & 7);
    };
    const first = Math.max(0, at - shift);
    const end = Math.min(length, at + PIECE_BITS) - shift;
    const last = Math.min(bits, end);
    if (isAllDirty || dirty.isFull) fillBits(piece, first + shift - at, last + shift - at);
    else dirty.forEachSet(first, last, set);
    for (let bit = Math.max(first, bits); bit < end; bit += 1) {
      if (dirty.hasLeftover(bit - bits)) set(bit);
    }
    if (!user.write(start + BigInt(at / 8), piece)) return Errno.EFAULT;
  }
  // What was given out is what the kernel's bitmap holds now, if it was shifted.
  dirty.leaveBehind(shift === 0 ? 0 : length - bits, (index) => {
    const position = bits + index;
    if (position < 64 && ((theirs[position >>> 3]! >>> (position & 7)) & 1) !== 0) return true;
    const bit = position - shift;
    if (bit >= bits) return dirty.hasLeftover(bit - bits);
    return bit >= 0 && (isAllDirty || dirty.has(bit));
  });
  return Errno.OK;
}

/** Sets bits from `first` up to, not including, `end`. */
function fillBits(bytes: Uint8Array, first: number, end: number): void {
  let bit = first;
  for (; bit < end && (bit & 7) !== 0; bit += 1) bytes[bit >>> 3]! |= 1 << (bit & 7);
  const wholeEnd = Math.max(bit, end - (end & 7));
  bytes.fill(0xff, bit >>> 3, wholeEnd >>> 3);
  for (bit = wholeEnd; bit < end; bit += 1) bytes[bit >>> 3]! |= 1 << (bit & 7);
}

function start(type1: Type1): number {
  if (type1.isTrackingDirty) return Errno.OK;
  for (const mapping of type1.mappings) {
    const errno = trackMapping(type1, mapping);
    if (errno !== Errno.OK) {
      for (const each of type1.mappings) each.dirty = null;
      return errno;
    }
    populate(type1, mapping);
  }
  type1.isTrackingDirty = true;
  return Errno.OK;
}

/** Notes all pages as written, because a group that wrote anywhere has left. */
export function populateAll(type1: Type1): void {
  for (const mapping of type1.mappings) mapping.dirty?.fill();
}

/** Pages that drivers hold may be written at any time. */
function populate(type1: Type1, mapping: DmaMapping): void {
  if (mapping.pins === null) return;
  for (const iovaPfn of mapping.pins.frames()) {
    markDirty(type1, mapping, iovaPfn - mapping.iovaPfn, 1);
  }
}

function mappingsIn(type1: Type1, firstPfn: number, lastPfn: number): DmaMapping[] {
  const mappings: DmaMapping[] = [];
  let mapping = type1.mappings.firstIn(firstPfn, lastPfn);
  while (mapping !== null) {
    mappings.push(mapping);
    const nextPfn = mapping.iovaPfn + mapping.pages;
    mapping = nextPfn > lastPfn ? null : type1.mappings.firstIn(nextPfn, lastPfn);
  }
  return mappings;
}
