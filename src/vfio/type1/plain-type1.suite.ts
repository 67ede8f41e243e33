/**
 * A type1 container that goes page by page and keeps nothing but plain maps: the twin that the real
 * one is held to.
 */
import { Errno } from "../../errno.ts";
import type { FakeMemory } from "./type1-world.suite.ts";

/** A mapping, of which every page is noted. */
export interface PlainMapping {
  readonly iovaPfn: number;
  vpn: number;
  readonly pages: number;
  readonly prot: number;
  isInvalid: boolean;
  /** Frames by page, where domains have them; null for device memory that is not pinned. */
  readonly frames: { readonly pfn: number; readonly isReserved: boolean }[];
  /** Users of pages that drivers pinned, with the frame. */
  readonly pins: Map<number, { readonly pfn: number; users: number }>;
  readonly dirty: Set<number>;
  /** Bits that the kernel's bitmap holds behind those of the pages. */
  stale: bigint;
}

const last = (mapping: PlainMapping) => mapping.iovaPfn + mapping.pages - 1;

/** The twin. All calls take frames; what is misaligned is not its business. */
export class PlainType1 {
  readonly memory: FakeMemory;
  readonly hasDomain: boolean;
  readonly isV2: boolean;
  readonly limit: number;
  mappings: PlainMapping[] = [];
  dmaAvail: number;
  isTracking = false;

  constructor(
    memory: FakeMemory,
    options: { hasDomain: boolean; isV2: boolean; limit: number; entries: number },
  ) {
    this.memory = memory;
    this.hasDomain = options.hasDomain;
    this.isV2 = options.isV2;
    this.limit = options.limit;
    this.dmaAvail = options.entries;
  }

  /** Pages charged: those of mappings, or without a domain those that drivers pinned. */
  get locked(): number {
    let sum = 0;
    for (const mapping of this.mappings) {
      if (this.hasDomain) sum += mapping.frames.filter((frame) => !frame.isReserved).length;
      else sum += mapping.pins.size;
    }
    return sum;
  }

  /** Pins by frame. */
  pins(): [number, number][] {
    const pins = new Map<number, number>();
    const add = (pfn: number) => pins.set(pfn, (pins.get(pfn) ?? 0) + 1);
    for (const mapping of this.mappings) {
      for (const frame of mapping.frames) if (!frame.isReserved) add(frame.pfn);
      for (const pin of mapping.pins.values()) add(pin.pfn);
    }
    return [...pins].sort((a, b) => a[0] - b[0]);
  }

  /** Frames and rights by I/O virtual frame. */
  table(): [number, number, number][] {
    return this.mappings.flatMap((mapping) =>
      mapping.frames.map((frame, page): [number, number, number] => [
        mapping.iovaPfn + page,
        frame.pfn,
        mapping.prot,
      ]),
    );
  }

  map(iovaPfn: number, vpn: number, pages: number, prot: number): number {
    const end = iovaPfn + pages - 1;
    if (this.#overlapping(iovaPfn, end).length > 0) return Errno.EEXIST;
    if (this.dmaAvail === 0) return Errno.ENOSPC;
    if (!isAllowed(iovaPfn, end)) return Errno.EINVAL;
    const frames: PlainMapping["frames"] = [];
    let locked = this.locked;
    for (let page = 0; this.hasDomain && page < pages; page += 1) {
      const found = this.memory.pages.get(vpn + page);
      if (found === undefined) return Errno.EFAULT;
      if ((prot & 2) !== 0 && found.isWritable === false) return Errno.EFAULT;
      const isReserved = found.isReserved ?? false;
      if (!isReserved) locked += 1;
      if (!isReserved && locked > this.limit) return Errno.ENOMEM;
      frames.push({ pfn: found.pfn, isReserved });
    }
    const made = { iovaPfn, vpn, pages, prot, frames, isInvalid: false };
    this.mappings.push({ ...made, pins: new Map(), dirty: new Set(), stale: 0n });
    this.mappings.sort((a, b) => a.iovaPfn - b.iovaPfn);
    this.dmaAvail -= 1;
    return Errno.OK;
  }

  updateVaddr(iovaPfn: number, vpn: number, pages: number): number {
    const [mapping] = this.#overlapping(iovaPfn, iovaPfn + pages - 1);
    if (mapping === undefined) return Errno.ENOENT;
    const isSame = mapping.iovaPfn === iovaPfn && mapping.pages === pages;
    if (!isSame || !mapping.isInvalid) return Errno.EINVAL;
    mapping.isInvalid = false;
    mapping.vpn = vpn;
    return Errno.OK;
  }

  /** @returns the errno, or the pages unmapped as text */
  unmap(iovaPfn: number, end: number, isAll: boolean): number | string {
    if (this.isV2 && !isAll && this.#cuts(iovaPfn, end)) return Errno.EINVAL;
    const gone = this.#taken(iovaPfn, end);
    this.mappings = this.mappings.filter((mapping) => !gone.includes(mapping));
    this.dmaAvail += gone.length;
    return `${gone.reduce((sum, mapping) => sum + mapping.pages, 0)}`;
  }

  invalidate(iovaPfn: number, end: number, isAll: boolean): number | string {
    if (this.isV2 && !isAll && this.#cuts(iovaPfn, end)) return Errno.EINVAL;
    const found = this.#taken(iovaPfn, end);
    if (found.some((mapping) => mapping.isInvalid)) return Errno.EINVAL;
    for (const mapping of found) mapping.isInvalid = true;
    return `${found.reduce((sum, mapping) => sum + mapping.pages, 0)}`;
  }

  /** @returns the errno, or the frames that are dirty between */
  readDirty(iovaPfn: number, end: number): number | number[] {
    if (!this.isTracking || this.#cuts(iovaPfn, end)) return Errno.EINVAL;
    let user = 0n;
    for (const mapping of this.#overlapping(iovaPfn, end)) {
      user = this.#giveDirty(mapping, iovaPfn, user);
      mapping.dirty.clear();
      for (const page of mapping.pins.keys()) mapping.dirty.add(page);
    }
    const bits = user.toString(2).split("").reverse();
    return bits.flatMap((bit, index) => (bit === "1" ? [iovaPfn + index] : []));
  }

  /** update_user_bitmap, word for word, on one number. @returns the user's bitmap */
  #giveDirty(mapping: PlainMapping, basePfn: number, user: bigint): bigint {
    const offset = mapping.iovaPfn - basePfn;
    const shift = BigInt(offset % 64);
    const at = BigInt(offset) - shift;
    const count = BigInt(mapping.pages);
    const words = (count + shift + 63n) / 64n;
    let bitmap = mapping.stale << count;
    for (let page = 0; page < mapping.pages; page += 1) {
      if (this.hasDomain || mapping.dirty.has(page)) bitmap |= 1n << BigInt(page);
    }
    const behind = (bitmap >> (words * 64n)) << (words * 64n);
    let given = BigInt.asUintN(Number(words * 64n), bitmap << shift);
    if (shift > 0n) given |= BigInt.asUintN(64, user >> at);
    mapping.stale = (behind | given) >> count;
    const after = user >> (at + words * 64n);
    return BigInt.asUintN(Number(at), user) | (given << at) | (after << (at + words * 64n));
  }

  track(isOn: boolean): void {
    if (this.isTracking === isOn) return;
    this.isTracking = isOn;
    for (const mapping of this.mappings) {
      mapping.dirty.clear();
      mapping.stale = 0n;
      if (isOn) for (const page of mapping.pins.keys()) mapping.dirty.add(page);
    }
  }

  pin(iovaPfn: number, pages: number, prot: number): number {
    if (!this.isV2) return Errno.EACCES;
    if (this.mappings.some((mapping) => mapping.isInvalid)) return Errno.EBUSY;
    for (let index = 0; index < pages; index += 1) {
      const errno = this.#pinPage(iovaPfn + index, prot);
      if (errno === Errno.OK) continue;
      this.unpin(iovaPfn, index);
      return errno;
    }
    for (let index = 0; this.isTracking && index < pages; index += 1) {
      const [mapping] = this.#overlapping(iovaPfn + index, iovaPfn + index);
      mapping!.dirty.add(iovaPfn + index - mapping!.iovaPfn);
    }
    return Errno.OK;
  }

  unpin(iovaPfn: number, pages: number): void {
    for (let index = 0; index < pages; index += 1) {
      const [mapping] = this.#overlapping(iovaPfn + index, iovaPfn + index);
      if (mapping === undefined) return;
      const page = iovaPfn + index - mapping.iovaPfn;
      const pin = mapping.pins.get(page);
      if (pin === undefined) continue;
      pin.users -= 1;
      if (pin.users === 0) mapping.pins.delete(page);
    }
  }

  #pinPage(iovaPfn: number, prot: number): number {
    const [mapping] = this.#overlapping(iovaPfn, iovaPfn);
    if (mapping === undefined) return Errno.EINVAL;
    if ((mapping.prot & prot) !== prot) return Errno.EPERM;
    const page = iovaPfn - mapping.iovaPfn;
    const pin = mapping.pins.get(page);
    if (pin !== undefined) {
      pin.users += 1;
      return Errno.OK;
    }
    const found = this.memory.pages.get(mapping.vpn + page);
    if (found === undefined) return Errno.EFAULT;
    if ((mapping.prot & 2) !== 0 && found.isWritable === false) return Errno.EFAULT;
    if (found.isReserved === true) return Errno.EINVAL;
    if (!this.hasDomain && this.locked + 1 > this.limit) return Errno.ENOMEM;
    mapping.pins.set(page, { pfn: found.pfn, users: 1 });
    return Errno.OK;
  }

  #overlapping(first: number, end: number): PlainMapping[] {
    return this.mappings.filter((mapping) => mapping.iovaPfn <= end && last(mapping) >= first);
  }

  /** What an unmap takes: version 1 nothing when it begins inside, else whole mappings. */
  #taken(first: number, end: number): PlainMapping[] {
    const found = this.#overlapping(first, end);
    return found.some((mapping) => mapping.iovaPfn < first) ? [] : found;
  }

  #cuts(first: number, end: number): boolean {
    return this.#overlapping(first, end).some(
      (mapping) => mapping.iovaPfn < first || last(mapping) > end,
    );
  }
}

function isAllowed(first: number, end: number): boolean {
  return end <= 0xfedff || (first >= 0xfef00 && end < 2 ** 36);
}
