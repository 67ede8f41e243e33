/**
 * I/O commands (1.4, section 6): Read, Write, Compare, Flush, Write Zeroes, Dataset Management.
 *
 * Data moves between the store and guest memory without a copy here. What moves data is done when
 * it returns; what only concerns the store may end later.
 * Speed: bench/nvme.bench.ts.
 */
import { Errno } from "../errno.ts";
import type { Segment } from "../memory/device-memory.ts";
import { copyBetween, type MemoryView } from "../memory/memory-view.ts";
import { FLUSH, type Work } from "./operations.ts";
import {
  Feature,
  IoOpcode,
  NAMESPACE,
  NAMESPACE_ALL,
  Sqe,
  Status,
  TRANSFER_BYTES_MAX,
} from "./protocol.ts";
import type { SubmissionQueue } from "./queues.ts";
import type { ControllerState } from "./state.ts";

const TWO_32 = 2 ** 32;
/** Word 12, Write and Write Zeroes: force unit access, deallocate. */
const FUA = 1 << 30;
const DEALLOCATE = 1 << 25;
/** Word 11, Dataset Management: attribute deallocate. */
const ATTRIBUTE_DEALLOCATE = 4;
const RANGE_BYTES = 16;
/** Word 0: the bits that say the command is one of a fused pair. */
const FUSED = 0x300;

/** Executes I/O commands. */
export class IoCommands {
  readonly #state: ControllerState;
  /** What the store's last read or write ended with; EIO until it says so. */
  #errno = 0;
  readonly #done = (errno: number): void => {
    this.#errno = errno;
  };
  /** Bytes of data that the last command moved. */
  moved = 0;

  constructor(state: ControllerState) {
    this.#state = state;
  }

  /** Executes the command at a queue's head. @returns a status, or PENDING */
  execute(queue: SubmissionQueue): number {
    const command = queue.entry.u32;
    const namespace = command[Sqe.NAMESPACE]!;
    const opcode = command[Sqe.HEAD]! & 0xff;
    this.moved = 0;
    if ((command[Sqe.HEAD]! & FUSED) !== 0) return Status.INVALID_FIELD;
    if (namespace !== NAMESPACE && !(opcode === IoOpcode.FLUSH && namespace === NAMESPACE_ALL))
      return Status.INVALID_NAMESPACE;
    switch (opcode) {
      case IoOpcode.READ:
        return this.#read(queue, command);
      case IoOpcode.WRITE:
        return this.#write(queue, command);
      case IoOpcode.FLUSH:
        return this.#state.begin(queue, FLUSH);
      case IoOpcode.COMPARE:
        return this.#compare(command);
      case IoOpcode.WRITE_ZEROES:
      case IoOpcode.DATASET_MANAGEMENT: {
        const work = this.workOf(command);
        return typeof work === "number" ? work : this.#state.begin(queue, work);
      }
      default:
        return Status.INVALID_OPCODE;
    }
  }

  #read(queue: SubmissionQueue, command: Uint32Array): number {
    const status = this.#locate(command, true);
    if (status !== Status.SUCCESS) return status;
    const { health } = this.#state.logs;
    health.readCommands += 1;
    health.bytesRead += this.moved;
    const read = this.#load(command, this.#state.pointer.list.segments);
    if (read !== Status.SUCCESS || (command[Sqe.CDW12]! & FUA) === 0) return read;
    // What is read with force unit access must not be lost afterwards.
    return this.#state.begin(queue, FLUSH);
  }

  #write(queue: SubmissionQueue, command: Uint32Array): number {
    const { config, pointer, logs, features } = this.#state;
    if (config.store.isReadOnly) return Status.WRITE_PROTECTED;
    const status = this.#locate(command, false);
    if (status !== Status.SUCCESS) return status;
    logs.health.writeCommands += 1;
    logs.health.bytesWritten += this.moved;
    this.#errno = Errno.EIO;
    config.store.write(this.#offset(command), pointer.list.segments, this.#done);
    if (this.#errno !== Errno.OK) return this.#state.statusOf(this.#errno);
    const isCached = features.value(Feature.VOLATILE_WRITE_CACHE) === 1;
    if (isCached && (command[Sqe.CDW12]! & FUA) === 0) return Status.SUCCESS;
    return this.#state.begin(queue, FLUSH);
  }

  #compare(command: Uint32Array): number {
    const { pointer, scratch, logs } = this.#state;
    const status = this.#locate(command, false);
    if (status !== Status.SUCCESS) return status;
    logs.health.readCommands += 1;
    const bytes = this.moved;
    const read = this.#load(command, [{ view: scratch, at: 0, bytes }]);
    if (read !== Status.SUCCESS) return read;
    return isEqual(pointer.list.segments, scratch) ? Status.SUCCESS : Status.COMPARE_FAILURE;
  }

  /**
   * What a command that was taken off its queue still has the store do: also how it is done again
   * after a crash. Data that was to be read or written has been.
   *
   * @returns the work, or the status that the command ends with
   */
  workOf(command: Uint32Array): Work | number {
    switch (command[Sqe.HEAD]! & 0xff) {
      case IoOpcode.WRITE_ZEROES:
        return this.#zeroing(command);
      case IoOpcode.DATASET_MANAGEMENT:
        return this.#discarding(command);
      default:
        return FLUSH;
    }
  }

  #zeroing(command: Uint32Array): Work | number {
    const { config } = this.#state;
    if (config.store.isReadOnly) return Status.WRITE_PROTECTED;
    const count = (command[Sqe.CDW12]! & 0xffff) + 1;
    if (!this.#isInside(command[Sqe.CDW10]!, command[Sqe.CDW11]!, count)) return Status.LBA_RANGE;
    return {
      kind: "zero",
      ranges: [this.#offset(command), count * config.blockBytes],
      mayUnmap: (command[Sqe.CDW12]! & DEALLOCATE) !== 0,
      isDurable: this.#isDurable(command),
    };
  }

  /** Dataset Management: hints but for deallocation (1.4, 6.7). All ranges are checked first. */
  #discarding(command: Uint32Array): Work | number {
    const { config, pointer, scratch } = this.#state;
    const bytes = ((command[Sqe.CDW10]! & 0xff) + 1) * RANGE_BYTES;
    const status = pointer.gather(command, bytes, false, false);
    if (status !== Status.SUCCESS) return status;
    if ((command[Sqe.CDW11]! & ATTRIBUTE_DEALLOCATE) === 0) return Status.SUCCESS;
    if (config.store.isReadOnly) return Status.WRITE_PROTECTED;
    copyOut(pointer.list.segments, scratch);
    const ranges: number[] = [];
    for (let word = 0; word < bytes / 4; word += RANGE_BYTES / 4) {
      const count = scratch.u32[word + 1]!;
      const low = scratch.u32[word + 2]!;
      const high = scratch.u32[word + 3]!;
      if (!this.#isInside(low, high, count)) return Status.LBA_RANGE;
      ranges.push((high * TWO_32 + low) * config.blockBytes, count * config.blockBytes);
    }
    const isDurable = this.#state.features.value(Feature.VOLATILE_WRITE_CACHE) === 0;
    return { kind: "discard", ranges, mayUnmap: true, isDurable };
  }

  /** Finds where a command's data lies, and checks which blocks it means. */
  #locate(command: Uint32Array, forWrite: boolean): number {
    const { config, pointer } = this.#state;
    const count = (command[Sqe.CDW12]! & 0xffff) + 1;
    const bytes = count * config.blockBytes;
    if (bytes > TRANSFER_BYTES_MAX) return Status.INVALID_FIELD;
    if (!this.#isInside(command[Sqe.CDW10]!, command[Sqe.CDW11]!, count)) return Status.LBA_RANGE;
    this.moved = bytes;
    return pointer.gather(command, bytes, forWrite, false);
  }

  #load(command: Uint32Array, segments: readonly Segment[]): number {
    this.#errno = Errno.EIO;
    this.#state.config.store.read(this.#offset(command), segments, this.#done);
    if (this.#errno === Errno.OK) return Status.SUCCESS;
    this.#state.logs.health.mediaErrors += 1;
    return Status.READ_ERROR;
  }

  /** A first block of 2^53 or more is beyond any store, however it is rounded. */
  #isInside(low: number, high: number, count: number): boolean {
    return high * TWO_32 + low + count <= this.#state.config.blocks;
  }

  #offset(command: Uint32Array): number {
    const block = command[Sqe.CDW11]! * TWO_32 + command[Sqe.CDW10]!;
    return block * this.#state.config.blockBytes;
  }

  #isDurable(command: Uint32Array): boolean {
    if ((command[Sqe.CDW12]! & FUA) !== 0) return true;
    return this.#state.features.value(Feature.VOLATILE_WRITE_CACHE) === 0;
  }
}

function copyOut(segments: readonly Segment[], target: MemoryView): void {
  let done = 0;
  for (const { view, at, bytes } of segments) {
    copyBetween(view, at, target, done, bytes);
    done += bytes;
  }
}

function isEqual(segments: readonly Segment[], expected: MemoryView): boolean {
  let done = 0;
  for (const { view, at, bytes } of segments) {
    for (let index = 0; index < bytes; index += 1)
      if (view.u8[at + index] !== expected.u8[done + index]) return false;
    done += bytes;
  }
  return true;
}
