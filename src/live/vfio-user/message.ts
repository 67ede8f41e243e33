/**
 * One message of a client as handlers see it: where it lies, what its header says, what came with it.
 */
import type { MemoryView } from "../../memory/memory-view.ts";
import { HEADER_BYTES, Header, HeaderFlag } from "./protocol.ts";

/** A message; the same object for each. */
export class Message {
  /** Bytes around the message. */
  readonly bytes: MemoryView;
  readonly view: DataView;
  id = 0;
  command = 0;
  flags = 0;
  /** Where the payload begins. */
  at = 0;
  payloadBytes = 0;
  /** Those that came with it. A handler that keeps one takes it out of the message. */
  fds: readonly number[] = [];

  constructor(bytes: MemoryView, view: DataView) {
    this.bytes = bytes;
    this.view = view;
  }

  /** Looks at the message that begins at a position. */
  read(at: number, size: number): void {
    const { view } = this;
    this.id = Header.get.id(view, at);
    this.command = Header.get.command(view, at);
    this.flags = Header.get.flags(view, at);
    this.at = at + HEADER_BYTES;
    this.payloadBytes = size - HEADER_BYTES;
  }

  get type(): number {
    return this.flags & HeaderFlag.TYPE;
  }

  get wantsReply(): boolean {
    return (this.flags & HeaderFlag.NO_REPLY) === 0;
  }

  /** Bytes of the payload from a position in it on. */
  payload(from: number): Uint8Array {
    return this.bytes.u8.subarray(this.at + from, this.at + this.payloadBytes);
  }
}

/**
 * A 64-bit number that has to be below 2^53.
 *
 * @returns −1 for one that is not
 */
export function readSafe(view: DataView, at: number): number {
  const high = view.getUint32(at + 4, true);
  return high < 0x20_0000 ? high * 2 ** 32 + view.getUint32(at, true) : -1;
}
