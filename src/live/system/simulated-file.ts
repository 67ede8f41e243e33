/**
 * A file of the simulated kernel: bytes, seals, and the rules by which both may change.
 */
import { Errno } from "../../errno.ts";
import type { Counted } from "./simulated-object.ts";
import { type FileKind, Seal } from "./system.ts";

/** A regular file, with or without a name. */
export class SimulatedFile implements Counted {
  readonly kind = "file";
  readonly fileKind: FileKind;
  readonly inode: number;
  references = 0;
  isReadOnly = false;
  /** Null where seals do not exist. */
  seals: number | null = null;
  syncs = 0;
  bytes: number;
  /** At least {@link bytes} long; mappings are windows of it. */
  buffer: ArrayBuffer;

  constructor(fileKind: FileKind, inode: number, bytes: number) {
    this.fileKind = fileKind;
    this.inode = inode;
    this.bytes = bytes;
    this.buffer = new ArrayBuffer(bytes);
  }

  close(): readonly Counted[] {
    return [];
  }

  resize(bytes: number): number {
    const seals = this.seals ?? 0;
    if (bytes < this.bytes && (seals & Seal.SHRINK) !== 0) return -Errno.EPERM;
    if (bytes > this.bytes && (seals & Seal.GROW) !== 0) return -Errno.EPERM;
    if (bytes > this.buffer.byteLength) {
      const grown = new ArrayBuffer(bytes);
      new Uint8Array(grown).set(new Uint8Array(this.buffer, 0, this.bytes));
      this.buffer = grown;
    } else if (bytes < this.bytes) {
      new Uint8Array(this.buffer, bytes, this.bytes - bytes).fill(0);
    }
    this.bytes = bytes;
    return 0;
  }

  addSeals(seals: number): number {
    if (this.seals === null) return -Errno.EINVAL;
    if ((this.seals & Seal.SEAL) !== 0) return -Errno.EPERM;
    this.seals |= seals;
    return 0;
  }

  /** Reads up to the end. @returns bytes */
  readAt(offset: number, target: Uint8Array): number {
    const count = Math.max(0, Math.min(target.length, this.bytes - offset));
    if (count > 0) target.set(new Uint8Array(this.buffer, offset, count));
    return count;
  }

  /** Writes, growing the file where it must. @returns bytes, or an error */
  writeAt(offset: number, source: Uint8Array): number {
    if (offset + source.length > this.bytes) {
      const grown = this.resize(offset + source.length);
      if (grown < 0) return grown;
    }
    new Uint8Array(this.buffer, offset, source.length).set(source);
    return source.length;
  }

  zero(offset: number, bytes: number): number {
    if (offset < 0 || bytes <= 0) return -Errno.EINVAL;
    const count = Math.min(bytes, this.bytes - offset);
    if (count > 0) new Uint8Array(this.buffer, offset, count).fill(0);
    return 0;
  }
}
