/**
 * What of a controller must outlive the process that runs it: doorbells and ring positions, and the
 * commands that were taken off a queue but not completed, in one array of words.
 *
 * NVMe's doorbells are registers: unlike a virtqueue's indexes, guest memory does not hold them, so
 * a process that takes over cannot find them again. Therefore the words are not a copy but the
 * variables themselves. In memory that outlives the process they are right at any instant, because
 * each completion has one word whose store decides it:
 *
 * 1. The completion's entry is written to CQE and CQE_COUNT, then **CQ_TAIL moves: it counts**.
 * 2. SQ_HEAD follows, or the slot is freed; `repair` does that again after a crash.
 * 3. Only then the entry is written to guest memory; after a crash the last one is written again.
 *
 * A crash before 1 leaves the command on its queue or in its slot: it is executed again, which its
 * driver cannot tell, since all its buffers still belong to the controller. A crash after 1 never
 * executes it again, whose buffers may have another owner by then.
 */
import { assert } from "../errors.ts";
import { Sqe } from "./protocol.ts";

/** Words of each pair of queues. */
export const QueueWord = {
  SQ_TAIL: 0,
  /** Bits 0 … 15: head; bits 16 … 31: commands taken so far, modulo 2^16. One store moves both. */
  SQ_HEAD: 1,
  CQ_HEAD: 2,
  /** Bits 0 … 15: tail; bit 16: the phase that the entry there gets. */
  CQ_TAIL: 3,
  /** The last entry posted; its second word, which is 0 in memory, says where it came from. */
  CQE: 4,
  /** Commands taken when the command of that entry was. */
  CQE_COUNT: 8,
  /** CQ_TAIL after it: written first, so that an entry without its CQ_TAIL does not count. */
  CQE_TAIL: 9,
  WORDS: 10,
} as const;

/** The second word of a last entry: none yet; of the queue's head; of slot n: FROM_SLOT + n. */
export const FROM_NOWHERE = 0;
export const FROM_HEAD = 1;
export const FROM_SLOT = 2;

/** Words of each command that was taken but not completed. */
export const SlotWord = {
  /** Submission queue + 1; 0 marks a free slot. */
  QUEUE: 0,
  /** Commands taken so far when it was, modulo 2^16. */
  COUNT: 1,
  COMMAND: 2,
  WORDS: 2 + Sqe.WORDS,
} as const;

/** Commands that can be unfinished at a time. */
export const SLOT_COUNT = 64;

/** Words that a controller with so many I/O queues needs. */
export function journalWords(queues: number): number {
  return (queues + 1) * QueueWord.WORDS + SLOT_COUNT * SlotWord.WORDS;
}

/** Where a controller's state goes that must outlive the process. */
export interface NvmeJournal {
  /** {@link journalWords} words, zero at first, in memory that outlives the process. */
  readonly words: Uint32Array;
  /**
   * Keeps the rest of the state, what `save` gives without the words, before the driver can see
   * the change. Called for each change of a register, a queue or a feature, which are rare.
   */
  keep(state: unknown): void;
}

/** The words with their places. */
export class Journal {
  readonly words: Uint32Array;
  readonly queues: number;
  readonly #slotsAt: number;

  constructor(queues: number, words: Uint32Array) {
    assert(words.length >= journalWords(queues), "the journal has room for every queue");
    this.queues = queues;
    this.words = words;
    this.#slotsAt = (queues + 1) * QueueWord.WORDS;
  }

  /** Where a queue pair's words start. */
  queueAt(id: number): number {
    return id * QueueWord.WORDS;
  }

  /** Where a slot's words start. */
  slotAt(slot: number): number {
    return this.#slotsAt + slot * SlotWord.WORDS;
  }

  clear(): void {
    const count = journalWords(this.queues);
    for (let at = 0; at < count; at += 1) if (this.words[at] !== 0) this.words[at] = 0;
  }

  /** Whether the last entry of a completion queue is one that counts. */
  hasLast(id: number): boolean {
    const at = this.queueAt(id);
    if (this.words[at + QueueWord.CQE + 1] === FROM_NOWHERE) return false;
    return this.words[at + QueueWord.CQE_TAIL] === this.words[at + QueueWord.CQ_TAIL];
  }

  /** Does step 2 again for the last entry of a completion queue, if a crash came before it. */
  repair(id: number): void {
    const { words } = this;
    const at = this.queueAt(id);
    const from = words[at + QueueWord.CQE + 1]!;
    if (!this.hasLast(id)) return;
    const origin = words[at + QueueWord.CQE + 2]!;
    const count = words[at + QueueWord.CQE_COUNT]!;
    const submission = origin >>> 16;
    if (submission > this.queues) return;
    if (from >= FROM_SLOT) {
      if (from >= FROM_SLOT + SLOT_COUNT) return;
      const slotAt = this.slotAt(from - FROM_SLOT);
      if (words[slotAt] === submission + 1 && words[slotAt + SlotWord.COUNT] === count)
        words[slotAt] = 0;
      return;
    }
    const headAt = this.queueAt(submission) + QueueWord.SQ_HEAD;
    if (nextCount(words[headAt]!) === count)
      words[headAt] = ((count << 16) | (origin & 0xffff)) >>> 0;
  }

  /** Frees the slot of a command that is still on its queue: the crash came while it was taken. */
  repairSlot(slot: number): void {
    const at = this.slotAt(slot);
    const queue = this.words[at]! - 1;
    if (queue < 0 || queue > this.queues) return;
    const head = this.words[this.queueAt(queue) + QueueWord.SQ_HEAD]!;
    if (nextCount(head) === this.words[at + SlotWord.COUNT]) this.words[at] = 0;
  }
}

/** The count that the next command taken gets, from a SQ_HEAD word. */
export function nextCount(head: number): number {
  return ((head >>> 16) + 1) & 0xffff;
}
