/**
 * The bytes of one connection on their way in and out, and how far each has come, in memory that may
 * outlive who works on them.
 *
 * Positions change together: they are written to whichever of two records is not in force, and one
 * store puts that one in force. Who takes over after a crash finds a message either handled, with
 * its reply among the bytes to be sent, or not handled at all. Nothing in force is ever moved: what
 * is left of the input goes to the other half, the output starts again when all of it was sent.
 */
import { assert } from "../../errors.ts";
import { type MemoryView, newView } from "../../memory/memory-view.ts";
import { MESSAGE_BYTES_MAX } from "./protocol.ts";

/** Bytes of one half of the input: more than the largest message. */
export const INPUT_HALF_BYTES = 2 ** 20 + 2 ** 16;
/** Bytes of both halves. */
export const INPUT_BYTES = 2 * INPUT_HALF_BYTES;
/** Bytes of the output. */
export const OUTPUT_BYTES = 3 * 2 ** 20;
/** 32-bit words of the two records and of which is in force. */
export const WORDS = 16;

assert(INPUT_HALF_BYTES > MESSAGE_BYTES_MAX, "half of the input holds any message");

const RECORD_WORDS = 6;
const IN_FORCE = 0;
const FIRST_RECORD = 2;

/** Where the bytes lie. */
export interface StreamStorage {
  /** {@link INPUT_BYTES} of it. */
  readonly input: MemoryView;
  /** {@link OUTPUT_BYTES} of it. */
  readonly output: MemoryView;
  /** {@link WORDS} of it, zero for a new connection. */
  readonly words: Int32Array;
}

/** Memory that dies with who made it. */
export function newStreamStorage(): StreamStorage {
  const words = new Int32Array(WORDS);
  return { input: newView(INPUT_BYTES), output: newView(OUTPUT_BYTES), words };
}

/** The positions. All are bytes from the start of the input, or of the output. */
export class StreamMemory {
  readonly input: MemoryView;
  readonly inputView: DataView;
  readonly output: MemoryView;
  readonly outputView: DataView;
  /** First byte of the input that was not handled. */
  inputStart = 0;
  /** End of what was received. */
  inputEnd = 0;
  /** First byte of the output that was not sent. */
  outputStart = 0;
  /** End of the replies. */
  outputEnd = 0;
  /** End of the send that the kernel took a part of; nothing may come in between. */
  runEnd = 0;
  /** Changes of the positions so far, in 31 bits. */
  sequence = 0;
  readonly #words: Int32Array;

  /** Goes on where the words say. */
  constructor(storage: StreamStorage) {
    const { input, output, words } = storage;
    assert(input.u8.length >= INPUT_BYTES, "the input has its room");
    assert(output.u8.length >= OUTPUT_BYTES, "the output has its room");
    this.input = input;
    this.inputView = new DataView(input.u8.buffer, input.u8.byteOffset, INPUT_BYTES);
    this.output = output;
    this.outputView = new DataView(output.u8.buffer, output.u8.byteOffset, OUTPUT_BYTES);
    this.#words = words;
    this.#load(FIRST_RECORD + Atomics.load(words, IN_FORCE) * RECORD_WORDS);
  }

  /** Puts the positions in force. */
  commit(): void {
    const words = this.#words;
    const record = words[IN_FORCE] === 0 ? 1 : 0;
    const at = FIRST_RECORD + record * RECORD_WORDS;
    this.sequence = (this.sequence + 1) & 0x7fff_ffff;
    words[at] = this.inputStart;
    words[at + 1] = this.inputEnd;
    words[at + 2] = this.outputStart;
    words[at + 3] = this.outputEnd;
    words[at + 4] = this.runEnd;
    words[at + 5] = this.sequence;
    Atomics.store(words, IN_FORCE, record);
  }

  /** The positions as the next {@link commit} puts them in force. */
  get next(): readonly number[] {
    const { inputStart, inputEnd, outputStart, outputEnd, runEnd, sequence } = this;
    return [inputStart, inputEnd, outputStart, outputEnd, runEnd, sequence + 1];
  }

  /** Takes positions that were kept elsewhere, unless those in force are as new. */
  advanceTo(next: readonly number[]): void {
    assert(next.length === RECORD_WORDS, "positions are a record");
    if (((next[5]! - this.sequence) & 0x7fff_ffff) !== 1) return;
    [this.inputStart, this.inputEnd, this.outputStart, this.outputEnd, this.runEnd] = next as [
      number,
      number,
      number,
      number,
      number,
    ];
    this.commit();
  }

  /** Forgets everything: another client. */
  clear(): void {
    this.inputStart = 0;
    this.inputEnd = 0;
    this.outputStart = 0;
    this.outputEnd = 0;
    this.runEnd = 0;
    this.commit();
  }

  #load(at: number): void {
    const words = this.#words;
    this.inputStart = words[at]!;
    this.inputEnd = words[at + 1]!;
    this.outputStart = words[at + 2]!;
    this.outputEnd = words[at + 3]!;
    this.runEnd = words[at + 4]!;
    this.sequence = words[at + 5]!;
    assert(this.inputStart <= this.inputEnd, "the input has an order");
    assert(this.inputEnd <= INPUT_BYTES, "the input lies inside");
    assert(this.outputStart <= this.outputEnd, "the output has an order");
    assert(this.outputEnd <= OUTPUT_BYTES, "the output lies inside");
  }
}

/** How often the positions in force have changed: tells whether a call's outcome is among them. */
export function sequenceInForce(words: Int32Array): number {
  return words[FIRST_RECORD + Atomics.load(words, IN_FORCE) * RECORD_WORDS + RECORD_WORDS - 1]!;
}
