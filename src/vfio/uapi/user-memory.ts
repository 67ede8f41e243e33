/**
 * Bytes of a process that a call reads and writes through the pointers it was given
 * (copy_from_user, copy_to_user, access_ok).
 *
 * Source: arch/x86/include/asm/uaccess_64.h:__access_ok, valid_user_address.
 */

/** First address that is the kernel's: what a process with four-level tables cannot have. */
export const USER_END = 0x7fff_ffff_f000n;

/** Whether addresses can be a process's at all (access_ok). */
export function isUserRange(address: bigint, bytes: bigint): boolean {
  return address + bytes <= USER_END;
}

/** Whether what a caller hands in as bytes are bytes; what is not is nothing that can be read. */
export function isBytes(value: unknown): value is Uint8Array {
  return ArrayBuffer.isView(value) && "BYTES_PER_ELEMENT" in value && value.BYTES_PER_ELEMENT === 1;
}

/** The bytes. */
export interface UserMemory {
  /** Reads into `out`. @returns false when some byte cannot be read (EFAULT) */
  read(address: bigint, out: Uint8Array): boolean;
  /** Writes. @returns false when some byte cannot be written (EFAULT) */
  write(address: bigint, bytes: Uint8Array): boolean;
}

/** A process without any. */
export const NO_USER_MEMORY: UserMemory = { read: () => false, write: () => false };

/** One buffer at an address: enough for a bitmap. */
export class UserBuffer implements UserMemory {
  readonly address: bigint;
  readonly bytes: Uint8Array;

  constructor(address: bigint, bytes: Uint8Array) {
    this.address = address;
    this.bytes = bytes;
  }

  read(address: bigint, out: Uint8Array): boolean {
    const at = this.#offset(address, out.length);
    if (at < 0) return false;
    out.set(this.bytes.subarray(at, at + out.length));
    return true;
  }

  write(address: bigint, bytes: Uint8Array): boolean {
    const at = this.#offset(address, bytes.length);
    if (at < 0) return false;
    this.bytes.set(bytes, at);
    return true;
  }

  #offset(address: bigint, length: number): number {
    const at = address - this.address;
    return at >= 0n && at + BigInt(length) <= BigInt(this.bytes.length) ? Number(at) : -1;
  }
}
