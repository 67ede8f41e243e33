/**
 * A client's stream over a socket of `live/system`.
 */
import { Errno } from "../../errno.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import type { System } from "../system/system.ts";
import { CLOSED, type Transport } from "./ports.ts";

/** The stream. Who makes it gives it the socket. */
export class SocketTransport implements Transport {
  readonly fd: number;
  readonly #system: System;
  readonly #owner: string;
  readonly #slots: Mapping;
  readonly #in: MessageSlot;
  readonly #out: MessageSlot;
  #buffer: ArrayBufferLike | null = null;
  #bufferAddress = 0;

  /** @param owner - of the descriptors received, in the ledger */
  constructor(system: System, fd: number, owner: string) {
    this.fd = fd;
    this.#system = system;
    this.#owner = owner;
    this.#slots = system.allocate(2 * SLOT_BYTES, owner);
    this.#in = new MessageSlot(this.#slots, 0);
    this.#out = new MessageSlot(this.#slots, SLOT_BYTES);
  }

  receive(target: Uint8Array, at: number, count: number, fds: number[]): number {
    const slot = this.#in;
    slot.aim(this.#addressOf(target) + at, count);
    slot.acceptDescriptors();
    const received = this.#system.receive(this.fd, slot, "take", this.#owner);
    if (received === -Errno.EAGAIN) return 0;
    if (received <= 0) return CLOSED;
    fds.push(...slot.descriptors());
    if (slot.isTruncated) fds.push(-1);
    return received;
  }

  send(source: Uint8Array, at: number, count: number, fds: readonly number[]): number {
    const slot = this.#out;
    slot.aim(this.#addressOf(source) + at, count);
    slot.attach(fds);
    const sent = this.#system.send(this.fd, slot);
    if (sent === -Errno.EAGAIN) return 0;
    return sent < 0 ? CLOSED : sent;
  }

  close(): void {
    this.#system.unmap(this.#slots);
    this.#system.close(this.fd);
  }

  /** Asking for an address is a foreign call, and the buffers stay the same. */
  #addressOf(bytes: Uint8Array): number {
    if (bytes.buffer !== this.#buffer) {
      this.#buffer = bytes.buffer;
      this.#bufferAddress = this.#system.addressOf(bytes.buffer);
    }
    return this.#bufferAddress + bytes.byteOffset;
  }
}
