/**
 * One client's conversation: takes messages off the stream in order, has each handled, sends the
 * replies together.
 */
import { Errno } from "../../errno.ts";
import { Assembler, Next } from "./assembler.ts";
import { Message } from "./message.ts";
import { CLOSED, type Transport } from "./ports.ts";
import { HeaderFlag } from "./protocol.ts";
import { ReplyWriter } from "./reply-writer.ts";
import { StreamMemory, type StreamStorage } from "./stream-memory.ts";

/**
 * Bytes that one call takes at most, so that others have their turn: a thousand regions of memory,
 * and a large access in a few turns.
 */
const TURN_BYTES = 2 ** 16;

/** Who handles messages. */
export interface MessageHandler {
  /** @returns an errno, 0 after the reply's payload was written; keeps or closes descriptors */
  handle(message: Message, reply: ReplyWriter): number;
  /** Called after each message, its reply written, before both count as done. */
  handled(memory: StreamMemory): void;
  close(fd: number): void;
}

/** What a connection counts. */
export interface ConnectionCounts {
  messages: number;
  errors: number;
  /** Messages that wanted no reply. */
  posted: number;
  /** Replies to nothing that was asked. */
  strayReplies: number;
  receives: number;
}

/** The conversation. */
export class Connection {
  readonly counts: ConnectionCounts = {
    messages: 0,
    errors: 0,
    posted: 0,
    strayReplies: 0,
    receives: 0,
  };
  readonly memory: StreamMemory;
  readonly assembler: Assembler;
  readonly writer: ReplyWriter;
  readonly transport: Transport;
  readonly #handler: MessageHandler;
  readonly #message: Message;
  readonly #fds: number[] = [];
  #isLost = false;

  constructor(handler: MessageHandler, transport: Transport, storage: StreamStorage) {
    this.memory = new StreamMemory(storage);
    this.assembler = new Assembler(this.memory, (fd) => handler.close(fd));
    this.writer = new ReplyWriter(this.memory);
    this.transport = transport;
    this.#handler = handler;
    this.#message = new Message(this.memory.input, this.memory.inputView);
  }

  /** Whether to wait for bytes: not while the client leaves its replies unread. */
  get wantsInput(): boolean {
    return !this.writer.isFull;
  }

  /** Whether to wait for room. */
  get wantsOutput(): boolean {
    return this.writer.isWaiting;
  }

  /**
   * Handles what is there, a bounded part of it, and sends the replies.
   *
   * @returns false when the conversation is over
   */
  service(): boolean {
    let taken = 0;
    while (!this.#isLost && taken < TURN_BYTES) {
      this.#handleAll();
      if (!this.writer.flush(this.transport)) this.#isLost = true;
      if (this.#isLost || this.writer.isFull) break;
      const room = Math.min(this.assembler.room(), TURN_BYTES - taken);
      const count = this.#receive(room);
      if (count === 0) break;
      taken += count;
      // Less than there was room for, and no descriptor that ended it: the stream is empty. What
      // was taken is handled in any case: nobody would come back for it.
      if (taken >= TURN_BYTES || (count < room && this.#fds.length === 0)) {
        this.#handleAll();
        if (!this.writer.flush(this.transport)) this.#isLost = true;
        break;
      }
    }
    return !this.#isLost;
  }

  /** Ends it. */
  close(): void {
    this.#isLost = true;
    this.assembler.clear();
    this.writer.clear();
    this.memory.clear();
    this.transport.close();
  }

  /** @returns bytes that came; 0 for none, and at the end */
  #receive(room: number): number {
    this.#fds.length = 0;
    const { memory } = this;
    const count = this.transport.receive(memory.input.u8, memory.inputEnd, room, this.#fds);
    if (count === CLOSED) this.#isLost = true;
    if (count <= 0) return 0;
    this.counts.receives += 1;
    this.assembler.received(count, this.#fds);
    return count;
  }

  #handleAll(): void {
    const { assembler, writer, memory } = this;
    while (!this.#isLost && !writer.isFull) {
      const next = assembler.next();
      if (next === Next.NONE) return;
      this.#handleOne(next === Next.MESSAGE);
      this.#handler.handled(memory);
      memory.commit();
    }
  }

  #handleOne(isFramed: boolean): void {
    const { assembler } = this;
    const message = this.#message;
    message.read(assembler.at, assembler.size);
    const fds = assembler.takeDescriptors();
    message.fds = fds ?? [];
    const { type } = message;
    this.counts.messages += 1;
    if (isFramed && type === HeaderFlag.REPLY) {
      this.counts.strayReplies += 1;
      for (const fd of message.fds) this.#handler.close(fd);
      return;
    }
    this.writer.begin();
    let errno: number = Errno.EINVAL;
    if (isFramed && type === HeaderFlag.COMMAND && fds !== null)
      errno = this.#handler.handle(message, this.writer);
    else for (const fd of message.fds) this.#handler.close(fd);
    if (errno !== Errno.OK) this.counts.errors += 1;
    if (message.wantsReply) this.writer.finish(message.id, message.command, errno);
    else {
      this.counts.posted += 1;
      this.writer.drop();
    }
    if (isFramed && type <= HeaderFlag.REPLY) return;
    // What follows may be anything: nothing is guessed.
    this.writer.flush(this.transport);
    this.#isLost = true;
  }
}
