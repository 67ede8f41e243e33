/**
 * What a vfio-user server needs of its world beside `live/system`: a stream that carries
 * descriptors, and files in memory.
 */

/** One client's stream. Descriptors that it hands out belong to who called. */
export interface Transport {
  /**
   * Takes what has arrived, without waiting. Where bytes carried descriptors, what is taken ends
   * with the send that carried them.
   *
   * @param fds - receives descriptors, close-on-exec; −1 for one that was lost because no more can
   *   be open (MSG_CTRUNC)
   * @returns bytes stored; 0 for none now, {@link CLOSED} when the client is gone
   */
  receive(target: Uint8Array, at: number, count: number, fds: number[]): number;
  /**
   * Sends without waiting.
   *
   * @param fds - go with the first byte; they stay the caller's
   * @returns bytes taken; 0 for none now, {@link CLOSED} when the client is gone
   */
  send(source: Uint8Array, at: number, count: number, fds: readonly number[]): number;
  close(): void;
}

/** The other side has closed, or the stream has failed. */
export const CLOSED = -1;

/** A piece of a file in memory. */
export interface FilePiece {
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly bytes: number;
}

/** A stretch of a file, held in memory. */
export interface FileHold {
  /** In order, together the stretch. */
  readonly pieces: readonly FilePiece[];
  /** Lets go of it: the pieces must not be touched any more. */
  release(): void;
}

/** Files that can be looked at in memory. */
export interface MemoryFiles {
  /**
   * Takes hold of a stretch of a file. Nobody can take the memory away while it is held: a file
   * that somebody could make shorter is refused.
   *
   * @param access - `shared`: stores reach the file; `private`: it is only read
   * @returns the hold, or an errno
   */
  hold(fd: number, offset: number, bytes: number, access: "shared" | "private"): FileHold | number;
  /** Gives back what nobody holds: a client has gone. */
  trim?(): void;
}
