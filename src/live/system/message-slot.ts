/**
 * One `struct mmsghdr` with its vector and control data, at a place in mapped memory: what a
 * message is received into or sent from, and how many bytes the kernel says it was.
 *
 * The count is written by the kernel within the call. A slot in shared memory therefore tells a
 * successor exactly how much of a stream was taken or sent, even when this process was killed
 * before it saw the call return. Source: recvmmsg(2), sendmmsg(2), cmsg(3), unix(7); the layout is
 * that of 64-bit Linux.
 */
import { assert } from "../../errors.ts";
import type { MemoryView } from "../../memory/memory-view.ts";
import type { Mapping } from "./mapping.ts";

/** Most descriptors one message carries (SCM_MAX_FD). */
export const MESSAGE_DESCRIPTORS_MAX = 253;

const TWO_32 = 2 ** 32;
/** Byte offsets within a slot. */
const At = {
  IOV: 16,
  IOV_COUNT: 24,
  CONTROL: 32,
  CONTROL_BYTES: 40,
  FLAGS: 48,
  COUNT: 56,
} as const;
const VECTOR_AT = 64;
const CONTROL_AT = 80;
const CONTROL_HEADER_BYTES = 16;
const CONTROL_BYTES_MAX = (CONTROL_HEADER_BYTES + MESSAGE_DESCRIPTORS_MAX * 4 + 7) & ~7;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_CTRUNC = 8;

/** Memory a slot takes. */
export const SLOT_BYTES: number = (CONTROL_AT + CONTROL_BYTES_MAX + 63) & ~63;

/** A message header in mapped memory. Making one changes nothing in the memory. */
export class MessageSlot {
  readonly address: number;
  readonly #view: MemoryView;
  readonly #word: number;

  /** @param at - a multiple of 8; {@link SLOT_BYTES} from there on belong to the slot */
  constructor(mapping: Mapping, at: number) {
    assert(at % 8 === 0 && at + SLOT_BYTES <= mapping.bytes, "a slot lies within its mapping");
    this.address = mapping.address + at;
    this.#view = mapping.view;
    this.#word = at >> 2;
  }

  /** Bytes of the last call, as the kernel wrote them; 0 since {@link aim}. */
  get count(): number {
    return this.#view.u32[this.#word + (At.COUNT >> 2)]!;
  }

  /** Where the bytes go to or come from, and how many there may be. */
  get targetAddress(): number {
    return this.#address(VECTOR_AT);
  }

  get targetBytes(): number {
    return this.#view.u32[this.#word + ((VECTOR_AT + 8) >> 2)]!;
  }

  /** Whether descriptors were lost: more than fit, or the process may open no more. */
  get isTruncated(): boolean {
    return (this.#view.u32[this.#word + (At.FLAGS >> 2)]! & MSG_CTRUNC) !== 0;
  }

  /** Aims the next call at memory, without room for descriptors, and sets the count to 0. */
  aim(address: number, bytes: number): void {
    const { u32 } = this.#view;
    u32.fill(0, this.#word, this.#word + (CONTROL_AT >> 2));
    this.#setAddress(VECTOR_AT, address);
    u32[this.#word + ((VECTOR_AT + 8) >> 2)] = bytes;
    this.#setAddress(At.IOV, this.address + VECTOR_AT);
    u32[this.#word + (At.IOV_COUNT >> 2)] = 1;
  }

  /** Makes room for as many descriptors as a message can carry. After {@link aim}. */
  acceptDescriptors(): void {
    this.#setAddress(At.CONTROL, this.address + CONTROL_AT);
    this.#view.u32[this.#word + (At.CONTROL_BYTES >> 2)] = CONTROL_BYTES_MAX;
  }

  /** Sends descriptors along with the first byte. After {@link aim}. */
  attach(descriptors: readonly number[]): void {
    if (descriptors.length === 0) return;
    assert(descriptors.length <= MESSAGE_DESCRIPTORS_MAX, "a message carries 253 descriptors");
    const { u32 } = this.#view;
    const control = this.#word + (CONTROL_AT >> 2);
    const bytes = CONTROL_HEADER_BYTES + descriptors.length * 4;
    u32[control] = bytes;
    u32[control + 1] = 0;
    u32[control + 2] = SOL_SOCKET;
    u32[control + 3] = SCM_RIGHTS;
    for (const [index, fd] of descriptors.entries()) u32[control + 4 + index] = fd;
    this.#setAddress(At.CONTROL, this.address + CONTROL_AT);
    u32[this.#word + (At.CONTROL_BYTES >> 2)] = (bytes + 7) & ~7;
  }

  /** Descriptors in the control data, which has been received or will be sent. */
  descriptors(): number[] {
    const { u32 } = this.#view;
    const bytes = u32[this.#word + (At.CONTROL_BYTES >> 2)]!;
    const found: number[] = [];
    for (let at = 0; at + CONTROL_HEADER_BYTES <= Math.min(bytes, CONTROL_BYTES_MAX); ) {
      const header = this.#word + ((CONTROL_AT + at) >> 2);
      const length = Math.min(u32[header]!, bytes - at);
      if (length < CONTROL_HEADER_BYTES) break;
      if (u32[header + 2] === SOL_SOCKET && u32[header + 3] === SCM_RIGHTS) {
        const count = (length - CONTROL_HEADER_BYTES) >> 2;
        for (let index = 0; index < count; index += 1) found.push(u32[header + 4 + index]!);
      }
      at += (length + 7) & ~7;
    }
    return found;
  }

  /** What a kernel leaves behind after a call; for the simulated one. */
  complete(count: number, descriptors: readonly number[], isTruncated: boolean): void {
    const { u32 } = this.#view;
    if (descriptors.length > 0) this.attach(descriptors);
    else u32[this.#word + (At.CONTROL_BYTES >> 2)] = 0;
    u32[this.#word + (At.FLAGS >> 2)] = isTruncated ? MSG_CTRUNC : 0;
    u32[this.#word + (At.COUNT >> 2)] = count;
  }

  /** As {@link complete}, after a send. */
  countSent(count: number): void {
    this.#view.u32[this.#word + (At.COUNT >> 2)] = count;
  }

  /** Descriptors there is room for. */
  get room(): number {
    const bytes = this.#view.u32[this.#word + (At.CONTROL_BYTES >> 2)]!;
    return Math.max(0, (bytes - CONTROL_HEADER_BYTES) >> 2);
  }

  #address(at: number): number {
    const { u32 } = this.#view;
    return u32[this.#word + (at >> 2)]! + u32[this.#word + (at >> 2) + 1]! * TWO_32;
  }

  #setAddress(at: number, address: number): void {
    const { u32 } = this.#view;
    u32[this.#word + (at >> 2)] = address >>> 0;
    u32[this.#word + (at >> 2) + 1] = Math.floor(address / TWO_32);
  }
}
