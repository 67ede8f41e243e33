/**
 * A client's socket, used so that nothing of it is lost when this process is killed.
 *
 * Bytes are looked at first: descriptors among them go to the supervisor's custody, and only then
 * are the bytes taken, straight into the journal, with the count written by the kernel. A crash
 * before the taking finds everything still in the socket, a crash after it everything in the journal.
 */
import { Errno } from "../../errno.ts";
import type { Mapping } from "../system/mapping.ts";
import { MessageSlot, SLOT_BYTES } from "../system/message-slot.ts";
import type { System } from "../system/system.ts";
import type { Carried } from "../vfio-user/assembler.ts";
import { CLOSED, type Transport } from "../vfio-user/ports.ts";
import { HEADER_BYTES, Header } from "../vfio-user/protocol.ts";
import { StreamMemory } from "../vfio-user/stream-memory.ts";
import type { DeviceJournal } from "./device-journal.ts";

/** Where descriptors are kept that must outlive this process. */
export interface Custody {
  /**
   * Leaves copies in custody before it returns.
   *
   * @param taken - bytes of the stream that were taken before: what came with bytes behind them
   *   was kept by a process that ended before it took these, and is replaced
   * @param end - bytes of the stream up to the end of the receive that brings the descriptors
   * @returns the descriptors by numbers that stay the same for a successor
   */
  keep(fds: readonly number[], taken: number, end: number): readonly number[];
}

/** A descriptor in custody. */
export interface Kept {
  /** Its number in the process that had it. */
  readonly number: number;
  readonly end: number;
}

/** The socket of a connection. */
export class JournalTransport implements Transport {
  readonly fd: number;
  readonly #system: System;
  readonly #journal: DeviceJournal;
  readonly #custody: Custody;
  readonly #owner: string;
  readonly #memory: Mapping;
  readonly #peek: MessageSlot;

  constructor(system: System, fd: number, journal: DeviceJournal, custody: Custody, owner: string) {
    this.fd = fd;
    this.#system = system;
    this.#journal = journal;
    this.#custody = custody;
    this.#owner = owner;
    this.#memory = system.allocate(SLOT_BYTES, owner);
    this.#peek = new MessageSlot(this.#memory, 0);
  }

  receive(target: Uint8Array, at: number, count: number, fds: number[]): number {
    const address = this.#journal.addressOf(target, at);
    const { received } = this.#journal;
    const peek = this.#peek;
    peek.aim(address, count);
    peek.acceptDescriptors();
    const seen = this.#system.receive(this.fd, peek, "peek", this.#owner);
    if (seen <= 0) return seen === -Errno.EAGAIN ? 0 : CLOSED;
    const carried = peek.descriptors();
    if (carried.length > 0) {
      const { total } = received;
      fds.push(...this.#custody.keep(carried, total, total + seen));
    }
    if (peek.isTruncated) fds.push(-1);
    // Without room for descriptors: those in the socket are copies that have served.
    const slot = received.aim(address, seen, at);
    const taken = this.#system.receive(this.fd, slot, "take", this.#owner);
    return taken > 0 ? taken : CLOSED;
  }

  send(source: Uint8Array, at: number, count: number, fds: readonly number[]): number {
    const slot = this.#journal.sent.aim(this.#journal.addressOf(source, at), count, at);
    slot.attach(fds);
    const sent = this.#system.send(this.fd, slot);
    if (sent >= 0) return sent;
    return sent === -Errno.EAGAIN ? 0 : CLOSED;
  }

  close(): void {
    this.#system.unmap(this.#memory);
    this.#system.close(this.fd);
  }
}

/**
 * Brings the stream of a killed process up to what the kernel did for it last.
 *
 * @param kept - descriptors in custody
 * @returns those that came with messages nobody has handled, by position of these
 */
export function recoverStream(journal: DeviceJournal, kept: readonly Kept[]): Carried[] {
  const memory = new StreamMemory(journal.storage);
  const received = journal.received.unnoted;
  const sent = journal.sent.unnoted;
  if (received !== null) memory.inputEnd = received.position + received.count;
  if (sent !== null) memory.outputStart = sent.position + sent.count;
  if (received !== null || sent !== null) memory.commit();
  const { total } = journal.received;
  const byEnd = new Map<number, number[]>();
  for (const { number, end } of kept) {
    if (end > total - (memory.inputEnd - memory.inputStart) && end <= total)
      byEnd.set(end, [...(byEnd.get(end) ?? []), number]);
  }
  return [...byEnd].map(([end, fds]) => ({
    owner: lastBeginning(memory, memory.inputEnd - (total - end)),
    fds,
    isRefused: false,
  }));
}

/** Where the last message begins of which a byte lies before `end`. */
function lastBeginning(memory: StreamMemory, end: number): number {
  let at = memory.inputStart;
  for (;;) {
    if (at + HEADER_BYTES > end) return at;
    const size = Header.get.size(memory.inputView, at);
    if (size < HEADER_BYTES || at + size >= end) return at;
    at += size;
  }
}
