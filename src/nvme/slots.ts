/**
 * Commands that were taken off their queue and are not completed: operations of the store that take
 * time, event requests, deletions of queues that wait, and completions for which there was no room.
 *
 * Each has a slot in the journal with its whole entry, from which it starts again after a crash.
 */
import { assert } from "../errors.ts";
import { FROM_SLOT, type Journal, SLOT_COUNT, SlotWord } from "./journal.ts";
import type { Operation } from "./operations.ts";
import { Sqe } from "./protocol.ts";
import type { SubmissionQueue } from "./queues.ts";

/** Slots that are kept back for admin commands. */
const ADMIN_SLOTS = 16;

/** An unfinished command. */
export interface Slot {
  readonly index: number;
  readonly queue: SubmissionQueue;
  /** Commands its queue had taken with it: tells it from others of the queue. */
  readonly count: number;
  /** The submission queue entry. */
  readonly command: Uint32Array;
  /** What the store still does for it. */
  operation: Operation | null;
  /** Whether a status was found: it only waits for room in its completion queue. */
  isFinished: boolean;
  status: number;
  result: number;
}

/** The unfinished commands of a controller. */
export class Slots {
  readonly #journal: Journal;
  readonly #slots: (Slot | null)[] = new Array(SLOT_COUNT).fill(null);
  #used = 0;
  #finished = 0;

  constructor(journal: Journal) {
    this.#journal = journal;
  }

  /** Whether another command of the queue may become one that is unfinished. */
  hasRoom(queue: SubmissionQueue): boolean {
    return this.#used < (queue.place.id === 0 ? SLOT_COUNT : SLOT_COUNT - ADMIN_SLOTS);
  }

  /** The unfinished commands, by slot. */
  get all(): readonly Slot[] {
    return this.#used === 0 ? [] : this.#slots.filter((slot) => slot !== null);
  }

  /** How many commands of a queue are unfinished. */
  countOf(queue: SubmissionQueue): number {
    return this.all.filter((slot) => slot.queue === queue).length;
  }

  /** Takes the command at its queue's head into a slot: first into the slot, then off the queue. */
  take(queue: SubmissionQueue): Slot {
    assert(this.#used < SLOT_COUNT, "there is room for an unfinished command");
    const index = this.#slots.indexOf(null);
    const { words } = this.#journal;
    const at = this.#journal.slotAt(index);
    const command = new Uint32Array(queue.entry.u32);
    for (let word = 0; word < Sqe.WORDS; word += 1)
      words[at + SlotWord.COMMAND + word] = command[word]!;
    const count = queue.nextCount;
    words[at + SlotWord.COUNT] = count;
    words[at + SlotWord.QUEUE] = queue.place.id + 1;
    queue.advance();
    return this.#put(index, queue, count, command);
  }

  /** Takes up what the journal says of a slot, after a crash. @returns null when it is free */
  revive(index: number, queueOf: (id: number) => SubmissionQueue | null): Slot | null {
    const { words } = this.#journal;
    const at = this.#journal.slotAt(index);
    const queue = words[at] === 0 ? null : queueOf(words[at]! - 1);
    if (queue === null) {
      words[at] = 0;
      return null;
    }
    const command = Uint32Array.from(
      { length: Sqe.WORDS },
      (_, word) => words[at + SlotWord.COMMAND + word]!,
    );
    return this.#put(index, queue, words[at + SlotWord.COUNT]!, command);
  }

  /** A command's outcome is known: it is completed by the next {@link post}. */
  finish(slot: Slot, status: number, result: number): void {
    if (slot.isFinished) return;
    slot.isFinished = true;
    slot.status = status;
    slot.result = result;
    this.#finished += 1;
  }

  /** Completes finished commands where there is room; of queues that go away, also without. */
  post(): void {
    if (this.#finished === 0) return;
    for (const slot of this.all) {
      if (!slot.isFinished) continue;
      const { place, completion, isClosing, head } = slot.queue;
      if (completion.isFull || !completion.isReachable()) {
        if (isClosing) this.#free(slot);
        continue;
      }
      const origin = ((place.id << 16) | head) >>> 0;
      const end = ((slot.status << 17) | (slot.command[Sqe.HEAD]! >>> 16)) >>> 0;
      completion.commit(FROM_SLOT + slot.index, slot.count, slot.result, origin, end);
      this.#free(slot);
      completion.publish();
    }
  }

  /** Forgets all: the controller is reset. */
  clear(): void {
    this.#slots.fill(null);
    this.#used = 0;
    this.#finished = 0;
  }

  #put(index: number, queue: SubmissionQueue, count: number, command: Uint32Array): Slot {
    const slot: Slot = {
      index,
      queue,
      count,
      command,
      operation: null,
      isFinished: false,
      status: 0,
      result: 0,
    };
    this.#slots[index] = slot;
    this.#used += 1;
    return slot;
  }

  #free(slot: Slot): void {
    this.#journal.words[this.#journal.slotAt(slot.index)] = 0;
    this.#slots[slot.index] = null;
    this.#used -= 1;
    this.#finished -= 1;
  }
}
