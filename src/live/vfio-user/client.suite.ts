/**
 * A vfio-user client for tests, written from the protocol's text alone: it shares nothing with the
 * server but bytes on a socket. It speaks in hexadecimal offsets on purpose.
 */
import { expect } from "vitest";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import type { System } from "../system/system.ts";

/** A message as it came back. */
export interface Answer {
  readonly id: number;
  readonly command: number;
  readonly flags: number;
  /** 0 for success. */
  readonly errno: number;
  readonly payload: Uint8Array;
  readonly view: DataView;
  readonly fds: readonly number[];
}

/** How a request goes out. */
export interface Sending {
  readonly id?: number;
  readonly flags?: number;
  readonly fds?: readonly number[];
  /** In place of the right one. */
  readonly size?: number;
}

const BUFFER_BYTES = 2 ** 21;

export const text = (json: string): Uint8Array => new TextEncoder().encode(`${json}\0`);

/** A little-endian structure out of [bytes, value] pairs. */
export function pack(...parts: readonly (readonly [1 | 2 | 4 | 8, number | bigint])[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, [size]) => sum + size, 0));
  let at = 0;
  for (const [size, value] of parts) {
    for (let index = 0; index < size; index += 1) {
      bytes[at + index] = Number((BigInt.asUintN(64, BigInt(value)) >> BigInt(8 * index)) & 0xffn);
    }
    at += size;
  }
  return bytes;
}

export function join(...parts: readonly Uint8Array[]): Uint8Array {
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    bytes.set(part, at);
    at += part.length;
  }
  return bytes;
}

export const unhex = (digits: string): Uint8Array =>
  Uint8Array.from(digits.replace(/\s/g, "").match(/../g) ?? [], (pair) =>
    Number.parseInt(pair, 16),
  );
export const hexOf = (bytes: Uint8Array): string =>
  [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** The bytes of a message. */
export function message(command: number, payload: Uint8Array, sending: Sending = {}): Uint8Array {
  const { id = 0, flags = 0, size = 16 + payload.length } = sending;
  return join(pack([2, id], [2, command], [4, size], [4, flags], [4, 0]), payload);
}

/** A client. */
export class TestClient {
  readonly fd: number;
  readonly system: System;
  /** Lets the server work until nothing is left to do. */
  readonly #settle: () => void;
  readonly #memory;
  readonly #slot: MessageSlot;
  #input: Uint8Array = new Uint8Array(0);
  #fds: { at: number; fds: number[] }[] = [];
  #received = 0;
  #taken = 0;
  #nextId = 1;
  isOpen = true;

  constructor(system: System, fd: number, settle: () => void) {
    this.system = system;
    this.fd = fd;
    this.#settle = settle;
    this.#memory = system.allocate(SLOT_BYTES + BUFFER_BYTES, "client");
    this.#slot = new MessageSlot(this.#memory, 0);
  }

  /** Sends bytes as they are, in one send; what the socket does not take is lost. */
  sendRaw(bytes: Uint8Array, fds: readonly number[] = []): number {
    this.#memory.view.u8.set(bytes, SLOT_BYTES);
    this.#slot.aim(this.#memory.address + SLOT_BYTES, bytes.length);
    this.#slot.attach(fds);
    return this.system.send(this.fd, this.#slot);
  }

  /** Lets the server work. */
  settleFor(turns: number): void {
    for (let turn = 0; turn < turns; turn += 1) this.#settle();
  }

  /** Sends all of it, letting the server read between. */
  sendAll(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length; ) {
      const sent = this.sendRaw(bytes.subarray(at, at + BUFFER_BYTES));
      if (sent > 0) at += sent;
      this.#settle();
    }
  }

  /** Sends a command. @returns its id */
  send(command: number, payload: Uint8Array = new Uint8Array(0), sending: Sending = {}): number {
    const id = sending.id ?? this.#nextId++ & 0xffff;
    const bytes = message(command, payload, { ...sending, id });
    expect(this.sendRaw(bytes, sending.fds)).toBe(bytes.length);
    return id;
  }

  /** Sends a command and returns its reply, which has to come, alone. */
  ask(command: number, payload: Uint8Array = new Uint8Array(0), sending: Sending = {}): Answer {
    const id = this.send(command, payload, sending);
    const answer = this.next();
    if (answer === null) throw new Error(`no reply to command ${command}`);
    expect(answer.id).toBe(id);
    expect(answer.command).toBe(command);
    expect(answer.flags & 0xf).toBe(1);
    expect(answer.flags).toBe(answer.errno === 0 ? 1 : 0x21);
    if (answer.errno !== 0) expect(answer.payload.length).toBe(0);
    return answer;
  }

  /** As {@link ask}, for the errno alone. */
  errno(command: number, payload?: Uint8Array, sending?: Sending): number {
    const answer = this.ask(command, payload, sending);
    for (const fd of answer.fds) this.system.close(fd);
    return answer.errno;
  }

  /** The next message that came from the server, or null. */
  next(): Answer | null {
    // A reply may be longer than what a socket holds.
    for (let before = -1; before !== this.#received && !this.#isWhole(); ) {
      before = this.#received;
      this.#settle();
      this.#receive();
    }
    if (this.#input.length < 16) return null;
    const head = new DataView(this.#input.buffer, this.#input.byteOffset, this.#input.length);
    const size = head.getUint32(4, true);
    if (this.#input.length < size) return null;
    const payload = this.#input.slice(16, size);
    const fds: number[] = [];
    this.#fds = this.#fds.filter((each) => {
      if (each.at < this.#taken || each.at >= this.#taken + size) return true;
      // A sender attaches descriptors to a message's first byte.
      fds.push(...each.fds);
      return false;
    });
    this.#input = this.#input.slice(size);
    this.#taken += size;
    const flags = head.getUint32(8, true);
    return {
      id: head.getUint16(0, true),
      command: head.getUint16(2, true),
      flags,
      errno: (flags & 0x20) === 0 ? 0 : head.getUint32(12, true),
      payload,
      view: new DataView(payload.buffer),
      fds,
    };
  }

  #isWhole(): boolean {
    const { length } = this.#input;
    if (length < 16) return false;
    return length >= new DataView(this.#input.buffer, this.#input.byteOffset).getUint32(4, true);
  }

  /** How many messages come. */
  drain(): Answer[] {
    const answers: Answer[] = [];
    for (let answer = this.next(); answer !== null; answer = this.next()) answers.push(answer);
    return answers;
  }

  /** Takes what has arrived, `most` bytes at a time. */
  #receive(): void {
    for (;;) {
      this.#slot.aim(this.#memory.address + SLOT_BYTES, BUFFER_BYTES);
      this.#slot.acceptDescriptors();
      const count = this.system.receive(this.fd, this.#slot, "take", "client");
      if (count === 0 || (count < 0 && count !== -11)) this.isOpen = false;
      if (count <= 0) return;
      const bytes = this.#memory.view.u8.slice(SLOT_BYTES, SLOT_BYTES + count);
      const fds = this.#slot.descriptors();
      // Whole messages without descriptors come first: those belong to the last one that begins.
      if (fds.length > 0) this.#fds.push({ at: this.#lastStart(bytes), fds });
      this.#input = join(this.#input, bytes);
      this.#received += count;
    }
  }

  #lastStart(bytes: Uint8Array): number {
    const all = join(this.#input, bytes);
    const view = new DataView(all.buffer);
    let at = 0;
    while (at + 16 <= all.length && at + view.getUint32(4 + at, true) < all.length) {
      at += view.getUint32(4 + at, true);
    }
    return this.#taken + at;
  }

  // The commands, by what their payloads are.

  version(json?: string, major = 0, minor = 0): Answer {
    const tail = json === undefined ? new Uint8Array(0) : text(json);
    return this.ask(1, join(pack([2, major], [2, minor]), tail));
  }

  map(
    address: number | bigint,
    size: number | bigint,
    options: { fd?: number; offset?: number | bigint; flags?: number; argsz?: number } = {},
  ): number {
    const { fd, offset = 0, flags = 3, argsz = 32 } = options;
    const payload = pack([4, argsz], [4, flags], [8, offset], [8, address], [8, size]);
    return this.errno(2, payload, fd === undefined ? {} : { fds: [fd] });
  }

  unmap(address: number | bigint, size: number | bigint, flags = 0, argsz = 24): number {
    return this.errno(3, pack([4, argsz], [4, flags], [8, address], [8, size]));
  }

  read(region: number, offset: number | bigint, count: number): Answer {
    return this.ask(9, pack([8, offset], [4, region], [4, count]));
  }

  write(region: number, offset: number | bigint, data: Uint8Array, sending?: Sending): Answer {
    const payload = join(pack([8, offset], [4, region], [4, data.length]), data);
    return this.ask(10, payload, sending);
  }

  /** A write that wants no reply. */
  post(region: number, offset: number, data: Uint8Array): void {
    const payload = join(pack([8, offset], [4, region], [4, data.length]), data);
    this.send(10, payload, { flags: 0x10 });
  }

  setIrqs(
    flags: number,
    index: number,
    start: number,
    count: number,
    options: { fds?: readonly number[]; data?: Uint8Array; argsz?: number } = {},
  ): number {
    const { fds = [], data = new Uint8Array(0), argsz = 20 + data.length } = options;
    const head = pack([4, argsz], [4, flags], [4, index], [4, start], [4, count]);
    return this.errno(8, join(head, data), { fds });
  }

  reset(): number {
    return this.errno(13);
  }

  /** Takes the connection away without a word. */
  close(): void {
    if (this.isOpen || this.system.ledger.holds(this.fd)) this.system.close(this.fd);
    for (const { fds } of this.#fds) for (const fd of fds) this.system.close(fd);
    this.system.unmap(this.#memory);
    this.isOpen = false;
    this.#settle();
  }
}
