/**
 * iommufd page by page, without extents, trees or shared state: what the real one is held against.
 *
 * Everything is recomputed from lists: which pages are pinned follows from who shows them.
 */
import { Errno } from "../../errno.ts";

/** The world in pages, as the model tests make it. */
export interface PlainWorld {
  readonly holes: ReadonlySet<number>;
  readonly readOnly: ReadonlySet<number>;
  /** Pages that devices reserve, first and last. */
  readonly window: readonly [number, number];
  readonly limit: number;
  frameOf(vpn: number): number;
}

/** Memory of one map call. */
interface Piece {
  readonly vpn: number;
  readonly isWritable: boolean;
}

interface PlainArea {
  readonly first: number;
  readonly pages: number;
  readonly piece: Piece;
  /** Page of the piece that it begins with. */
  readonly at: number;
  readonly isWritable: boolean;
}

interface PlainSpace {
  areas: PlainArea[];
  readonly devices: Set<number>;
  allowed: [number, number] | null;
}

interface PlainPin {
  readonly first: number;
  readonly pages: number;
  readonly shown: readonly (readonly [Piece, number])[];
}

const PLACES_MAX = 4096;

/** The twin. */
export class PlainIommufd {
  readonly spaces: PlainSpace[] = [];
  pins: PlainPin[] = [];
  readonly #world: PlainWorld;

  constructor(world: PlainWorld, spaces: number) {
    this.#world = world;
    for (let index = 0; index < spaces; index += 1) {
      this.spaces.push({ areas: [], devices: new Set(), allowed: null });
    }
  }

  /** Maps; `iova` −1 lets the kernel choose. @returns [errno, first page] */
  map(space: number, vpn: number, pages: number, iova: number, isWritable: boolean) {
    const piece = { vpn, isWritable };
    return this.#insert(space, [{ piece, at: 0, pages }], pages, iova, isWritable);
  }

  copy(from: number, source: number, to: number, pages: number, iova: number, isWritable: boolean) {
    const parts: { piece: Piece; at: number; pages: number }[] = [];
    for (let page = source; page < source + pages; ) {
      const area = this.#areaAt(from, page);
      if (area === null) return [Errno.ENOENT, 0];
      const count = Math.min(source + pages, area.first + area.pages) - page;
      parts.push({ piece: area.piece, at: area.at + page - area.first, pages: count });
      page += count;
    }
    return this.#insert(to, parts, pages, iova, isWritable);
  }

  /** @returns [errno, pages unmapped] */
  unmap(space: number, first: number, pages: number): [number, number] {
    const own = this.spaces[space]!;
    let unmapped = 0;
    for (const area of [...own.areas].sort((a, b) => a.first - b.first)) {
      const last = area.first + area.pages - 1;
      if (last < first || area.first >= first + pages) continue;
      if (area.first < first || last >= first + pages) return [Errno.ENOENT, unmapped];
      if (space === 0) this.#letGo(area.first, area.pages);
      own.areas = own.areas.filter((each) => each !== area);
      unmapped += area.pages;
    }
    return [unmapped === 0 ? Errno.ENOENT : Errno.OK, unmapped];
  }

  attach(space: number, device: number): number {
    const own = this.spaces[space]!;
    const [first, last] = this.#world.window;
    const { allowed } = own;
    for (let page = first; page <= last; page += 1) {
      if (this.#areaAt(space, page) !== null) return Errno.EADDRINUSE;
      if (allowed !== null && page >= allowed[0] && page <= allowed[1]) return Errno.EADDRINUSE;
    }
    own.devices.add(device);
    const { areas } = own;
    const upwards = [...areas].sort((a, b) => a.first - b.first);
    // A table is filled area by area, upwards; the first that fails says why.
    let errno: number = Errno.OK;
    for (let count = 1; count <= upwards.length && errno === Errno.OK; count += 1) {
      own.areas = upwards.slice(0, count);
      errno = this.#check();
    }
    own.areas = areas;
    if (errno !== Errno.OK) own.devices.delete(device);
    return errno;
  }

  detach(space: number, device: number): void {
    this.spaces[space]!.devices.delete(device);
  }

  allow(space: number, range: [number, number] | null): number {
    const own = this.spaces[space]!;
    const [first, last] = this.#world.window;
    const isReserved = own.devices.size > 0;
    if (range !== null && isReserved && range[0] <= last && first <= range[1]) {
      return Errno.EADDRINUSE;
    }
    own.allowed = range;
    return Errno.OK;
  }

  /** An access to space 0. */
  pin(first: number, pages: number, isWrite: boolean): number {
    const shown: [Piece, number][] = [];
    // Part by part, so that a hole is found after what lies below it was pinned.
    for (let page = first; page < first + pages; page += 1) {
      const area = this.#areaAt(0, page);
      const isEnd = area === null || (isWrite && !area.isWritable);
      if (isEnd) return this.#pinError(shown) || (area === null ? Errno.ENOENT : Errno.EPERM);
      shown.push([area.piece, area.at + page - area.first]);
      const isAreaEnd = page === area.first + area.pages - 1;
      const errno = isAreaEnd || page === first + pages - 1 ? this.#pinError(shown) : Errno.OK;
      if (errno !== Errno.OK) return errno;
    }
    this.pins.push({ first, pages, shown });
    return Errno.OK;
  }

  unpin(index: number): void {
    this.pins.splice(index, 1);
  }

  /** Pages that are pinned, by piece. */
  pinned(): Map<Piece, Set<number>> {
    const pinned = new Map<Piece, Set<number>>();
    const add = (piece: Piece, at: number) => {
      if (!pinned.has(piece)) pinned.set(piece, new Set());
      pinned.get(piece)!.add(at);
    };
    for (const { areas, devices } of this.spaces) {
      if (devices.size === 0) continue;
      for (const { piece, at, pages } of areas) {
        for (let page = at; page < at + pages; page += 1) add(piece, page);
      }
    }
    for (const { shown } of this.pins) for (const [piece, at] of shown) add(piece, at);
    return pinned;
  }

  /** Pins on each frame. */
  pinCounts(): Map<number, number> {
    const counts = new Map<number, number>();
    for (const [{ vpn }, pages] of this.pinned()) {
      for (const at of pages) {
        const frame = this.#world.frameOf(vpn + at);
        counts.set(frame, (counts.get(frame) ?? 0) + 1);
      }
    }
    return counts;
  }

  /** Where a device's access to a page leads, −1 for nowhere. */
  reach(space: number, page: number): number {
    const area = this.#areaAt(space, page);
    return area === null ? -1 : this.#world.frameOf(area.piece.vpn + area.at + page - area.first);
  }

  #insert(
    space: number,
    parts: readonly { piece: Piece; at: number; pages: number }[],
    pages: number,
    iova: number,
    isWritable: boolean,
  ) {
    const own = this.spaces[space]!;
    const [{ piece, at }] = parts as [{ piece: Piece; at: number; pages: number }];
    const first = iova < 0 ? this.#place(space, piece.vpn + at, pages) : iova;
    if (first < 0) return [Errno.ENOSPC, 0];
    if (iova >= 0 && this.#isReserved(space, first, pages)) return [Errno.EINVAL, 0];
    for (let page = first; page < first + pages; page += 1) {
      if (this.#areaAt(space, page) !== null) return [Errno.EEXIST, 0];
    }
    if (isWritable && parts.some((part) => !part.piece.isWritable)) return [Errno.EPERM, 0];
    const before = own.areas;
    let next = first;
    // Each part is charged for itself, so that the first one over the limit or a hole decides.
    for (const part of parts) {
      own.areas = [...own.areas, { ...part, first: next, isWritable }];
      next += part.pages;
      const errno = this.#check();
      if (errno === Errno.OK) continue;
      own.areas = before;
      return [errno, 0];
    }
    return [Errno.OK, first];
  }

  #check(): number {
    let charged = 0;
    let isBad = false;
    for (const [piece, pages] of this.pinned()) {
      for (const at of pages) if (this.#isBad(piece, at)) isBad = true;
      charged += pages.size;
    }
    if (isBad) return Errno.EFAULT;
    return charged > this.#world.limit ? Errno.ENOMEM : Errno.OK;
  }

  #pinError(shown: readonly (readonly [Piece, number])[]): number {
    this.pins.push({ first: 0, pages: 0, shown });
    const errno = this.#check();
    this.pins.pop();
    return errno;
  }

  #isBad({ vpn, isWritable }: Piece, at: number): boolean {
    const { holes, readOnly } = this.#world;
    return holes.has(vpn + at) || (isWritable && readOnly.has(vpn + at));
  }

  #isReserved(space: number, first: number, pages: number): boolean {
    const [start, last] = this.#world.window;
    return this.spaces[space]!.devices.size > 0 && first <= last && start < first + pages;
  }

  #place(space: number, vpn: number, pages: number): number {
    let align = 1;
    while (align < pages) align *= 2;
    if (vpn > 0) while (vpn % align !== 0) align /= 2;
    const { allowed } = this.spaces[space]!;
    const [low, high] = allowed ?? [1, PLACES_MAX];
    for (let first = Math.max(low, 1); first + pages - 1 <= high; first += 1) {
      if (first % align !== 0 || this.#isReserved(space, first, pages)) continue;
      let isFree = true;
      for (let page = first; page < first + pages; page += 1) {
        if (this.#areaAt(space, page) !== null) isFree = false;
      }
      if (isFree) return first;
    }
    return -1;
  }

  #areaAt(space: number, page: number): PlainArea | null {
    const { areas } = this.spaces[space]!;
    return areas.find((each) => each.first <= page && page < each.first + each.pages) ?? null;
  }

  #letGo(first: number, pages: number): void {
    this.pins = this.pins.filter((pin) => {
      return pin.first + pin.pages <= first || first + pages <= pin.first;
    });
  }
}
