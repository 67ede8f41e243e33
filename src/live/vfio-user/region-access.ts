/**
 * REGION_READ, REGION_WRITE and REGION_WRITE_MULTI: accesses to a function's regions, checked before
 * the function sees them. Speed: see bench/vfio-user.bench.ts.
 *
 * Source: vfio-user protocol specification, version 0.0, the sections of the three; which accesses
 * are refused: libvfio-user, lib/libvfio-user.c:is_valid_region_access_message.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { type PciFunction, REGION_COUNT } from "../../pci/function.ts";
import { type Message, readSafe } from "./message.ts";
import { RegionAccess, WriteEntry, WriteMulti } from "./messages.ts";
import { Limit } from "./protocol.ts";
import type { ReplyWriter } from "./reply-writer.ts";

const ACCESS_BYTES = RegionAccess.bytes;
const ENTRY_BYTES = WriteEntry.bytes;
const ENTRY_DATA = WriteEntry.at.data;

/** Accesses to the regions of one function. */
export class RegionAccesses {
  reads = 0;
  writes = 0;
  readonly #function: PciFunction;
  readonly #bytes = new Float64Array(REGION_COUNT);
  readonly #isReadable = new Uint8Array(REGION_COUNT);
  readonly #isWritable = new Uint8Array(REGION_COUNT);

  constructor(pci: PciFunction) {
    this.#function = pci;
    for (const { index, bytes, readable, writable } of pci.regions) {
      assert(index >= 0 && index < REGION_COUNT, "a region has an index of a PCI function");
      this.#bytes[index] = bytes;
      this.#isReadable[index] = readable ? 1 : 0;
      this.#isWritable[index] = writable ? 1 : 0;
    }
  }

  /** REGION_READ. @param countMax - bytes that the client takes */
  read(message: Message, reply: ReplyWriter, countMax: number): number {
    const { view, at } = message;
    const offset = readSafe(view, at);
    const region = RegionAccess.get.region(view, at);
    const count = RegionAccess.get.count(view, at);
    const errno = this.#check(this.#isReadable, region, offset, count, countMax);
    if (errno !== Errno.OK) return errno;
    const out = reply.add(ACCESS_BYTES + count);
    echo(view, at, reply.view, out);
    this.reads += 1;
    if (count === 0) return Errno.OK;
    const isRead = this.#function.read(region, offset, reply.bytes, out + ACCESS_BYTES, count);
    return isRead ? Errno.OK : Errno.EINVAL;
  }

  /** REGION_WRITE. */
  write(message: Message, reply: ReplyWriter): number {
    const { view, at } = message;
    const offset = readSafe(view, at);
    const region = RegionAccess.get.region(view, at);
    const count = RegionAccess.get.count(view, at);
    if (message.payloadBytes !== ACCESS_BYTES + count) return Errno.EINVAL;
    const errno = this.#write(message, region, offset, at + ACCESS_BYTES, count);
    if (errno === Errno.OK) echo(view, at, reply.view, reply.add(ACCESS_BYTES));
    return errno;
  }

  /** REGION_WRITE_MULTI: entries before one that is wrong have been written. */
  writeMulti(message: Message, reply: ReplyWriter): number {
    const { view, at } = message;
    const entries = (message.payloadBytes - WriteMulti.bytes) / ENTRY_BYTES;
    if (!Number.isInteger(entries) || readSafe(view, at) !== entries) return Errno.EINVAL;
    if (entries > Limit.MULTI_WRITES) return Errno.EINVAL;
    for (let index = 0; index < entries; index += 1) {
      const entry = at + WriteMulti.bytes + index * ENTRY_BYTES;
      const count = WriteEntry.get.count(view, entry);
      if (count === 0 || count > 8) return Errno.EINVAL;
      const region = WriteEntry.get.region(view, entry);
      const errno = this.#write(message, region, readSafe(view, entry), entry + ENTRY_DATA, count);
      if (errno !== Errno.OK) return errno;
    }
    WriteMulti.set.count(reply.view, reply.add(WriteMulti.bytes), BigInt(entries));
    return Errno.OK;
  }

  #write(message: Message, region: number, offset: number, at: number, count: number): number {
    const { TRANSFER_BYTES } = Limit;
    const errno = this.#check(this.#isWritable, region, offset, count, TRANSFER_BYTES);
    if (errno !== Errno.OK) return errno;
    this.writes += 1;
    if (count === 0) return Errno.OK;
    const isWritten = this.#function.write(region, offset, message.bytes, at, count);
    return isWritten ? Errno.OK : Errno.EINVAL;
  }

  #check(
    isAllowed: Uint8Array,
    region: number,
    offset: number,
    count: number,
    countMax: number,
  ): number {
    if (region >= REGION_COUNT || offset < 0 || count > countMax) return Errno.EINVAL;
    if (offset + count > this.#bytes[region]!) return Errno.EINVAL;
    return count === 0 || isAllowed[region] !== 0 ? Errno.OK : Errno.EPERM;
  }
}

/** Copies the fixed part of an access into its reply. */
function echo(from: DataView, at: number, to: DataView, out: number): void {
  for (let word = 0; word < ACCESS_BYTES; word += 4) {
    to.setUint32(out + word, from.getUint32(at + word, true), true);
  }
}
