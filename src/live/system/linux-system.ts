/**
 * The operating system as Linux provides it, by foreign calls into the C library.
 *
 * Buffers and addresses: every address handed to a call belongs to a mapping that a field of this
 * object, of a slot or of a piece list keeps alive, and no call is asynchronous, so none can return
 * after its memory has gone. Descriptors are entered into the ledger on the line that opens them.
 */

import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { viewOf } from "../../memory/memory-view.ts";
import { Ledger } from "./ledger.ts";
import { type CallNumbers, callNumbers, type LinuxCalls, loadCalls } from "./linux-calls.ts";
import { Flag, kindOfMode, Option, Scratch } from "./linux-constants.ts";
import { LinuxSyncQueue } from "./linux-sync-queue.ts";
import { MAP_BYTES_MAX, type Mapping } from "./mapping.ts";
import type { MessageSlot } from "./message-slot.ts";
import type { PieceList } from "./piece-list.ts";
import { Poll, type PollSet } from "./poll-set.ts";
import type { SyncQueue } from "./sync-queue.ts";
import {
  type FileStatus,
  type MapRequest,
  type Receiving,
  SOCKET_PATH_BYTES_MAX,
  type System,
} from "./system.ts";

/** Opens the system. @throws StackError where it is not Linux, or foreign calls do not load */
export async function openLinuxSystem(): Promise<System> {
  const numbers = callNumbers(process.platform, process.arch);
  return new LinuxSystem(await loadCalls(), numbers);
}

class LinuxSystem implements System {
  readonly name = "linux";
  readonly pageBytes: number;
  readonly ledger = new Ledger();
  readonly #calls: LinuxCalls;
  readonly #numbers: CallNumbers;
  readonly #addresses = new WeakMap<ArrayBufferLike, number>();
  /** Gives an address range back once no view can reach it. */
  readonly #collected: FinalizationRegistry<{ address: number; bytes: number }>;
  /** For arguments and results of single calls. */
  readonly #scratch: Mapping;
  readonly #scratchBytes: Uint8Array;

  constructor(calls: LinuxCalls, numbers: CallNumbers) {
    this.#calls = calls;
    this.#numbers = numbers;
    this.pageBytes = calls.sysconf(Option.SC_PAGESIZE);
    this.#collected = new FinalizationRegistry(({ address, bytes }) => {
      calls.munmap(address, bytes);
    });
    this.#scratch = this.#anonymous(Scratch.BYTES);
    this.#scratchBytes = this.#scratch.view.u8;
    // An eventfd takes 8 bytes in host order.
    this.#scratch.view.u32[Scratch.ONE >> 2] = 1;
  }

  now(): number {
    return performance.now() * 1000;
  }

  close(fd: number): void {
    this.ledger.strike(fd);
    this.#calls.close(fd);
  }

  duplicate(fd: number, owner: string, lowest = 0): number {
    return this.#opened(this.#calls.fcntl(fd, Option.F_DUPFD_CLOEXEC, lowest), owner);
  }

  duplicateTo(fd: number, target: number, owner: string): number {
    const made = this.duplicate(fd, owner, target);
    if (made === target || made < 0) return made;
    this.close(made);
    return -Errno.EBUSY;
  }

  status(fd: number): FileStatus | number {
    const { address, view } = this.#scratch;
    view.u8[Scratch.PATH] = 0;
    const out = address + Scratch.STATX;
    const done = this.#calls.statx(fd, address + Scratch.PATH, Flag.AT_EMPTY_PATH, 0x7ff, out);
    if (done < 0) return this.#error();
    const word = Scratch.STATX >> 2;
    const mode = view.u16[(Scratch.STATX + 28) >> 1]!;
    const kind = kindOfMode(mode);
    const whole = (at: number) => view.u32[word + at]! + view.u32[word + at + 1]! * 2 ** 32;
    const end = kind === "block" ? this.#calls.lseek(fd, 0, Option.SEEK_END) : whole(10);
    return {
      kind,
      device: `${view.u32[word + 34]}:${view.u32[word + 35]}`,
      inode: whole(8),
      bytes: kind === "regular" || kind === "block" ? Math.max(end, 0) : 0,
      blockBytes: view.u32[word + 1]!,
      mode: mode & 0o7777,
      userId: view.u32[word + 5]!,
    };
  }

  isWritable(fd: number): boolean {
    const flags = this.#calls.fcntl(fd, Option.F_GETFL, 0);
    return flags >= 0 && (flags & Flag.O_ACCMODE) === Flag.O_RDWR;
  }

  allocate(bytes: number, owner: string): Mapping {
    const mapping = this.#anonymous(bytes);
    this.ledger.enterMapping(mapping.address, owner);
    return mapping;
  }

  map(request: MapRequest, owner: string): Mapping | number {
    const { fd, offset, bytes, access, populate = false } = request;
    if (bytes < 1 || bytes > MAP_BYTES_MAX || offset % this.pageBytes !== 0) return -Errno.EINVAL;
    // A shared window of huge pages must reserve them: without, a touch could raise SIGBUS.
    const own = Flag.MAP_PRIVATE | Flag.MAP_NORESERVE;
    const flags =
      (access === "shared" ? Flag.MAP_SHARED : own) | (populate ? Flag.MAP_POPULATE : 0);
    const address = this.#calls.mmap(0, bytes, Flag.PROT_READ_WRITE, flags, fd, offset);
    if (address < 0) return this.#error();
    this.ledger.enterMapping(address, owner);
    return this.#mappingAt(address, bytes);
  }

  unmap(mapping: Mapping): void {
    const { address, bytes } = mapping;
    this.ledger.strikeMapping(address);
    // SAFETY: JavaScript cannot revoke views of foreign memory, and touching a hole ends the
    // process. So fresh private pages take the place, and the range goes when the buffer does.
    const flags = Flag.MAP_PRIVATE | Flag.MAP_ANONYMOUS | Flag.MAP_NORESERVE | Flag.MAP_FIXED;
    const done = this.#calls.mmap(address, bytes, Flag.PROT_READ_WRITE, flags, -1, 0);
    assert(done === address, "memory that was mapped can be replaced");
  }

  addressOf(buffer: ArrayBufferLike): number {
    const known = this.#addresses.get(buffer);
    if (known !== undefined) return known;
    const address = this.#calls.addressOf(buffer);
    this.#addresses.set(buffer, address);
    return address;
  }

  createMemoryFile(name: string, bytes: number, owner: string): number {
    this.#putPath(name.slice(0, 200));
    const flags = Flag.MFD_CLOEXEC | Flag.MFD_ALLOW_SEALING;
    const fd = this.#opened(this.#calls.memfdCreate(this.#scratch.address, flags), owner);
    if (fd < 0) return fd;
    const sized = this.resize(fd, bytes);
    if (sized < 0) this.close(fd);
    return sized < 0 ? sized : fd;
  }

  resize(fd: number, bytes: number): number {
    return this.#result(this.#calls.ftruncate(fd, bytes));
  }

  seals(fd: number): number {
    return this.#result(this.#calls.fcntl(fd, Option.F_GET_SEALS, 0));
  }

  addSeals(fd: number, seals: number): number {
    return this.#result(this.#calls.fcntl(fd, Option.F_ADD_SEALS, seals));
  }

  open(path: string, access: "read" | "read-write", owner: string): number {
    if (!this.#putPath(path)) return -Errno.ENAMETOOLONG;
    const mode = access === "read" ? Flag.O_RDONLY : Flag.O_RDWR;
    const flags = mode | Flag.O_CLOEXEC | Flag.O_NONBLOCK;
    return this.#opened(this.#calls.open(this.#scratch.address, flags, 0), owner);
  }

  read(fd: number, pieces: PieceList, offset: number): number {
    return this.#result(this.#calls.preadv(fd, pieces.address, pieces.count, offset));
  }

  write(fd: number, pieces: PieceList, offset: number): number {
    return this.#result(this.#calls.pwritev(fd, pieces.address, pieces.count, offset));
  }

  sync(fd: number): number {
    return this.#result(this.#calls.fdatasync(fd));
  }

  createSyncQueue(owner: string): SyncQueue | number {
    const fd = this.createEvent(owner);
    return fd < 0 ? fd : new LinuxSyncQueue(this, this.#calls, this.#numbers, fd, owner);
  }

  punchHole(fd: number, offset: number, bytes: number): number {
    const mode = Flag.FALLOC_PUNCH_HOLE | Flag.FALLOC_KEEP_SIZE;
    return this.#result(this.#calls.fallocate(fd, mode, offset, bytes));
  }

  zeroRange(fd: number, offset: number, bytes: number): number {
    const mode = Flag.FALLOC_ZERO_RANGE | Flag.FALLOC_KEEP_SIZE;
    return this.#result(this.#calls.fallocate(fd, mode, offset, bytes));
  }

  listen(path: string, backlog: number, owner: string): number {
    const bytes = this.#putSocketAddress(path);
    if (bytes < 0) return bytes;
    const fd = this.#opened(this.#socket(), owner);
    if (fd < 0) return fd;
    const calls = this.#calls;
    // The mode of a socket's file comes from the socket, so it is never open to others.
    const isDone =
      calls.fchmod(fd, 0o600) === 0 &&
      calls.bind(fd, this.#scratch.address, bytes) === 0 &&
      calls.listen(fd, backlog) === 0;
    if (isDone) return fd;
    const error = this.#error();
    this.close(fd);
    return error;
  }

  connect(path: string, owner: string): number {
    const bytes = this.#putSocketAddress(path);
    if (bytes < 0) return bytes;
    const fd = this.#opened(this.#socket(), owner);
    if (fd < 0) return fd;
    if (this.#calls.connect(fd, this.#scratch.address, bytes) === 0) return fd;
    const error = this.#error();
    this.close(fd);
    return error;
  }

  accept(fd: number, owner: string): number {
    const flags = Flag.SOCK_CLOEXEC | Flag.SOCK_NONBLOCK;
    return this.#opened(this.#calls.accept4(fd, 0, 0, flags), owner);
  }

  socketPair(owner: string): readonly [number, number] | number {
    const type = Flag.SOCK_STREAM | Flag.SOCK_CLOEXEC | Flag.SOCK_NONBLOCK;
    const done = this.#calls.socketpair(Flag.AF_UNIX, type, 0, this.#scratch.address);
    if (done < 0) return this.#error();
    const { u32 } = this.#scratch.view;
    return [this.ledger.enter(u32[0]!, owner), this.ledger.enter(u32[1]!, owner)];
  }

  receive(fd: number, slot: MessageSlot, how: Receiving, owner: string): number {
    const peek = how === "peek" ? Flag.MSG_PEEK : 0;
    const flags = Flag.MSG_DONTWAIT | Flag.MSG_CMSG_CLOEXEC | peek;
    const room = slot.room;
    // SAFETY: slot and target lie in mappings that their owners hold; the call is synchronous and
    // writes at most the target's bytes; descriptors are in the ledger from the loop below on.
    const done = this.#calls.syscall(this.#numbers.recvmmsg, fd, slot.address, 1, flags, 0);
    if (done < 0) return this.#error();
    if (room > 0) for (const received of slot.descriptors()) this.ledger.enter(received, owner);
    return slot.count;
  }

  send(fd: number, slot: MessageSlot): number {
    const flags = Flag.MSG_DONTWAIT | Flag.MSG_NOSIGNAL;
    const done = this.#calls.syscall(this.#numbers.sendmmsg, fd, slot.address, 1, flags, 0);
    return done < 0 ? this.#error() : slot.count;
  }

  shutdown(fd: number): number {
    return this.#result(this.#calls.shutdown(fd, Option.SHUT_RDWR));
  }

  peer(fd: number): { readonly userId: number; readonly processId: number } | number {
    const { address, view } = this.#scratch;
    view.u32[4] = 12;
    const { SOL_SOCKET, SO_PEERCRED } = Option;
    const done = this.#calls.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, address, address + 16);
    return done < 0 ? this.#error() : { processId: view.u32[0]!, userId: view.u32[1]! };
  }

  createEvent(owner: string): number {
    return this.#opened(this.#calls.eventfd(0, Flag.EFD_CLOEXEC | Flag.EFD_NONBLOCK), owner);
  }

  signal(fd: number): number {
    // Who made the counter may have made it one whose writers wait when it is full.
    const { address, view } = this.#scratch;
    const entry = Scratch.POLL >> 2;
    view.u32[entry] = fd;
    view.u32[entry + 1] = Poll.OUT;
    this.#calls.ppoll(address + Scratch.POLL, 1, address + Scratch.NO_TIME, 0);
    const ready = view.u32[entry + 1]! >>> 16;
    if ((ready & (Poll.OUT | Poll.NVAL)) === 0) return 0;
    const done = this.#calls.write(fd, this.#scratch.address + Scratch.ONE, 8);
    if (done === 8) return 0;
    const error = done < 0 ? this.#error() : -Errno.EINVAL;
    // A counter at its end wakes its reader as one that was just raised.
    return error === -Errno.EAGAIN ? 0 : error;
  }

  drain(fd: number): boolean {
    return this.#calls.read(fd, this.#scratch.address + Scratch.DRAINED, 8) === 8;
  }

  poll(set: PollSet, timeoutUs: number): number {
    let timeout = 0;
    if (timeoutUs >= 0) {
      set.setTimeout(timeoutUs);
      timeout = set.timeoutAddress;
    }
    const done = this.#calls.ppoll(set.address, set.capacity, timeout, 0);
    if (done >= 0) return done;
    const error = this.#error();
    return error === -Errno.EINTR ? 0 : error;
  }

  #anonymous(bytes: number): Mapping {
    const flags = Flag.MAP_PRIVATE | Flag.MAP_ANONYMOUS;
    const rounded = (bytes + this.pageBytes - 1) & -this.pageBytes;
    assert(bytes > 0 && rounded <= MAP_BYTES_MAX, "memory of a size that can be mapped");
    const address = this.#calls.mmap(0, rounded, Flag.PROT_READ_WRITE, flags, -1, 0);
    assert(address > 0, "there is memory for this process");
    return this.#mappingAt(address, rounded);
  }

  #mappingAt(address: number, bytes: number): Mapping {
    const buffer = this.#calls.view(address, bytes);
    this.#addresses.set(buffer, address);
    this.#collected.register(buffer, { address, bytes });
    return { buffer, byteOffset: 0, view: viewOf(buffer, 0, bytes), address, bytes };
  }

  #socket(): number {
    const type = Flag.SOCK_STREAM | Flag.SOCK_CLOEXEC | Flag.SOCK_NONBLOCK;
    return this.#calls.socket(Flag.AF_UNIX, type, 0);
  }

  /** Puts a zero-terminated path into the scratch memory. @returns false when it does not fit */
  #putPath(path: string): boolean {
    const { written, read } = new TextEncoder().encodeInto(
      path,
      this.#scratchBytes.subarray(0, Scratch.PATH - 1),
    );
    this.#scratchBytes[written] = 0;
    return read === path.length && !path.includes("\0");
  }

  /** Puts a `struct sockaddr_un` into the scratch memory. @returns its size, or an error */
  #putSocketAddress(path: string): number {
    const name = new TextEncoder().encode(path);
    if (name.length > SOCKET_PATH_BYTES_MAX) return -Errno.ENAMETOOLONG;
    if (name.length === 0 || name.includes(0)) return -Errno.EINVAL;
    this.#scratch.view.u16[0] = Flag.AF_UNIX;
    this.#scratchBytes.set(name, 2);
    this.#scratchBytes[2 + name.length] = 0;
    return 3 + name.length;
  }

  #opened(result: number, owner: string): number {
    return result < 0 ? this.#error() : this.ledger.enter(result, owner);
  }

  #result(result: number): number {
    return result < 0 ? this.#error() : result;
  }

  #error(): number {
    return -this.#calls.errno();
  }
}
