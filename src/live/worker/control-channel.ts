/**
 * Frames of JSON with descriptors over a stream socket, between processes of this program.
 *
 * A frame is two 32-bit words (bytes of JSON, number of descriptors) and the JSON; its descriptors
 * go with its first byte. They arrive in the order of the frames, so counting attributes them.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import { Poll, PollSet } from "../system/poll-set.ts";
import type { System } from "../system/system.ts";

const AREA_BYTES = 65_536;
const HEADER_BYTES = 8;
const FRAME_BYTES_MAX = 2 ** 26;
/** Most descriptors of one frame. */
export const FRAME_DESCRIPTORS_MAX = 64;

interface Outgoing {
  readonly bytes: Uint8Array;
  sent: number;
  readonly fds: readonly number[];
}

/** A frame that came. */
export interface Incoming<Frame> {
  readonly frame: Frame;
  /** The receiver's from now on; −1 for one that this process had no room for. */
  readonly fds: readonly number[];
}

/** One end of a channel. */
export class ControlChannel<Sent, Received> {
  readonly fd: number;
  /** Whether the other end has gone. */
  isClosed = false;
  readonly #system: System;
  readonly #owner: string;
  readonly #memory: Mapping;
  readonly #out: MessageSlot;
  readonly #in: MessageSlot;
  readonly #queue: Outgoing[] = [];
  #held: Uint8Array = new Uint8Array(0);
  readonly #heldFds: number[] = [];

  constructor(system: System, fd: number, owner: string) {
    this.fd = fd;
    this.#system = system;
    this.#owner = owner;
    this.#memory = system.allocate(2 * SLOT_BYTES + 2 * AREA_BYTES, owner);
    this.#out = new MessageSlot(this.#memory, 0);
    this.#in = new MessageSlot(this.#memory, SLOT_BYTES);
  }

  /** Whether frames wait for room. */
  get isWaiting(): boolean {
    return this.#queue.length > 0 && !this.isClosed;
  }

  /** Sends a frame, or as much as there is room for. Descriptors must stay open until all is sent. */
  post(frame: Sent, fds: readonly number[] = []): void {
    assert(fds.length <= FRAME_DESCRIPTORS_MAX, "a frame's descriptors fit into a message");
    const json = new TextEncoder().encode(JSON.stringify(frame));
    assert(json.length <= FRAME_BYTES_MAX, "a frame has a bounded size");
    const bytes = new Uint8Array(HEADER_BYTES + json.length);
    const header = new DataView(bytes.buffer);
    header.setUint32(0, json.length, true);
    header.setUint32(4, fds.length, true);
    bytes.set(json, HEADER_BYTES);
    this.#queue.push({ bytes, sent: 0, fds });
    this.flush();
  }

  /** Goes on sending. */
  flush(): void {
    for (let next = this.#queue[0]; next !== undefined; next = this.#queue[0]) {
      const part = next.bytes.subarray(next.sent, next.sent + AREA_BYTES);
      const { address, view } = this.#memory;
      view.u8.set(part, 2 * SLOT_BYTES);
      this.#out.aim(address + 2 * SLOT_BYTES, part.length);
      if (next.sent === 0) this.#out.attach(next.fds);
      const sent = this.#system.send(this.fd, this.#out);
      if (sent === -Errno.EAGAIN) return;
      if (sent < 0) {
        this.isClosed = true;
        this.#queue.length = 0;
        return;
      }
      next.sent += sent;
      if (next.sent === next.bytes.length) this.#queue.shift();
    }
  }

  /** Waits until all frames are sent. @returns false when that took too long, or nobody reads */
  drain(waitUs: number): boolean {
    const set = new PollSet(this.#system, 1, this.#owner);
    set.set(0, this.fd, Poll.OUT);
    const end = this.#system.now() + waitUs;
    while (this.isWaiting && this.#system.now() < end) {
      this.#system.poll(set, end - this.#system.now());
      this.flush();
    }
    set.dispose();
    return !this.isWaiting && !this.isClosed;
  }

  /** The frames that have come. Sets {@link isClosed} at the end, or where they cannot be read. */
  receive(): Incoming<Received>[] {
    const frames: Incoming<Received>[] = [];
    const { address, view } = this.#memory;
    const area = 2 * SLOT_BYTES + AREA_BYTES;
    for (;;) {
      this.#in.aim(address + area, AREA_BYTES);
      this.#in.acceptDescriptors();
      const count = this.#system.receive(this.fd, this.#in, "take", this.#owner);
      if (count === -Errno.EAGAIN) return frames;
      if (count <= 0) {
        this.isClosed = true;
        return frames;
      }
      this.#heldFds.push(...this.#in.descriptors());
      const held = new Uint8Array(this.#held.length + count);
      held.set(this.#held);
      held.set(view.u8.subarray(area, area + count), this.#held.length);
      this.#held = held;
      if (this.#in.isTruncated) this.#padDescriptors();
      this.#cut(frames);
    }
  }

  dispose(): void {
    this.isClosed = true;
    for (const fd of this.#heldFds.splice(0)) if (fd >= 0) this.#system.close(fd);
    this.#system.unmap(this.#memory);
    this.#system.close(this.fd);
  }

  /**
   * Stands in for descriptors that got lost, so that those of later frames are not taken for them.
   * A receive ends behind a message with descriptors: what is missing was the last frame's.
   */
  #padDescriptors(): void {
    let told = 0;
    const header = new DataView(this.#held.buffer, this.#held.byteOffset, this.#held.length);
    for (let at = 0; at + HEADER_BYTES <= this.#held.length; ) {
      told += header.getUint32(at + 4, true);
      at += HEADER_BYTES + header.getUint32(at, true);
    }
    while (this.#heldFds.length < told) this.#heldFds.push(-1);
  }

  #cut(frames: Incoming<Received>[]): void {
    while (this.#held.length >= HEADER_BYTES) {
      const header = new DataView(this.#held.buffer, this.#held.byteOffset, HEADER_BYTES);
      const end = HEADER_BYTES + header.getUint32(0, true);
      assert(end <= FRAME_BYTES_MAX + HEADER_BYTES, "our own frames are bounded");
      if (this.#held.length < end) return;
      const json = new TextDecoder().decode(this.#held.subarray(HEADER_BYTES, end));
      const fds = this.#heldFds.splice(0, header.getUint32(4, true));
      frames.push({ frame: JSON.parse(json) as Received, fds });
      this.#held = this.#held.slice(end);
    }
  }
}
