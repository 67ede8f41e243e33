/**
 * What a disk's bytes live in: memory, a file, or anything else a block device can be put on.
 *
 * Reading and writing are complete when they return, because their segments are views of a guest's
 * memory, which may be gone a moment later. What names no guest memory (flush, discard, write
 * zeroes) may complete later, off the caller's thread of work.
 */
import type { Segment } from "../memory/device-memory.ts";

/** Called exactly once, with 0 or an errno; before the operation returns, or later. */
export type Done = (errno: number) => void;

/** A store of bytes in blocks. Offsets and lengths are bytes and lie inside: the caller checks. */
export interface BlockStore {
  /** Size, a multiple of {@link blockBytes}. */
  readonly bytes: number;
  /** Granularity of every operation: a power of two, 512 … 65536. */
  readonly blockBytes: number;
  readonly isReadOnly: boolean;
  /** Serial number as the guest sees it: at most 20 bytes of ASCII. */
  readonly id: string;

  /** Fills the segments from offset `at` on. `done` is called before this returns. */
  read(at: number, segments: readonly Segment[], done: Done): void;
  /** Stores the segments from offset `at` on. `done` is called before this returns. */
  write(at: number, segments: readonly Segment[], done: Done): void;
  /** Makes every write that was done before durable. */
  flush(done: Done): void;
  /** The range's contents are no longer needed; what it reads as afterwards is up to the store. */
  discard(at: number, bytes: number, done: Done): void;
  /** The range reads as zero afterwards. @param mayUnmap - whether its space may be given back */
  writeZeroes(at: number, bytes: number, mayUnmap: boolean, done: Done): void;
}
