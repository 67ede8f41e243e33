/**
 * A disk in memory: chunks that appear when they are written, so that its size costs nothing. It is
 * durable as long as the process is, and everything completes at once.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import type { Segment } from "../memory/device-memory.ts";
import type { BlockStore, Done } from "./block-store.ts";

const CHUNK_BYTES = 2 ** 18;
const BYTES_MAX_DEFAULT = 2 ** 32;

/** How a memory store is made. */
export interface MemoryStoreSettings {
  /** Size, a multiple of {@link MemoryStoreSettings.blockBytes}. */
  readonly bytes: number;
  /** 512 when left out. */
  readonly blockBytes?: number;
  readonly isReadOnly?: boolean;
  readonly id?: string;
  /** Bound on what chunks may occupy: a write that would pass it is ENOSPC. */
  readonly occupiedMax?: number;
}

/** The store. */
export class MemoryStore implements BlockStore {
  readonly bytes: number;
  readonly blockBytes: number;
  readonly isReadOnly: boolean;
  readonly id: string;
  /** Flushes asked for so far. */
  flushes = 0;
  readonly #occupiedMax: number;
  readonly #chunks = new Map<number, Uint8Array>();

  constructor(settings: MemoryStoreSettings) {
    const { bytes, blockBytes = 512, isReadOnly = false, id = "memory" } = settings;
    assert(Number.isSafeInteger(bytes) && bytes % blockBytes === 0, "a disk has whole blocks");
    this.bytes = bytes;
    this.blockBytes = blockBytes;
    this.isReadOnly = isReadOnly;
    this.id = id;
    this.#occupiedMax = settings.occupiedMax ?? BYTES_MAX_DEFAULT;
  }

  /** What chunks occupy. */
  get occupied(): number {
    return this.#chunks.size * CHUNK_BYTES;
  }

  read(at: number, segments: readonly Segment[], done: Done): void {
    let from = at;
    for (const { view, at: into, bytes } of segments) {
      for (let moved = 0; moved < bytes; ) {
        const count = this.#partAt(from, bytes - moved);
        const chunk = this.#chunks.get(Math.floor(from / CHUNK_BYTES));
        const start = into + moved;
        if (chunk === undefined) view.u8.fill(0, start, start + count);
        else view.u8.set(chunk.subarray(from % CHUNK_BYTES, (from % CHUNK_BYTES) + count), start);
        moved += count;
        from += count;
      }
    }
    done(Errno.OK);
  }

  write(at: number, segments: readonly Segment[], done: Done): void {
    let to = at;
    for (const { view, at: from, bytes } of segments) {
      for (let moved = 0; moved < bytes; ) {
        const count = this.#partAt(to, bytes - moved);
        const chunk = this.#chunkFor(to);
        if (chunk === null) {
          done(Errno.ENOSPC);
          return;
        }
        const start = from + moved;
        chunk.set(view.u8.subarray(start, start + count), to % CHUNK_BYTES);
        moved += count;
        to += count;
      }
    }
    done(Errno.OK);
  }

  flush(done: Done): void {
    this.flushes += 1;
    done(Errno.OK);
  }

  discard(at: number, bytes: number, done: Done): void {
    this.writeZeroes(at, bytes, true, done);
  }

  writeZeroes(at: number, bytes: number, _mayUnmap: boolean, done: Done): void {
    for (let cleared = 0; cleared < bytes; ) {
      const from = at + cleared;
      const count = this.#partAt(from, bytes - cleared);
      const index = Math.floor(from / CHUNK_BYTES);
      if (count === CHUNK_BYTES) this.#chunks.delete(index);
      else this.#chunks.get(index)?.fill(0, from % CHUNK_BYTES, (from % CHUNK_BYTES) + count);
      cleared += count;
    }
    done(Errno.OK);
  }

  /** How many bytes from an offset on, `most` at most, lie in one chunk. */
  #partAt(offset: number, most: number): number {
    assert(offset < this.bytes, "an access lies inside of the disk");
    return Math.min(most, CHUNK_BYTES - (offset % CHUNK_BYTES));
  }

  #chunkFor(offset: number): Uint8Array | null {
    const index = Math.floor(offset / CHUNK_BYTES);
    const chunk = this.#chunks.get(index);
    if (chunk !== undefined) return chunk;
    if (this.occupied + CHUNK_BYTES > this.#occupiedMax) return null;
    const fresh = new Uint8Array(CHUNK_BYTES);
    this.#chunks.set(index, fresh);
    return fresh;
  }
}
