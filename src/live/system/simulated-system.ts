/**
 * The operating system as a simulated process sees it: a descriptor table and an address space of
 * its own over a {@link SimulatedKernel}. What other rooms test against, without Linux.
 *
 * Not simulated: views of an unmapped window go on showing the file, and a file that shrinks below
 * a mapping raises no signal.
 */

import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Ledger } from "./ledger.ts";
import { MAP_BYTES_MAX, type Mapping } from "./mapping.ts";
import type { MessageSlot } from "./message-slot.ts";
import type { PieceList } from "./piece-list.ts";
import { Poll, type PollSet } from "./poll-set.ts";
import type { SimulatedFile } from "./simulated-file.ts";
import type { SimulatedKernel, SimulatedObject } from "./simulated-kernel.ts";
import { SimulatedMemory } from "./simulated-memory.ts";
import { release, SimulatedEvent } from "./simulated-object.ts";
import { SimulatedListener, SimulatedSocket } from "./simulated-socket.ts";
import { SimulatedSyncQueue } from "./simulated-sync-queue.ts";
import type { SyncQueue } from "./sync-queue.ts";
import {
  type FileStatus,
  type MapRequest,
  type Receiving,
  SOCKET_PATH_BYTES_MAX,
  type System,
} from "./system.ts";

const FIRST_DESCRIPTOR = 3;

interface Open {
  readonly object: SimulatedObject;
  readonly isWritable: boolean;
}

/** A simulated process. */
export class SimulatedSystem implements System {
  readonly name = "simulated";
  readonly pageBytes = 4096;
  readonly ledger = new Ledger();
  readonly kernel: SimulatedKernel;
  readonly #table = new Map<number, Open>();
  readonly #memory = new SimulatedMemory();

  constructor(kernel: SimulatedKernel) {
    this.kernel = kernel;
  }

  now(): number {
    return this.kernel.now;
  }

  close(fd: number): void {
    this.ledger.strike(fd);
    this.#drop(fd);
  }

  /** The process is killed: every descriptor closes, and its memory is gone. */
  kill(): void {
    for (const { kind, id } of this.ledger.open) if (kind === "descriptor") this.close(id);
  }

  /** Gives another process a descriptor of the same thing, as a message would. */
  give(fd: number, to: SimulatedSystem, owner: string, lowest = 0): number {
    const open = this.#table.get(fd);
    assert(open !== undefined, "what is given is open");
    return to.#install(open.object, owner, open.isWritable, lowest);
  }

  duplicate(fd: number, owner: string, lowest = 0): number {
    const open = this.#table.get(fd);
    if (open === undefined) return -Errno.EBADF;
    return this.#fault("duplicate") || this.#install(open.object, owner, open.isWritable, lowest);
  }

  duplicateTo(fd: number, target: number, owner: string): number {
    return this.#table.has(target) ? -Errno.EBUSY : this.duplicate(fd, owner, target);
  }

  status(fd: number): FileStatus | number {
    const object = this.#table.get(fd)?.object;
    if (object === undefined) return -Errno.EBADF;
    const failed = this.#fault("status");
    if (failed < 0) return failed;
    const common = { device: "0:1", blockBytes: 4096, mode: 0o600, userId: 0 };
    if (object.kind === "file")
      return { ...common, kind: object.fileKind, inode: object.inode, bytes: object.bytes };
    return { ...common, kind: object.kind === "event" ? "other" : "socket", inode: 0, bytes: 0 };
  }

  isWritable(fd: number): boolean {
    return this.#table.get(fd)?.isWritable === true;
  }

  allocate(bytes: number, owner: string): Mapping {
    const rounded = (bytes + this.pageBytes - 1) & -this.pageBytes;
    return this.#mapped(this.#memory.map(new ArrayBuffer(rounded), 0, rounded), owner);
  }

  map(request: MapRequest, owner: string): Mapping | number {
    const { fd, offset, bytes, access } = request;
    const file = this.#file(fd);
    if (typeof file === "number") return file === -Errno.EINVAL ? -Errno.ENODEV : file;
    if (bytes < 1 || bytes > MAP_BYTES_MAX || offset % this.pageBytes !== 0) return -Errno.EINVAL;
    if (access === "shared" && !this.#table.get(fd)!.isWritable) return -Errno.EACCES;
    const failed = this.#fault("map");
    if (failed < 0) return failed;
    // Pages past the end exist, and fault when touched; here there is simply nothing.
    if (offset + bytes > file.buffer.byteLength) return -Errno.EINVAL;
    const isShared = access === "shared";
    const buffer = isShared ? file.buffer : file.buffer.slice(offset, offset + bytes);
    return this.#mapped(this.#memory.map(buffer, isShared ? offset : 0, bytes), owner);
  }

  unmap(mapping: Mapping): void {
    this.ledger.strikeMapping(mapping.address);
    this.#memory.unmap(mapping);
  }

  addressOf(buffer: ArrayBufferLike): number {
    return this.#memory.addressOf(buffer);
  }

  createMemoryFile(_name: string, bytes: number, owner: string): number {
    const failed = this.#fault("createMemoryFile");
    if (failed < 0) return failed;
    const file = this.kernel.newFile("regular", bytes);
    file.seals = 0;
    return this.#install(file, owner);
  }

  resize(fd: number, bytes: number): number {
    const file = this.#file(fd);
    return typeof file === "number" ? file : this.#fault("resize") || file.resize(bytes);
  }

  seals(fd: number): number {
    const file = this.#file(fd);
    return typeof file === "number" ? file : (file.seals ?? -Errno.EINVAL);
  }

  addSeals(fd: number, seals: number): number {
    const file = this.#file(fd);
    if (typeof file === "number") return file;
    if (!this.#table.get(fd)!.isWritable) return -Errno.EPERM;
    return file.addSeals(seals);
  }

  open(path: string, access: "read" | "read-write", owner: string): number {
    const file = this.kernel.names.get(path);
    if (file === undefined) return -Errno.ENOENT;
    if (file.kind !== "file") return -Errno.ENXIO;
    if (access === "read-write" && file.isReadOnly) return -Errno.EACCES;
    return this.#fault("open") || this.#install(file, owner, access === "read-write");
  }

  read(fd: number, pieces: PieceList, offset: number): number {
    return this.#transfer("read", fd, pieces, (file, at, memory) =>
      file.readAt(offset + at, memory),
    );
  }

  write(fd: number, pieces: PieceList, offset: number): number {
    if (this.#table.get(fd)?.isWritable === false) return -Errno.EBADF;
    return this.#transfer("write", fd, pieces, (file, at, memory) =>
      file.writeAt(offset + at, memory),
    );
  }

  sync(fd: number): number {
    const file = this.#file(fd);
    if (typeof file === "number") return file;
    const failed = this.#fault("sync");
    if (failed === 0) file.syncs += 1;
    return failed;
  }

  createSyncQueue(owner: string): SyncQueue | number {
    const fd = this.createEvent(owner);
    return fd < 0 ? fd : new SimulatedSyncQueue(this, fd);
  }

  punchHole(fd: number, offset: number, bytes: number): number {
    return this.#zero("punchHole", fd, offset, bytes);
  }

  zeroRange(fd: number, offset: number, bytes: number): number {
    return this.#zero("zeroRange", fd, offset, bytes);
  }

  listen(path: string, backlog: number, owner: string): number {
    const wrong = this.#wrongPath(path);
    if (wrong < 0) return wrong;
    if (this.kernel.names.has(path)) return -Errno.EADDRINUSE;
    const failed = this.#fault("listen");
    if (failed < 0) return failed;
    const listener = new SimulatedListener(this.kernel, backlog);
    const fd = this.#install(listener, owner);
    if (fd >= 0) this.kernel.names.set(path, listener);
    return fd;
  }

  connect(path: string, owner: string): number {
    const wrong = this.#wrongPath(path);
    if (wrong < 0) return wrong;
    const listener = this.kernel.names.get(path);
    if (listener === undefined) return -Errno.ENOENT;
    if (listener.kind !== "listener") return -Errno.ECONNREFUSED;
    const failed = this.#fault("connect");
    if (failed < 0) return failed;
    const client = listener.connect();
    return typeof client === "number" ? client : this.#install(client, owner);
  }

  accept(fd: number, owner: string): number {
    const listener = this.#table.get(fd)?.object;
    if (listener === undefined) return -Errno.EBADF;
    if (listener.kind !== "listener") return -Errno.EINVAL;
    const failed = this.#fault("accept");
    if (failed < 0) return failed;
    const socket = listener.waiting[0];
    if (socket === undefined) return -Errno.EAGAIN;
    const accepted = this.#install(socket, owner);
    if (accepted < 0) return accepted;
    listener.waiting.shift();
    release(socket);
    return accepted;
  }

  socketPair(owner: string): readonly [number, number] | number {
    const failed = this.#fault("socketPair");
    if (failed < 0) return failed;
    const [one, other] = SimulatedSocket.pair(this.kernel);
    const first = this.#install(one, owner);
    if (first < 0) return first;
    const second = this.#install(other, owner);
    if (second >= 0) return [first, second];
    this.close(first);
    return second;
  }

  receive(fd: number, slot: MessageSlot, how: Receiving, owner: string): number {
    const socket = this.#socket(fd);
    if (typeof socket === "number") return socket;
    const target = this.#memory.bytesAt(slot.targetAddress, slot.targetBytes);
    if (target === null) return -Errno.EFAULT;
    const failed = this.#fault("receive");
    if (failed < 0) return failed;
    const isPeek = how === "peek";
    const received = socket.receive(target, isPeek);
    if (typeof received === "number") return received;
    const { count } = received;
    // Only objects of this kernel are ever sent.
    const carried = received.carried as readonly SimulatedObject[];
    const fds: number[] = [];
    for (const object of carried.slice(0, slot.room)) {
      const installed = this.#install(object, owner);
      if (installed < 0) break;
      fds.push(installed);
    }
    if (!isPeek) for (const object of carried) release(object);
    slot.complete(count, fds, fds.length < carried.length);
    return count;
  }

  send(fd: number, slot: MessageSlot): number {
    const socket = this.#socket(fd);
    if (typeof socket === "number") return socket;
    const source = this.#memory.bytesAt(slot.targetAddress, slot.targetBytes);
    if (source === null) return -Errno.EFAULT;
    const carried = slot.descriptors().map((each) => this.#table.get(each)?.object);
    if (carried.includes(undefined)) return -Errno.EBADF;
    const failed = this.#fault("send");
    if (failed < 0) return failed;
    const sent = socket.send(source, carried as SimulatedObject[]);
    if (sent >= 0) slot.countSent(sent);
    return sent;
  }

  shutdown(fd: number): number {
    const socket = this.#socket(fd);
    if (typeof socket === "number") return socket;
    if (socket.peer === null) return -Errno.ENOTCONN;
    socket.shutdown();
    return 0;
  }

  peer(fd: number): { readonly userId: number; readonly processId: number } | number {
    const socket = this.#socket(fd);
    return typeof socket === "number" ? socket : { userId: 0, processId: 1 };
  }

  createEvent(owner: string): number {
    return this.#fault("createEvent") || this.#install(new SimulatedEvent(), owner);
  }

  signal(fd: number): number {
    const event = this.#table.get(fd)?.object;
    if (event === undefined) return -Errno.EBADF;
    if (event.kind !== "event") return -Errno.EINVAL;
    event.count += 1;
    return 0;
  }

  drain(fd: number): boolean {
    const event = this.#table.get(fd)?.object;
    if (event?.kind !== "event" || event.count === 0) return false;
    event.count = 0;
    return true;
  }

  poll(set: PollSet, timeoutUs: number): number {
    for (let ready = this.#look(set); ; ready = this.#look(set)) {
      if (ready > 0 || timeoutUs === 0) return ready;
      if (!this.kernel.idle()) break;
    }
    this.kernel.now += Math.max(0, timeoutUs);
    return 0;
  }

  #look(set: PollSet): number {
    let ready = 0;
    for (let index = 0; index < set.capacity; index += 1) {
      const fd = set.fd(index);
      const came = fd < 0 ? 0 : this.#readiness(fd, set.events(index));
      set.setReady(index, came);
      if (came !== 0) ready += 1;
    }
    return ready;
  }

  #readiness(fd: number, wanted: number): number {
    const object = this.#table.get(fd)?.object;
    if (object === undefined) return Poll.NVAL;
    switch (object.kind) {
      case "event":
        return (object.count > 0 ? Poll.IN | Poll.OUT : Poll.OUT) & wanted;
      case "listener":
        return (object.waiting.length > 0 ? Poll.IN : 0) & wanted;
      case "socket": {
        const able = (object.hasInput ? Poll.IN : 0) | (object.hasRoom ? Poll.OUT : 0);
        const error = object.pendingError === 0 ? 0 : Poll.ERR;
        return (able & wanted) | (object.isEnded ? Poll.HUP : 0) | error;
      }
      case "file":
        return (Poll.IN | Poll.OUT) & wanted;
    }
  }

  #transfer(
    call: string,
    fd: number,
    pieces: PieceList,
    move: (file: SimulatedFile, at: number, memory: Uint8Array) => number,
  ): number {
    const file = this.#file(fd);
    if (typeof file === "number") return file;
    const failed = this.#fault(call);
    if (failed < 0) return failed;
    let done = 0;
    for (let index = 0; index < pieces.count; index += 1) {
      const bytes = pieces.pieceBytes(index);
      const memory = this.#memory.bytesAt(pieces.pieceAddress(index), bytes);
      const moved = memory === null ? -Errno.EFAULT : move(file, done, memory);
      if (moved < 0) return done > 0 ? done : moved;
      done += moved;
      if (moved < bytes) break;
    }
    return done;
  }

  #zero(call: string, fd: number, offset: number, bytes: number): number {
    const file = this.#file(fd);
    if (typeof file === "number") return file;
    if (!this.#table.get(fd)!.isWritable) return -Errno.EBADF;
    return this.#fault(call) || file.zero(offset, bytes);
  }

  #mapped(mapping: Mapping, owner: string): Mapping {
    this.ledger.enterMapping(mapping.address, owner);
    return mapping;
  }

  #file(fd: number): SimulatedFile | number {
    const object = this.#table.get(fd)?.object;
    if (object === undefined) return -Errno.EBADF;
    return object.kind === "file" ? object : -Errno.EINVAL;
  }

  #socket(fd: number): SimulatedSocket | number {
    const object = this.#table.get(fd)?.object;
    if (object === undefined) return -Errno.EBADF;
    return object.kind === "socket" ? object : -Errno.ENOTSOCK;
  }

  #install(object: SimulatedObject, owner: string, isWritable = true, lowest = 0): number {
    if (this.#table.size >= this.kernel.descriptorsMax) {
      if (object.references === 0) release(object);
      return -Errno.EMFILE;
    }
    let fd = Math.max(lowest, FIRST_DESCRIPTOR);
    while (this.#table.has(fd)) fd += 1;
    object.references += 1;
    this.#table.set(fd, { object, isWritable });
    return this.ledger.enter(fd, owner);
  }

  #drop(fd: number): void {
    const open = this.#table.get(fd);
    assert(open !== undefined, "the ledger knows every descriptor");
    this.#table.delete(fd);
    release(open.object);
  }

  #wrongPath(path: string): number {
    const bytes = new TextEncoder().encode(path).length;
    if (bytes > SOCKET_PATH_BYTES_MAX) return -Errno.ENAMETOOLONG;
    return bytes === 0 || path.includes("\0") ? -Errno.EINVAL : 0;
  }

  #fault(call: string): number {
    return 0 - this.kernel.fault(call);
  }
}
