/**
 * Makes messages of a stream: any split of the bytes, and descriptors to the message they came with.
 *
 * A receive ends with the send that carried descriptors, and hands them over with that send's first
 * byte (Linux, net/unix/af_unix.c:unix_stream_read_generic). A sender attaches descriptors to the
 * first byte of a message, so they belong to the last message that begins in what was received.
 */
import { assert } from "../../errors.ts";
import { HEADER_BYTES, Header, Limit, MESSAGE_BYTES_MAX } from "./protocol.ts";
import { INPUT_HALF_BYTES, type StreamMemory } from "./stream-memory.ts";

/** Less room than this is made more. */
const ROOM_BYTES_MIN = 32_768;

/** What {@link Assembler.next} found. */
export const Next = {
  /** A whole message, at {@link Assembler.at}. */
  MESSAGE: 0,
  /** Nothing whole: more has to be received. */
  NONE: 1,
  /** A header whose size cannot be right: the stream cannot be followed any further. */
  UNFRAMED: 2,
} as const;
export type Next = (typeof Next)[keyof typeof Next];

/** Descriptors that wait for their message. */
export interface Carried {
  /** Where the message begins in the input. */
  readonly owner: number;
  readonly fds: readonly number[];
  /** Whether there were more than a message may carry, or some were lost: none is open then. */
  readonly isRefused: boolean;
}

/** The messages of one stream. */
export class Assembler {
  /** Position of the message found last. */
  at = 0;
  /** Size of it. */
  size = 0;
  readonly #memory: StreamMemory;
  readonly #close: (fd: number) => void;
  /** By position: of the message in progress, and of the last one received. */
  #carried: Carried[] = [];

  /** @param close - closes descriptors of which a message has too many */
  constructor(memory: StreamMemory, close: (fd: number) => void) {
    this.#memory = memory;
    this.#close = close;
  }

  /** Descriptors that no message has taken yet, for who goes on in this one's place. */
  get carried(): readonly Carried[] {
    return this.#carried;
  }

  /** Makes room at the end of the input. @returns how many bytes may come there */
  room(): number {
    const memory = this.#memory;
    const kept = memory.inputEnd - memory.inputStart;
    if (kept === 0) {
      if (memory.inputEnd !== 0) {
        memory.inputStart = 0;
        memory.inputEnd = 0;
        memory.commit();
      }
      return INPUT_HALF_BYTES;
    }
    const half = memory.inputStart < INPUT_HALF_BYTES ? 0 : INPUT_HALF_BYTES;
    const room = half + INPUT_HALF_BYTES - memory.inputEnd;
    if (room >= ROOM_BYTES_MIN || memory.inputStart === half) return room;
    this.#move(INPUT_HALF_BYTES - half, kept);
    return INPUT_HALF_BYTES - kept;
  }

  /**
   * Takes note of bytes that were received at the end of the input.
   *
   * @param fds - that came with them; a negative number stands for one that was lost
   */
  received(count: number, fds: readonly number[]): void {
    const memory = this.#memory;
    memory.inputEnd += count;
    memory.commit();
    if (fds.length > 0) this.#carry(this.#lastBeginning(), fds);
  }

  /** Finds the next message, which counts as handled with the next commit. */
  next(): Next {
    const memory = this.#memory;
    const at = memory.inputStart;
    const held = memory.inputEnd - at;
    if (held < HEADER_BYTES) return Next.NONE;
    const size = Header.get.size(memory.inputView, at);
    this.at = at;
    if (size < HEADER_BYTES || size > MESSAGE_BYTES_MAX) {
      this.size = HEADER_BYTES;
      return Next.UNFRAMED;
    }
    if (held < size) return Next.NONE;
    this.size = size;
    memory.inputStart = at + size;
    return Next.MESSAGE;
  }

  /**
   * Descriptors of the message found last; they are the caller's from now on.
   *
   * @returns null when it had too many, or not all of its own; none is open then
   */
  takeDescriptors(): readonly number[] | null {
    const first = this.#carried[0];
    if (first === undefined || first.owner !== this.at) return NO_DESCRIPTORS;
    this.#carried.shift();
    return first.isRefused ? null : first.fds;
  }

  /** Closes what no message has taken. */
  clear(): void {
    for (const { fds } of this.#carried) fds.forEach(this.#close);
    this.#carried = [];
  }

  /** Takes descriptors over that came before. */
  restore(carried: readonly Carried[]): void {
    assert(this.#carried.length === 0, "a new assembler takes over");
    this.#carried = [...carried].sort((a, b) => a.owner - b.owner);
  }

  /** Puts what is left of the input elsewhere; the old bytes stay until that is in force. */
  #move(target: number, kept: number): void {
    const memory = this.#memory;
    const distance = target - memory.inputStart;
    memory.input.u8.copyWithin(target, memory.inputStart, memory.inputEnd);
    memory.inputStart = target;
    memory.inputEnd = target + kept;
    memory.commit();
    this.#carried = this.#carried.map((each) => ({ ...each, owner: each.owner + distance }));
  }

  #carry(owner: number, fds: readonly number[]): void {
    const index = this.#carried.findIndex((each) => each.owner === owner);
    const before = this.#carried[index];
    const open = [...(before?.fds ?? []), ...fds.filter((fd) => fd >= 0)];
    const isRefused =
      before?.isRefused === true ||
      fds.some((fd) => fd < 0) ||
      open.length > Limit.MESSAGE_DESCRIPTORS;
    if (isRefused) open.forEach(this.#close);
    const carried = { owner, fds: isRefused ? [] : open, isRefused };
    if (index >= 0) this.#carried[index] = carried;
    else this.#carried.push(carried);
  }

  /** Where the last message begins of which a byte is here. */
  #lastBeginning(): number {
    const { inputStart, inputEnd, inputView } = this.#memory;
    let at = inputStart;
    for (;;) {
      if (at + HEADER_BYTES > inputEnd) return at;
      const size = Header.get.size(inputView, at);
      if (size < HEADER_BYTES || size > MESSAGE_BYTES_MAX) return at;
      if (at + size >= inputEnd) return at;
      at += size;
    }
  }
}

const NO_DESCRIPTORS: readonly number[] = [];
