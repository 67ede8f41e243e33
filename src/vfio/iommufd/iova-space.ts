/**
 * The IOVAs of an IOAS: which are reserved by whom, which the user wants free for mappings, and
 * where the next mapping fits.
 *
 * Source: drivers/iommu/iommufd/io_pagetable.c: iopt_alloc_iova, iopt_check_iova,
 * iopt_reserve_iova, iopt_set_allow_iova; drivers/iommu/iommufd/ioas.c:iommufd_ioas_load_iovas.
 */
import { Errno } from "../../errno.ts";
import { ADDRESS_LAST, addressOf, log2Ceil, PAGE_BYTES, powerOfTwo } from "../../units.ts";
import { AreaMap } from "./area.ts";
import { type ByteRange, lastOf, overlap, rangeBetween, startOf } from "./byte-range.ts";

/** A range of IOVAs at the public edge. */
export interface IovaSpan {
  readonly start: bigint;
  /** Inclusive. */
  readonly last: bigint;
}

/** Mappings are placed at multiples of no more than a huge page. */
const HUGE_PAGE_BYTES = 1n << 21n;
const PAGE = BigInt(PAGE_BYTES);
/** What the kernel allocates from when the user allows nothing in particular. */
const ANYWHERE: IovaSpan = { start: PAGE, last: ADDRESS_LAST - PAGE };

interface Reservation extends ByteRange {
  readonly owner: object;
}

/** The IOVAs. */
export class IovaSpace {
  readonly areas = new AreaMap();
  /** What IOVAs, lengths and offsets of mappings have to be multiples of, bytes. */
  alignment = 1;
  readonly #reserved: Reservation[] = [];
  #allowed: ByteRange[] = [];

  /** Ranges that are not reserved, ascending. */
  holes(): IovaSpan[] {
    const holes: IovaSpan[] = [];
    let start = 0n;
    const sorted = inOrder(this.reserved);
    for (const each of sorted) {
      if (each.start > start) holes.push({ start, last: each.start - 1n });
      if (each.last >= start) start = each.last + 1n;
    }
    if (start <= ADDRESS_LAST) holes.push({ start, last: ADDRESS_LAST });
    return holes;
  }

  /** Reservations, in the order in which they were made; for dumps and tests. */
  get reserved(): IovaSpan[] {
    return this.#reserved.map((each) => ({ start: startOf(each), last: lastOf(each) }));
  }

  /** What the user allowed, ascending. */
  get allowed(): IovaSpan[] {
    return this.#allowed.map((each) => ({ start: startOf(each), last: lastOf(each) }));
  }

  /**
   * Takes a range away from all mappings to come.
   *
   * @returns EADDRINUSE when something is mapped there, or the user wants it free
   */
  reserve(start: bigint, last: bigint, owner: object): number {
    const range = rangeBetween(start, last);
    const isTaken = this.areas.firstIn(range) !== null;
    if (isTaken || this.#allowed.some((each) => overlap(each, range))) return Errno.EADDRINUSE;
    this.#reserved.push({ ...range, owner });
    return Errno.OK;
  }

  /** Reserves what an aperture leaves out. @returns EADDRINUSE; what was reserved stays then */
  reserveOutside(startPfn: number, lastPfn: number, owner: object): number {
    if (startPfn > 0) {
      const errno = this.reserve(0n, addressOf(startPfn) - 1n, owner);
      if (errno !== Errno.OK) return errno;
    }
    const last = addressOf(lastPfn, PAGE_BYTES - 1);
    return last === ADDRESS_LAST ? Errno.OK : this.reserve(last + 1n, ADDRESS_LAST, owner);
  }

  /** Ends what an owner reserved. */
  unreserve(owner: object): void {
    let kept = 0;
    for (const each of this.#reserved) {
      if (each.owner !== owner) this.#reserved[kept++] = each;
    }
    this.#reserved.length = kept;
  }

  /**
   * Sets what must stay free for mappings, and where they are placed; nothing for anywhere.
   *
   * @returns EINVAL for a range of no or one byte and for overlaps, EADDRINUSE when one is reserved
   */
  allow(spans: readonly IovaSpan[]): number {
    const errno = checkAllowed(spans);
    if (errno !== Errno.OK) return errno;
    const ranges = inOrder(spans).map(({ start, last }) => rangeBetween(start, last));
    if (ranges.some((range) => this.#isReserved(range))) return Errno.EADDRINUSE;
    this.#allowed = ranges;
    return Errno.OK;
  }

  /** Whether all that is mapped keeps to an alignment. */
  suitsAlignment(alignment: number): boolean {
    if (alignment <= this.alignment) return true;
    for (const area of this.areas) {
      const end = (area.lastOffset + 1) % alignment;
      if (area.startOffset % alignment !== 0 || end !== 0) return false;
      if (area.pageOffset % alignment !== 0) return false;
    }
    return true;
  }

  /** Whether a mapping may be made in a range. @returns EINVAL, EEXIST, 0 */
  check(range: ByteRange): number {
    if (range.startOffset % this.alignment !== 0) return Errno.EINVAL;
    if (this.#isReserved(range)) return Errno.EINVAL;
    return this.areas.firstIn(range) === null ? Errno.OK : Errno.EEXIST;
  }

  /**
   * The lowest free place for a mapping, never 0; what lies at huge pages in memory does so in
   * IOVAs as well.
   *
   * @param address - where the memory begins: an address, or an offset in a file
   * @returns the IOVA, or an errno: EOVERFLOW, EINVAL, ENOSPC
   */
  place(address: bigint, length: bigint): bigint | number {
    if (length === 0n || length >= ADDRESS_LAST / 2n) return Errno.EOVERFLOW;
    const align = alignmentFor(address, length);
    if (align < BigInt(this.alignment)) return Errno.EINVAL;
    const offset = address % PAGE;
    const taken = inOrder(this.reserved);
    for (const span of this.#places()) {
      const start = startIn(span.start, span.last, length, align, offset);
      if (start === null) continue;
      const found = this.#placeIn({ start, last: span.last }, taken, length, align, offset);
      if (found !== null) return found;
    }
    return Errno.ENOSPC;
  }

  /** The lowest place in a span that is neither mapped nor reserved. */
  #placeIn(
    span: IovaSpan,
    taken: readonly IovaSpan[],
    length: bigint,
    align: bigint,
    offset: bigint,
  ): bigint | null {
    // What starts at or above `low` and is not below `top` is free of areas.
    const tryHole = (low: bigint, top: bigint): bigint | null => {
      let start = low;
      for (const each of taken) {
        if (each.last < start) continue;
        if (each.start > top) break;
        if (each.start > start) {
          const found = startIn(start, each.start - 1n, length, align, offset);
          if (found !== null) return found;
        }
        start = each.last + 1n;
      }
      return start > top ? null : startIn(start, top, length, align, offset);
    };
    const pagesWanted = Number(length / PAGE);
    const first = rangeBetween(span.start, span.last);
    let found: bigint | null = null;
    let lowPfn = first.startPfn;
    let lowOffset = first.startOffset;
    let isPast = false;
    this.areas.someFrom(lowPfn, lowOffset, (area) => {
      isPast = area.startPfn > first.lastPfn;
      if (isPast) return true;
      // A hole that is too small by its frames alone is passed without arithmetic on bytes.
      if (area.startPfn - lowPfn >= pagesWanted) {
        const top = startOf(area) - 1n;
        const low = (BigInt(lowPfn) << 12n) + BigInt(lowOffset);
        if (top >= low) found = tryHole(low, lower(top, span.last));
      }
      lowPfn = area.lastOffset === 0xfff ? area.lastPfn + 1 : area.lastPfn;
      lowOffset = (area.lastOffset + 1) & 0xfff;
      return found !== null;
    });
    if (found !== null) return found;
    const low = (BigInt(lowPfn) << 12n) + BigInt(lowOffset);
    return low > span.last ? null : tryHole(low, span.last);
  }

  /** Where the kernel may place mappings: what is allowed, adjacent ranges as one. */
  #places(): IovaSpan[] {
    if (this.#allowed.length === 0) return [ANYWHERE];
    const places: { start: bigint; last: bigint }[] = [];
    for (const { start, last } of this.allowed) {
      const below = places.at(-1);
      const top = lower(last, ANYWHERE.last);
      if (below !== undefined && below.last + 1n === start) below.last = top;
      else places.push({ start: start > PAGE ? start : PAGE, last: top });
    }
    return places.filter((each) => each.start <= each.last);
  }

  #isReserved(range: ByteRange): boolean {
    for (const each of this.#reserved) if (overlap(each, range)) return true;
    return false;
  }
}

/** Whether ranges can be allowed at all. @returns EINVAL for less than two bytes and overlaps */
export function checkAllowed(spans: readonly IovaSpan[]): number {
  const sorted = inOrder(spans);
  for (const [index, span] of sorted.entries()) {
    if (span.start >= span.last) return Errno.EINVAL;
    if (index > 0 && sorted[index - 1]!.last >= span.start) return Errno.EINVAL;
  }
  return Errno.OK;
}

function inOrder(spans: readonly IovaSpan[]): IovaSpan[] {
  return [...spans].sort((a, b) => (a.start < b.start ? -1 : a.start > b.start ? 1 : 0));
}

/** What a mapping's IOVA is aligned to, so that large pages stay possible. */
function alignmentFor(address: bigint, length: bigint): bigint {
  let align = HUGE_PAGE_BYTES;
  if (length < align) align = BigInt(powerOfTwo(log2Ceil(Number(length))));
  if (address === 0n) return align;
  const ofAddress = address & -address;
  return ofAddress < align ? ofAddress : align;
}

function lower(a: bigint, b: bigint): bigint {
  return a < b ? a : b;
}

/** Where in a hole a mapping begins, or null when it does not fit. */
function startIn(
  start: bigint,
  last: bigint,
  length: bigint,
  align: bigint,
  offset: bigint,
): bigint | null {
  const rounded = start + align - 1n;
  if (rounded > ADDRESS_LAST) return null;
  const aligned = (rounded & -align) | offset;
  // One byte alone does not fit into a hole of one: the kernel compares so.
  return aligned >= last || last - aligned < length - 1n ? null : aligned;
}
