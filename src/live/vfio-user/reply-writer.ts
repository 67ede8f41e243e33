/**
 * Replies on their way to the client: written in place, sent together, never torn.
 *
 * QEMU takes a header that comes in two pieces for a broken stream (hw/vfio-user/proxy.c:
 * vfio_user_recv_one). A send of {@link RUN_BYTES} or less is one buffer of the kernel, which takes
 * it whole or not at all, so whole replies go out in runs of that size; a longer reply goes alone and
 * can only be torn in its data. What the kernel does not take stays, and no more requests are taken
 * while there is no room for the longest reply.
 */
import { assert } from "../../errors.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import { CLOSED, type Transport } from "./ports.ts";
import { HEADER_BYTES, Header, HeaderFlag, MESSAGE_BYTES_MAX } from "./protocol.ts";
import { OUTPUT_BYTES, type StreamMemory } from "./stream-memory.ts";

/** Most that goes out in one send, unless a single reply is longer. */
const RUN_BYTES = 32_768;

/** The way out of one connection. */
export class ReplyWriter {
  readonly #memory: StreamMemory;
  /** Where the reply being written begins. */
  #reply = 0;
  /** Replies that carry a descriptor, each beginning a send of its own: position and descriptor. */
  #carriers: { readonly at: number; readonly fd: number }[] = [];
  #fd = -1;

  constructor(memory: StreamMemory) {
    this.#memory = memory;
  }

  /** Where payloads are written, as units of a view. */
  get bytes(): MemoryView {
    return this.#memory.output;
  }

  /** Where payloads are written. */
  get view(): DataView {
    return this.#memory.outputView;
  }

  /** Whether something waits for the kernel to take it. */
  get isWaiting(): boolean {
    return this.#memory.outputStart < this.#memory.outputEnd;
  }

  /** Whether the client leaves so much unread that no more of its requests are taken. */
  get isFull(): boolean {
    return OUTPUT_BYTES - this.#memory.outputEnd < MESSAGE_BYTES_MAX;
  }

  /** Begins the reply to a request. */
  begin(): void {
    assert(!this.isFull, "a reply is begun where there is room");
    this.#reply = this.#memory.outputEnd;
    this.#fd = -1;
    this.#memory.outputEnd += HEADER_BYTES;
  }

  /** Adds payload to the reply. @returns the position of its first byte; its bytes are anything */
  add(count: number): number {
    const at = this.#memory.outputEnd;
    assert(at + count - this.#reply <= MESSAGE_BYTES_MAX, "a reply is no longer than a message");
    this.#memory.outputEnd += count;
    return at;
  }

  /** Has the reply carry a descriptor, which stays its owner's. */
  carry(fd: number): void {
    this.#fd = fd;
  }

  /** Ends the reply. An error takes its payload away. */
  finish(id: number, command: number, errno: number): void {
    const memory = this.#memory;
    const { outputView: view } = memory;
    const at = this.#reply;
    if (errno !== 0) memory.outputEnd = at + HEADER_BYTES;
    Header.set.id(view, at, id);
    Header.set.command(view, at, command);
    Header.set.size(view, at, memory.outputEnd - at);
    Header.set.flags(
      view,
      at,
      errno === 0 ? HeaderFlag.REPLY : HeaderFlag.REPLY | HeaderFlag.ERROR,
    );
    Header.set.error(view, at, errno);
    if (errno === 0 && this.#fd >= 0) this.#carriers.push({ at, fd: this.#fd });
  }

  /** Takes the reply back: the client wants none. */
  drop(): void {
    this.#memory.outputEnd = this.#reply;
  }

  /** Sends what the kernel takes now. @returns false when the client is gone */
  flush(transport: Transport): boolean {
    const memory = this.#memory;
    if (!this.isWaiting) return true;
    while (this.isWaiting) {
      const start = memory.outputStart;
      const carrier = this.#carriers[0];
      const isCarrier = carrier?.at === start;
      if (start >= memory.runEnd) {
        memory.runEnd = isCarrier ? this.#replyEnd(start) : this.#runFrom(start);
        // Whoever goes on after a crash within the send has to know where it was to end.
        memory.commit();
      }
      const fds = isCarrier ? [carrier.fd] : NO_DESCRIPTORS;
      const taken = transport.send(memory.output.u8, start, memory.runEnd - start, fds);
      if (taken === CLOSED) return false;
      if (taken === 0) return true;
      if (isCarrier) this.#carriers.shift();
      memory.outputStart = start + taken;
      memory.commit();
    }
    memory.outputStart = 0;
    memory.outputEnd = 0;
    memory.runEnd = 0;
    memory.commit();
    return true;
  }

  clear(): void {
    this.#carriers = [];
  }

  /** Replies that carry a descriptor and were not sent, for who goes on in this one's place. */
  get carriers(): readonly { readonly at: number; readonly fd: number }[] {
    return this.#carriers;
  }

  /** Takes over what was not sent. */
  restore(carriers: readonly { readonly at: number; readonly fd: number }[]): void {
    this.#carriers = carriers.filter(({ at }) => at >= this.#memory.outputStart);
  }

  /** End of as many whole replies as go together, and of one at least. */
  #runFrom(start: number): number {
    const stop = this.#carriers[0]?.at ?? this.#memory.outputEnd;
    let end = this.#replyEnd(start);
    while (end < stop) {
      const next = this.#replyEnd(end);
      if (next - start > RUN_BYTES) break;
      end = next;
    }
    return end;
  }

  #replyEnd(at: number): number {
    return at + Header.get.size(this.#memory.outputView, at);
  }
}

const NO_DESCRIPTORS: readonly number[] = [];
