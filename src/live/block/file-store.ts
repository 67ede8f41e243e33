/**
 * A disk in a file: reads and writes go straight between the file and guest memory, syncs run in
 * the background, and what takes long is done in pieces between turns of the loop.
 *
 * The file is never mapped. If someone makes it shorter meanwhile, reads beyond its end answer EIO.
 */
import type { BlockStore, Done } from "../../block/block-store.ts";
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { Segment } from "../../memory/device-memory.ts";
import { newView } from "../../memory/memory-view.ts";
import { PieceList } from "../system/piece-list.ts";
import { Poll } from "../system/poll-set.ts";
import type { SyncQueue } from "../system/sync-queue.ts";
import type { System } from "../system/system.ts";
import type { PollLoop } from "../worker/poll-loop.ts";
import { readOnlyReason, sizeOf, stateError } from "./open-file.ts";

/** Bytes of a range that are emptied, or written as zeros, in one turn of the loop. */
const PIECE_BYTES = { hole: 2 ** 28, zeros: 2 ** 20 } as const;

/** What a {@link FileStore} is made of. */
export interface FileStoreOptions {
  readonly path: string;
  readonly isReadOnly?: boolean;
  readonly blockBytes?: number;
  /** Serial number that the guest sees. */
  readonly id: string;
  /** Owner in the ledger, and name in the loop. */
  readonly name: string;
}

/** A range that is worked on piece by piece. */
interface RangeWork {
  at: number;
  readonly end: number;
  readonly kind: "discard" | "zero";
  readonly mayUnmap: boolean;
  readonly done: Done;
}

/** A disk in a file. */
export class FileStore implements BlockStore {
  readonly bytes: number;
  readonly blockBytes: number;
  readonly isReadOnly: boolean;
  readonly id: string;
  readonly #system: System;
  readonly #fd: number;
  readonly #pieces: PieceList;
  readonly #syncs: SyncQueue;
  readonly #waiting = new Map<number, Done>();
  readonly #ranges: RangeWork[] = [];
  readonly #detach: (() => void)[];
  readonly #zeros = newView(PIECE_BYTES.zeros);
  #syncId = 0;
  /** What the file system has turned out not to do. */
  #canPunch = true;
  #canZero = true;

  private constructor(system: System, loop: PollLoop, fd: number, options: FileStoreOptions) {
    const { isReadOnly = false, blockBytes = 512, id, name } = options;
    this.#system = system;
    this.#fd = fd;
    this.isReadOnly = isReadOnly;
    this.blockBytes = blockBytes;
    this.id = id;
    this.bytes = sizeOf(system, fd, options.path, blockBytes);
    const syncs = system.createSyncQueue(name);
    if (typeof syncs === "number") throw stateError(options.path, "cannot be synced", syncs);
    this.#syncs = syncs;
    this.#pieces = new PieceList(system, name);
    const watch = loop.watch(syncs.fd, Poll.IN, () => this.#synced(), `${name} syncs`);
    const work = () => this.#workOnRange();
    this.#detach = [() => watch.close(), loop.add({ dueUs: -1, work }, `${name} ranges`)];
  }

  /**
   * Opens an image.
   *
   * @throws StackError `live/disk-image` when it cannot be opened, is no file or block device, or
   *   its size is no multiple of the block size
   */
  static open(system: System, loop: PollLoop, options: FileStoreOptions): FileStore {
    const { path, isReadOnly = false, name } = options;
    const fd = system.open(path, isReadOnly ? "read" : "read-write", name);
    if (fd < 0) throw stateError(path, readOnlyReason(isReadOnly), fd);
    try {
      return new FileStore(system, loop, fd, options);
    } catch (error) {
      system.close(fd);
      throw error;
    }
  }

  read(at: number, segments: readonly Segment[], done: Done): void {
    done(this.#transfer("read", at, segments));
  }

  write(at: number, segments: readonly Segment[], done: Done): void {
    done(this.isReadOnly ? Errno.EROFS : this.#transfer("write", at, segments));
  }

  flush(done: Done): void {
    if (this.isReadOnly) {
      done(0);
      return;
    }
    this.#syncId = (this.#syncId + 1) >>> 0;
    const started = this.#syncs.start(this.#fd, this.#syncId);
    if (started === 0) this.#waiting.set(this.#syncId, done);
    // As many wait as there may: this one waits here and now.
    else if (started === -Errno.EAGAIN) done(0 - this.#system.sync(this.#fd));
    else done(-started);
  }

  discard(at: number, bytes: number, done: Done): void {
    this.#start(at, bytes, "discard", true, done);
  }

  writeZeroes(at: number, bytes: number, mayUnmap: boolean, done: Done): void {
    this.#start(at, bytes, "zero", mayUnmap, done);
  }

  /** Waits for syncs, forgets ranges that are left, and closes the file. */
  dispose(): void {
    for (const detach of this.#detach) detach();
    this.#syncs.dispose();
    this.#pieces.dispose();
    this.#system.close(this.#fd);
  }

  /** @returns 0 or an errno; all bytes or an error */
  #transfer(kind: "read" | "write", at: number, segments: readonly Segment[]): number {
    const pieces = this.#pieces;
    let offset = at;
    let next = 0;
    while (next < segments.length) {
      pieces.clear();
      while (next < segments.length) {
        const { view, at: viewAt, bytes } = segments[next]!;
        if (!pieces.add(view, viewAt, bytes)) break;
        next += 1;
      }
      if (offset + pieces.bytes > this.bytes) return Errno.EIO;
      while (pieces.bytes > 0) {
        const moved = this.#system[kind](this.#fd, pieces, offset);
        // Nothing, where there should be something: the file has become shorter.
        if (moved === 0) return Errno.EIO;
        if (moved < 0 && moved !== -Errno.EINTR) return -moved;
        if (moved < 0) continue;
        offset += moved;
        if (moved === pieces.bytes) break;
        pieces.advance(moved);
      }
    }
    pieces.clear();
    return 0;
  }

  #start(at: number, bytes: number, kind: RangeWork["kind"], mayUnmap: boolean, done: Done): void {
    const end = at + bytes;
    if (this.isReadOnly) done(Errno.EROFS);
    else if (end > this.bytes) done(Errno.EIO);
    else if (bytes === 0 || (kind === "discard" && !this.#canPunch)) done(0);
    else {
      this.#ranges.push({ at, end, kind, mayUnmap, done });
      // Most ranges are done by one piece, which need not wait for the loop.
      if (this.#ranges.length === 1) this.#workOnRange();
    }
  }

  /** One piece of the first range. @returns whether there is more */
  #workOnRange(): boolean {
    const range = this.#ranges[0];
    if (range === undefined) return false;
    const result = this.#rangePiece(range);
    if (result >= 0) range.at += result;
    if (result < 0 || range.at >= range.end) {
      this.#ranges.shift();
      range.done(result < 0 ? -result : 0);
    }
    return this.#ranges.length > 0;
  }

  /** @returns bytes that are done, or a negative error */
  #rangePiece({ at, end, kind, mayUnmap }: RangeWork): number {
    const hole = Math.min(end - at, PIECE_BYTES.hole);
    if (mayUnmap && this.#canPunch) {
      const result = this.#system.punchHole(this.#fd, at, hole);
      if (result >= 0) return hole;
      if (result !== -Errno.EOPNOTSUPP) return result;
      this.#canPunch = false;
    }
    if (kind === "discard") return end - at;
    if (this.#canZero) {
      const result = this.#system.zeroRange(this.#fd, at, hole);
      if (result >= 0) return hole;
      if (result !== -Errno.EOPNOTSUPP) return result;
      this.#canZero = false;
    }
    const bytes = Math.min(end - at, PIECE_BYTES.zeros);
    const error = this.#transfer("write", at, [{ view: this.#zeros, at: 0, bytes }]);
    return error === 0 ? bytes : -error;
  }

  #synced(): void {
    for (const { id, errno } of this.#syncs.take()) {
      const done = this.#waiting.get(id);
      assert(done !== undefined, "a sync is told once");
      this.#waiting.delete(id);
      done(errno);
    }
  }
}
