/**
 * What the kernel did for a stream last, told by the kernel itself: two message slots in shared
 * memory, used in turn, with what there was before the call.
 *
 * The kernel writes the count of bytes within the call. If the process dies before it has taken
 * note, whoever comes after finds the count in the slot, and by the stream's sequence whether it is
 * part of the stream's positions already.
 */
import type { MessageSlot } from "../system/message-slot.ts";
import { sequenceInForce } from "../vfio-user/stream-memory.ts";

const TURN = 0;
/** Per slot: bytes before it (two words), position in the stream's memory, sequence. */
const SLOT_WORDS = 4;
const FIRST = 2;
const TWO_31 = 2 ** 31;

/** The record of receives, or of sends. */
export class CallRecord {
  static readonly WORDS = FIRST + 2 * SLOT_WORDS;
  readonly #words: Int32Array;
  readonly #slots: readonly [MessageSlot, MessageSlot];
  readonly #stream: Int32Array;

  constructor(words: Int32Array, slots: readonly [MessageSlot, MessageSlot], stream: Int32Array) {
    this.#words = words;
    this.#slots = slots;
    this.#stream = stream;
  }

  /** All bytes so far. */
  get total(): number {
    const turn = this.#words[TURN]! & 1;
    const at = FIRST + turn * SLOT_WORDS;
    const before = this.#words[at]! + this.#words[at + 1]! * TWO_31;
    return before + this.#slots[turn]!.count;
  }

  /**
   * Aims a call.
   *
   * @param position - in the stream's memory
   */
  aim(address: number, bytes: number, position: number): MessageSlot {
    const words = this.#words;
    const { total } = this;
    const next = 1 - (words[TURN]! & 1);
    const at = FIRST + next * SLOT_WORDS;
    const slot = this.#slots[next]!;
    slot.aim(address, bytes);
    words[at] = total % TWO_31;
    words[at + 1] = Math.floor(total / TWO_31);
    words[at + 2] = position;
    words[at + 3] = sequenceInForce(this.#stream);
    Atomics.store(words, TURN, next);
    return slot;
  }

  /** Loses what the kernel said last: for tests of what that would cost. */
  forget(): void {
    this.#slots[this.#words[TURN]! & 1]!.countSent(0);
  }

  /** What the last call did that the stream's positions do not say yet; null for nothing. */
  get unnoted(): { readonly position: number; readonly count: number } | null {
    const turn = this.#words[TURN]! & 1;
    const at = FIRST + turn * SLOT_WORDS;
    const { count } = this.#slots[turn]!;
    if (count === 0 || this.#words[at + 3] !== sequenceInForce(this.#stream)) return null;
    return { position: this.#words[at + 2]!, count };
  }
}
