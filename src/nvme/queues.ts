/**
 * The queues of a controller in guest memory: entries taken from submission queues, entries posted
 * to completion queues, doorbells checked. All positions live in the journal's words.
 *
 * Source: 1.4, section 4 (queues, phase tags) and 3.1.24/3.1.25 (doorbells).
 */
import { assert } from "../errors.ts";
import type { DeviceMemory } from "../memory/device-memory.ts";
import { copyBetween, newView } from "../memory/memory-view.ts";
import { FROM_HEAD, type Journal, nextCount, QueueWord } from "./journal.ts";
import { CQE_BYTES, SQE_BYTES } from "./protocol.ts";

/** Where a queue lies; plain data, part of the saved state. */
export interface QueuePlace {
  readonly id: number;
  /** First byte; −1 when no memory can be there. */
  readonly address: number;
  /** Number of entries. */
  readonly size: number;
}

/** What is asked for with a completion queue. */
export interface CompletionPlace extends QueuePlace {
  /** −1: no interrupts. */
  readonly vector: number;
}

/** What is asked for with a submission queue. */
export interface SubmissionPlace extends QueuePlace {
  /** Completion queue that it posts to. */
  readonly completion: number;
}

/** What became of a doorbell write. */
export type DoorbellResult = "taken" | "same" | "out-of-range";

const PHASE = 0x1_0000;

/** A completion queue. */
export class CompletionQueue {
  readonly place: CompletionPlace;
  /** Submission queues that post here. */
  users = 0;
  /** Whether an interrupt is due for what was posted. */
  mustSignal = false;
  /** Whether the last entry has to be written again, because a crash may have come before it. */
  mustRepeat = false;
  readonly #memory: DeviceMemory;
  readonly #words: Uint32Array;
  readonly #at: number;

  constructor(memory: DeviceMemory, journal: Journal, place: CompletionPlace) {
    this.place = place;
    this.#memory = memory;
    this.#words = journal.words;
    this.#at = journal.queueAt(place.id);
  }

  /** Starts empty. */
  begin(): void {
    for (let word = QueueWord.CQ_HEAD; word < QueueWord.WORDS; word += 1)
      this.#words[this.#at + word] = 0;
    this.#words[this.#at + QueueWord.CQ_TAIL] = PHASE;
  }

  get #tail(): number {
    return this.#words[this.#at + QueueWord.CQ_TAIL]! & 0xffff;
  }

  /** Whether the driver has not taken enough entries off for another to be posted. */
  get isFull(): boolean {
    const next = this.#tail + 1;
    return (next === this.place.size ? 0 : next) === this.#words[this.#at + QueueWord.CQ_HEAD];
  }

  /** Whether there are entries that the driver has not said to have seen. */
  get isUnread(): boolean {
    return this.#tail !== this.#words[this.#at + QueueWord.CQ_HEAD];
  }

  /** The driver says how far it has read. */
  ringHead(head: number): DoorbellResult {
    const { size } = this.place;
    if (head >= size) return "out-of-range";
    const old = this.#words[this.#at + QueueWord.CQ_HEAD]!;
    if (head === old) return "same";
    const posted = (this.#tail - old + size) % size;
    if ((head - old + size) % size > posted) return "out-of-range";
    this.#words[this.#at + QueueWord.CQ_HEAD] = head;
    return "taken";
  }

  /** Whether an entry can be posted now as far as memory is concerned. */
  isReachable(): boolean {
    if (this.mustRepeat) {
      if (!this.#writeLast()) return false;
      this.mustRepeat = false;
      this.mustSignal = true;
    }
    const address = this.place.address + this.#tail * CQE_BYTES;
    if (this.#memory.locate(address, CQE_BYTES, true) !== null) return true;
    return this.#memory.window(address, CQE_BYTES, true) !== null;
  }

  /**
   * Decides a completion: it counts from the return on, and is seen by the driver after
   * {@link publish}. In between the caller moves what depends on it. The queue is not full.
   *
   * @param from - `FROM_HEAD`, or `FROM_SLOT` and the slot
   * @param count - commands that its queue had taken with it
   * @param origin - bits 0 … 15: submission queue head, bits 16 … 31: its identifier
   * @param end - bits 0 … 15: command identifier, bits 17 … 31: status
   */
  commit(from: number, count: number, result: number, origin: number, end: number): void {
    const words = this.#words;
    const at = this.#at;
    const tail = words[at + QueueWord.CQ_TAIL]!;
    const isLast = (tail & 0xffff) + 1 === this.place.size;
    const next = isLast ? (tail & PHASE) ^ PHASE : tail + 1;
    assert((next & 0xffff) !== words[at + QueueWord.CQ_HEAD], "there is room for a completion");
    words[at + QueueWord.CQE_TAIL] = next;
    words[at + QueueWord.CQE] = result;
    words[at + QueueWord.CQE + 1] = from;
    words[at + QueueWord.CQE + 2] = origin;
    words[at + QueueWord.CQE + 3] = end | (tail & PHASE);
    words[at + QueueWord.CQE_COUNT] = count;
    words[at + QueueWord.CQ_TAIL] = next;
  }

  /** Lets the driver see the last completion; where memory refuses, {@link isReachable} does. */
  publish(): void {
    this.mustSignal = true;
    this.mustRepeat = !this.#writeLast();
  }

  /** Writes the last entry; its phase, which makes it valid, last. */
  #writeLast(): boolean {
    const memory = this.#memory;
    const index = (this.#tail === 0 ? this.place.size : this.#tail) - 1;
    const address = this.place.address + index * CQE_BYTES;
    const view = memory.locate(address, CQE_BYTES, true) ?? memory.window(address, CQE_BYTES, true);
    if (view === null) return false;
    const words = this.#words;
    const from = this.#at + QueueWord.CQE;
    const to = memory.at >> 2;
    view.u32[to] = words[from]!;
    view.u32[to + 1] = 0;
    view.u32[to + 2] = words[from + 2]!;
    Atomics.store(view.u32, to + 3, words[from + 3]!);
    return true;
  }
}

/** A submission queue. */
export class SubmissionQueue {
  readonly place: SubmissionPlace;
  readonly completion: CompletionQueue;
  /** Set by a deletion that waits for commands in progress: nothing more is taken. */
  isClosing = false;
  /** Doorbell writes there had been when memory refused the queue; −1 while it does not. */
  refusedAfter = -1;
  /** Memory's generation then. */
  refusedIn = 0;
  /** The entry that {@link fetch} copied. */
  readonly entry = newView(SQE_BYTES);
  readonly #memory: DeviceMemory;
  readonly #words: Uint32Array;
  readonly #at: number;

  constructor(
    memory: DeviceMemory,
    journal: Journal,
    place: SubmissionPlace,
    completion: CompletionQueue,
  ) {
    this.place = place;
    this.completion = completion;
    this.#memory = memory;
    this.#words = journal.words;
    this.#at = journal.queueAt(place.id);
  }

  /** Starts empty. The count of commands goes on, so that none is taken for an older one. */
  begin(): void {
    this.#words[this.#at + QueueWord.SQ_TAIL] = 0;
    this.#words[this.#at + QueueWord.SQ_HEAD] &= 0xffff_0000;
  }

  get head(): number {
    return this.#words[this.#at + QueueWord.SQ_HEAD]! & 0xffff;
  }

  get isEmpty(): boolean {
    return this.head === this.#words[this.#at + QueueWord.SQ_TAIL];
  }

  /** Commands taken when the one at the head will have been. */
  get nextCount(): number {
    return nextCount(this.#words[this.#at + QueueWord.SQ_HEAD]!);
  }

  /** The driver says how far it has written. */
  ringTail(tail: number): DoorbellResult {
    const { size } = this.place;
    if (tail >= size) return "out-of-range";
    const old = this.#words[this.#at + QueueWord.SQ_TAIL]!;
    if (tail === old) return "same";
    const used = (old - this.head + size) % size;
    if (used + ((tail - old + size) % size) >= size) return "out-of-range";
    this.#words[this.#at + QueueWord.SQ_TAIL] = tail;
    return "taken";
  }

  /** Copies the entry at the head. @returns false when memory refuses */
  fetch(): boolean {
    const memory = this.#memory;
    const address = this.place.address + this.head * SQE_BYTES;
    const view =
      memory.locate(address, SQE_BYTES, false) ?? memory.window(address, SQE_BYTES, false);
    if (view === null) return false;
    copyBetween(view, memory.at, this.entry, 0, SQE_BYTES);
    return true;
  }

  /** Where the head is once the entry there is taken. */
  get headAfter(): number {
    const next = this.head + 1;
    return next === this.place.size ? 0 : next;
  }

  /** Takes the entry at the head. */
  advance(): void {
    this.#words[this.#at + QueueWord.SQ_HEAD] = ((this.nextCount << 16) | this.headAfter) >>> 0;
  }
}

/** Completes the command at its queue's head; the completion queue has room. */
export function completeAtHead(queue: SubmissionQueue, result: number, status: number): void {
  const { completion, place, entry } = queue;
  const origin = ((place.id << 16) | queue.headAfter) >>> 0;
  const end = ((status << 17) | (entry.u32[0]! >>> 16)) >>> 0;
  completion.commit(FROM_HEAD, queue.nextCount, result, origin, end);
  queue.advance();
  completion.publish();
}
