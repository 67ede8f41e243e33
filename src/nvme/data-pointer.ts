/**
 * A command's data pointer as pieces of memory: PRP entries and lists, or scatter gather lists.
 *
 * Everything comes from a driver that may be hostile. A PRP list is bounded by the transfer, which
 * the caller bounds; an SGL by {@link DESCRIPTORS_MAX}, so that loops of segments end. No byte of
 * data moves before the whole pointer was found good.
 *
 * Source: 1.4, sections 4.3 (PRP) and 4.4 (SGL).
 */
import { type DeviceMemory, SegmentCollector } from "../memory/device-memory.ts";
import { newView } from "../memory/memory-view.ts";
import { PAGE, Sqe, Status } from "./protocol.ts";

/** SGL descriptors that a command may need, segment descriptors included. */
export const DESCRIPTORS_MAX = 2048;

/** Types of SGL descriptor (1.4, figure 111): bits 4 … 7 of the last byte. */
export const SglType = { DATA: 0, BIT_BUCKET: 1, SEGMENT: 2, LAST_SEGMENT: 3 } as const;

const DESCRIPTOR_BYTES = 16;
const PRP_BYTES = 8;

/** Follows data pointers. */
export class DataPointer {
  /** The pieces found last, in order; good until the device returns to its caller. */
  readonly list = new SegmentCollector();
  readonly #memory: DeviceMemory;
  /** A page of PRP entries or SGL descriptors: copied once, so that they cannot change. */
  readonly #page = newView(PAGE);
  /** Where bytes go that a bit bucket takes. */
  readonly #bucket = newView(PAGE);

  constructor(memory: DeviceMemory) {
    this.#memory = memory;
  }

  /**
   * Finds the pieces of a command's data.
   *
   * @param command - the submission queue entry
   * @param bytes - how many the command transfers, at least 1
   * @param forWrite - whether they are the controller's to write
   * @param isAdmin - admin commands use PRPs only (1.4, 4.2)
   * @returns a status; the list is meaningless unless it is SUCCESS
   */
  gather(command: Uint32Array, bytes: number, forWrite: boolean, isAdmin: boolean): number {
    this.list.clear();
    const transfer = (command[Sqe.HEAD]! >>> 14) & 3;
    if (transfer === 0) return this.#prp(command, bytes, forWrite);
    if (isAdmin || transfer === 3) return Status.INVALID_FIELD;
    return this.#sgl(command, bytes, forWrite);
  }

  #prp(command: Uint32Array, bytes: number, forWrite: boolean): number {
    const low = command[Sqe.DATA]!;
    if ((low & 3) !== 0) return Status.PRP_OFFSET;
    const first = Math.min(bytes, PAGE - (low & (PAGE - 1)));
    if (!this.#memory.collect(low, command[Sqe.DATA + 1]!, first, forWrite, this.list))
      return Status.DATA_TRANSFER_ERROR;
    const rest = bytes - first;
    if (rest === 0) return Status.SUCCESS;
    const secondLow = command[Sqe.DATA + 2]!;
    const secondHigh = command[Sqe.DATA + 3]!;
    if (rest > PAGE) return this.#prpList(secondLow, secondHigh, rest, forWrite);
    return this.#prpEntry(secondLow, secondHigh, rest, forWrite);
  }

  /** A PRP entry that is not the first: it has no offset. */
  #prpEntry(low: number, high: number, bytes: number, forWrite: boolean): number {
    if ((low & (PAGE - 1)) !== 0) return Status.PRP_OFFSET;
    return this.#memory.collect(low, high, bytes, forWrite, this.list)
      ? Status.SUCCESS
      : Status.DATA_TRANSFER_ERROR;
  }

  /**
   * Lists begin anywhere in a page and end with it; where entries are left over, the last one is
   * the next list. Only the first list can be without an entry of its own, so the walk ends.
   */
  #prpList(startLow: number, startHigh: number, bytes: number, forWrite: boolean): number {
    const entries = this.#page.u32;
    let low = startLow;
    let high = startHigh;
    let rest = bytes;
    if ((low & (PRP_BYTES - 1)) !== 0) return Status.PRP_OFFSET;
    for (;;) {
      const room = (PAGE - (low & (PAGE - 1))) / PRP_BYTES;
      const needed = Math.ceil(rest / PAGE);
      const isChained = needed > room;
      const count = isChained ? room : needed;
      if (!this.#memory.copyOutHalves(low, high, this.#page, 0, count * PRP_BYTES))
        return Status.DATA_TRANSFER_ERROR;
      const data = isChained ? count - 1 : count;
      for (let index = 0; index < data; index += 1) {
        const piece = Math.min(rest, PAGE);
        const status = this.#prpEntry(
          entries[2 * index]!,
          entries[2 * index + 1]!,
          piece,
          forWrite,
        );
        if (status !== Status.SUCCESS) return status;
        rest -= piece;
      }
      if (!isChained) return Status.SUCCESS;
      low = entries[2 * data]!;
      high = entries[2 * data + 1]!;
      if ((low & (PAGE - 1)) !== 0) return Status.PRP_OFFSET;
    }
  }

  #sgl(command: Uint32Array, bytes: number, forWrite: boolean): number {
    const low = command[Sqe.DATA]!;
    const high = command[Sqe.DATA + 1]!;
    const length = command[Sqe.DATA + 2]!;
    const kind = command[Sqe.DATA + 3]! >>> 24;
    const isSegment = kind >>> 4 === SglType.SEGMENT || kind >>> 4 === SglType.LAST_SEGMENT;
    const status =
      isSegment && (kind & 15) === 0
        ? this.#segments(low, high, length, kind >>> 4, bytes, forWrite)
        : this.#block(low, high, length, kind, bytes, forWrite);
    if (status !== Status.SUCCESS) return status;
    return this.list.bytes === bytes ? Status.SUCCESS : Status.DATA_SGL_LENGTH;
  }

  /** A data block or a bit bucket. `total` is what the command transfers. */
  #block(
    low: number,
    high: number,
    length: number,
    kind: number,
    total: number,
    forWrite: boolean,
  ): number {
    if ((kind & 15) !== 0) return Status.SGL_TYPE;
    const isBucket = kind >>> 4 === SglType.BIT_BUCKET;
    if (!isBucket && kind >>> 4 !== SglType.DATA) return Status.SGL_TYPE;
    // A bucket takes what a driver does not want to read; towards the controller it is empty.
    if (length === 0 || (isBucket && !forWrite)) return Status.SUCCESS;
    if (this.list.bytes + length > total) return Status.DATA_SGL_LENGTH;
    if (isBucket) {
      for (let left = length; left > 0; left -= PAGE)
        this.list.add(this.#bucket, 0, Math.min(left, PAGE));
      return Status.SUCCESS;
    }
    return this.#memory.collect(low, high, length, forWrite, this.list)
      ? Status.SUCCESS
      : Status.DATA_TRANSFER_ERROR;
  }

  /** A chain of segments, read a page at a time. */
  #segments(
    startLow: number,
    startHigh: number,
    startLength: number,
    startType: number,
    total: number,
    forWrite: boolean,
  ): number {
    const words = this.#page.u32;
    let address = startHigh * 2 ** 32 + startLow;
    let left = startLength;
    let isLast = startType === SglType.LAST_SEGMENT;
    let seen = 1;
    if (left === 0 || left % DESCRIPTOR_BYTES !== 0) return Status.INVALID_SGL_SEGMENT;
    while (left > 0) {
      const bytes = Math.min(left, PAGE);
      if (!this.#memory.copyOut(address, this.#page, 0, bytes)) return Status.DATA_TRANSFER_ERROR;
      address += bytes;
      left -= bytes;
      for (let at = 0; at < bytes / 4; at += 4) {
        seen += 1;
        if (seen > DESCRIPTORS_MAX) return Status.INVALID_SGL_COUNT;
        const kind = words[at + 3]! >>> 24;
        const type = kind >>> 4;
        const mustLead = !isLast && left === 0 && at === bytes / 4 - 4;
        const doesLead = type === SglType.SEGMENT || type === SglType.LAST_SEGMENT;
        if (mustLead !== doesLead) return Status.INVALID_SGL_SEGMENT;
        const length = words[at + 2]!;
        if (!mustLead) {
          const status = this.#block(words[at]!, words[at + 1]!, length, kind, total, forWrite);
          if (status !== Status.SUCCESS) return status;
          continue;
        }
        if ((kind & 15) !== 0) return Status.SGL_TYPE;
        if (length === 0 || length % DESCRIPTOR_BYTES !== 0) return Status.INVALID_SGL_SEGMENT;
        address = words[at + 1]! * 2 ** 32 + words[at]!;
        left = length;
        isLast = type === SglType.LAST_SEGMENT;
        break;
      }
    }
    return Status.SUCCESS;
  }
}
