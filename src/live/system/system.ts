/**
 * What the live path asks of the operating system: sockets that carry descriptors, shared memory,
 * event counters, waiting, and files read and written in place.
 *
 * Two implementations pass one suite (`system.suite.ts`): Linux through foreign calls
 * (`linux-system.ts`), and a simulated kernel within the process (`simulated-system.ts`), which
 * other rooms test against. Every call that can fail returns a count or descriptor of 0 or more,
 * or a negative error number, as the kernel's own interface does: nothing throws because of what a
 * peer did. Source: Linux man-pages, sections 2 and 7.
 *
 * Memory that calls read and write is named by address, so that a structure that must outlive the
 * process (a message being received, the count the kernel has written) can lie in shared memory.
 * Such memory comes from {@link System.map} or {@link CallMemory.allocate}, or is any view through
 * {@link CallMemory.addressOf}. Addresses stay below 2^47 and are numbers.
 */
import type { Ledger } from "./ledger.ts";
import type { CallMemory, Mapping } from "./mapping.ts";
import type { MessageSlot } from "./message-slot.ts";
import type { PieceList } from "./piece-list.ts";
import type { PollSet } from "./poll-set.ts";
import type { SyncQueue } from "./sync-queue.ts";

/** Longest socket path: sun_path holds 108 bytes with the terminating zero. */
export const SOCKET_PATH_BYTES_MAX = 107;

/** How a file is mapped. */
export interface MapRequest {
  readonly fd: number;
  /** Byte offset into the file, a multiple of the page size. */
  readonly offset: number;
  /** 1 … {@link MAP_BYTES_MAX}. */
  readonly bytes: number;
  /**
   * `shared`: stores reach the file. `private`: for memory that may only be read; a stray store
   * lands in a page of this process instead of ending it.
   */
  readonly access: "shared" | "private";
  /** Brings every page in at once. */
  readonly populate?: boolean;
}

/** What sort of thing a descriptor is. */
export type FileKind =
  | "regular"
  | "directory"
  | "block"
  | "character"
  | "socket"
  | "pipe"
  | "other";

/** What {@link System.status} tells. Device and inode together name a file. */
export interface FileStatus {
  readonly kind: FileKind;
  readonly device: string;
  readonly inode: number;
  /** Of a regular file or a block device; 0 otherwise. */
  readonly bytes: number;
  /** Granule of the file's memory: a huge page's size on hugetlbfs. */
  readonly blockBytes: number;
  /** Permission bits. */
  readonly mode: number;
  readonly userId: number;
}

/** Promises about a memory file's size and contents, which nobody can take back (fcntl(2)). */
export const Seal = { SEAL: 1, SHRINK: 2, GROW: 4, WRITE: 8, FUTURE_WRITE: 16 } as const;

/** How {@link System.receive} takes. */
export type Receiving = "take" | "peek";

/** The calls. `owner` names, for the audit, who must close what a call opens. */
export interface System extends CallMemory {
  readonly name: "linux" | "simulated";
  readonly pageBytes: number;
  /** Open descriptors and mappings of this process that came through this object. */
  readonly ledger: Ledger;

  /** A monotonic clock, microseconds. */
  now(): number;

  // Descriptors. All are close-on-exec.
  /** Closing one that the ledger does not hold is a mistake of the program. */
  close(fd: number): void;
  /** @param lowest - the new descriptor is the first free one from here on */
  duplicate(fd: number, owner: string, lowest?: number): number;
  /** Makes `target`, which must be free, another name of the same thing. */
  duplicateTo(fd: number, target: number, owner: string): number;
  /** Error 0 and what is known, or an error number. */
  status(fd: number): FileStatus | number;
  /** Whether the descriptor was opened for reading and writing. */
  isWritable(fd: number): boolean;

  // Memory, beside that of {@link CallMemory}.
  map(request: MapRequest, owner: string): Mapping | number;

  // Memory files (memfd_create) and their sizes.
  /** A file of zeros without a name, sealable. */
  createMemoryFile(name: string, bytes: number, owner: string): number;
  resize(fd: number, bytes: number): number;
  /** The seals in force, or an error: EINVAL where the file cannot have any. */
  seals(fd: number): number;
  addSeals(fd: number, seals: number): number;

  // Files.
  open(path: string, access: "read" | "read-write", owner: string): number;
  /** Reads at a byte offset into the pieces; short at the end of the file. */
  read(fd: number, pieces: PieceList, offset: number): number;
  write(fd: number, pieces: PieceList, offset: number): number;
  /** Data and what is needed to find it reach the disk (fdatasync). Blocks. */
  sync(fd: number): number;
  /** A queue for syncs in the background, or an error. */
  createSyncQueue(owner: string): SyncQueue | number;
  /** Gives the range's blocks back; it reads as zeros, the size stays (fallocate). */
  punchHole(fd: number, offset: number, bytes: number): number;
  zeroRange(fd: number, offset: number, bytes: number): number;

  // Sockets: streams on paths of the file system, never blocking.
  /** A listening socket, mode 0600 from the first moment on. Nothing may exist at the path. */
  listen(path: string, backlog: number, owner: string): number;
  connect(path: string, owner: string): number;
  accept(fd: number, owner: string): number;
  socketPair(owner: string): readonly [number, number] | number;
  /**
   * Receives what is there into the slot's target, up to its size. The kernel leaves the count in
   * the slot, so that it is not lost with this process. Never blocks: EAGAIN.
   *
   * @returns bytes; 0 when the peer has closed, or a negative error
   */
  receive(fd: number, slot: MessageSlot, how: Receiving, owner: string): number;
  /** Sends as much as fits of the slot's target, the slot's descriptors with the first byte. */
  send(fd: number, slot: MessageSlot): number;
  /** Ends both directions for every holder of the socket. */
  shutdown(fd: number): number;
  /** User and process at the other end. */
  peer(fd: number): { readonly userId: number; readonly processId: number } | number;

  // Event counters (eventfd) and waiting.
  createEvent(owner: string): number;
  /** Adds 1, never blocks; fine too when the counter is full. */
  signal(fd: number): number;
  /** Sets the counter to 0. @returns whether it was not */
  drain(fd: number): boolean;
  /**
   * Waits until one of the set's descriptors is ready.
   *
   * @param timeoutUs - microseconds; −1 waits for ever
   * @returns how many are ready, or a negative error; an interrupted wait returns 0
   */
  poll(set: PollSet, timeoutUs: number): number;
}
