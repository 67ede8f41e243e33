/**
 * Stream sockets of the simulated kernel, with descriptors that travel in them.
 *
 * As on Linux, a send is a segment of the receiver's queue; a receive takes bytes of several
 * segments, but none beyond the first that carried descriptors, and hands those over with the
 * segment's first byte. Source: net/unix/af_unix.c, unix_stream_read_generic.
 */
import { Errno } from "../../errno.ts";
import type { Counted } from "./simulated-object.ts";

/** What sockets are bounded by. */
export interface SocketLimits {
  /** Bytes that a socket takes before its reader must read. */
  readonly socketBytes: number;
}

interface Segment {
  bytes: Uint8Array;
  /** Until the first byte has been taken. */
  carried: readonly Counted[];
}

/** What a receive found. */
export interface Received {
  readonly count: number;
  readonly carried: readonly Counted[];
}

/** One end of a connection. */
export class SimulatedSocket implements Counted {
  readonly kind = "socket";
  references = 0;
  peer: SimulatedSocket | null = null;
  /** An error that the next call reports. */
  pendingError = 0;
  isShut = false;
  readonly #limits: SocketLimits;
  readonly #queue: Segment[] = [];
  #queued = 0;

  constructor(limits: SocketLimits) {
    this.#limits = limits;
  }

  static pair(limits: SocketLimits): readonly [SimulatedSocket, SimulatedSocket] {
    const ends = [new SimulatedSocket(limits), new SimulatedSocket(limits)] as const;
    ends[0].peer = ends[1];
    ends[1].peer = ends[0];
    return ends;
  }

  get hasInput(): boolean {
    return this.#queued > 0 || this.isEnded || this.pendingError !== 0;
  }

  get hasRoom(): boolean {
    return this.peer !== null && this.peer.#queued < this.#limits.socketBytes;
  }

  /** Whether nothing will come any more. */
  get isEnded(): boolean {
    return this.peer === null || this.isShut;
  }

  /** Takes references of what it carries. @returns bytes, or an error */
  send(bytes: Uint8Array, carried: readonly Counted[]): number {
    const { peer } = this;
    if (peer === null || this.isShut || peer.isShut) return -Errno.EPIPE;
    const room = this.#limits.socketBytes - peer.#queued;
    if (room <= 0) return -Errno.EAGAIN;
    const sent = bytes.slice(0, room);
    if (sent.length === 0) return 0;
    for (const object of carried) object.references += 1;
    peer.#queue.push({ bytes: sent, carried });
    peer.#queued += sent.length;
    return sent.length;
  }

  /** Copies out of the queue; what was carried still has the queue's reference. */
  receive(target: Uint8Array, isPeek: boolean): Received | number {
    if (this.#queued === 0) {
      const error = this.pendingError;
      this.pendingError = 0;
      if (error !== 0) return -error;
      return this.isEnded ? { count: 0, carried: [] } : -Errno.EAGAIN;
    }
    let count = 0;
    let carried: readonly Counted[] = [];
    let index = 0;
    while (index < this.#queue.length && count < target.length) {
      const segment = this.#queue[index]!;
      const part = segment.bytes.subarray(0, target.length - count);
      target.set(part, count);
      count += part.length;
      carried = segment.carried;
      if (isPeek) index += 1;
      else this.#take(segment, part.length);
      if (carried.length > 0) break;
    }
    return { count, carried };
  }

  #take(segment: Segment, bytes: number): void {
    this.#queued -= bytes;
    segment.carried = [];
    if (bytes === segment.bytes.length) this.#queue.shift();
    else segment.bytes = segment.bytes.subarray(bytes);
  }

  /** The last holder has gone. @returns what was still on its way here */
  close(): readonly Counted[] {
    const { peer } = this;
    if (peer !== null) {
      // Whoever leaves mail unread resets the connection.
      if (this.#queued > 0) peer.pendingError = Errno.ECONNRESET;
      peer.peer = null;
    }
    this.peer = null;
    return this.#queue.splice(0).flatMap((segment) => segment.carried);
  }

  shutdown(): void {
    this.isShut = true;
    if (this.peer !== null) this.peer.isShut = true;
  }
}

/** A socket that others connect to. */
export class SimulatedListener implements Counted {
  readonly kind = "listener";
  references = 0;
  isClosed = false;
  readonly backlog: number;
  readonly waiting: SimulatedSocket[] = [];
  readonly #limits: SocketLimits;

  constructor(limits: SocketLimits, backlog: number) {
    this.#limits = limits;
    this.backlog = backlog;
  }

  /** A new connection's client end, or an error. */
  connect(): SimulatedSocket | number {
    if (this.isClosed) return -Errno.ECONNREFUSED;
    if (this.waiting.length > this.backlog) return -Errno.EAGAIN;
    const [client, server] = SimulatedSocket.pair(this.#limits);
    server.references = 1;
    this.waiting.push(server);
    return client;
  }

  close(): readonly Counted[] {
    this.isClosed = true;
    return this.waiting.splice(0);
  }
}
