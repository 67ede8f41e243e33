/**
 * Access of kernel software to an IOAS: how emulated devices get at the memory that a user mapped
 * for them.
 *
 * Source: drivers/iommu/iommufd/device.c: iommufd_access_create, iommufd_access_attach,
 * iommufd_access_change_ioas, iommufd_access_pin_pages, iommufd_access_unpin_pages,
 * iommufd_access_notify_unmap; drivers/iommu/iommufd/pages.c:iopt_area_add_access.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import { Prot } from "../../iommu/prot.ts";
import { ADDRESS_LAST, PAGE_BYTES } from "../../units.ts";
import { type Area, pagesByteOf } from "./area.ts";
import { byteRange } from "./byte-range.ts";
import type { IoasObject } from "./hwpt.ts";
import type { IoasUser } from "./ioas.ts";
import type { IommufdObject } from "./objects.ts";

/** The driver of an emulated device. */
export interface AccessOwner {
  /** Has to unpin everything in a range before it returns. */
  unmap(iova: bigint, length: bigint): void;
}

/** What a pin gives. */
export interface PinReply {
  readonly errno: number;
  /** Frames, one for each page; none after an error. */
  readonly pfns: readonly number[];
}

interface Pin {
  readonly iova: bigint;
  readonly length: bigint;
  readonly parts: readonly PinnedPart[];
}

interface PinnedPart {
  readonly area: Area;
  readonly first: number;
  readonly last: number;
}

/** An access. */
export class Access implements IommufdObject, IoasUser {
  readonly kind = "access";
  id = 0;
  /** The driver that made it needs it. */
  users = 1;
  readonly alignment = PAGE_BYTES;
  ioas: IoasObject | null = null;
  readonly #owner: AccessOwner;
  readonly #pins: Pin[] = [];

  constructor(owner: AccessOwner) {
    this.#owner = owner;
  }

  /** Pins that were made and not undone. */
  get pinCount(): number {
    return this.#pins.length;
  }

  unmap(iova: bigint, length: bigint): void {
    this.#owner.unmap(iova, length);
  }

  /**
   * Goes to another IOAS, or with null to none; the driver lets go of all pins before.
   *
   * @returns EADDRINUSE, and it stays where it is, when a mapping there is no multiple of pages
   */
  moveTo(ioas: IoasObject | null): number {
    const old = this.ioas;
    if (ioas === old) return Errno.OK;
    if (ioas !== null) {
      const errno = ioas.ioas.addUser(this);
      if (errno !== Errno.OK) return errno;
      ioas.users += 1;
    }
    if (old !== null) {
      this.unmap(0n, ADDRESS_LAST);
      assert(this.#pins.length === 0, "a driver lets go of all its pins when asked to");
      old.ioas.removeUser(this);
      old.users -= 1;
    }
    this.ioas = ioas;
    return Errno.OK;
  }

  /**
   * Pins the pages of a range; a page that a table or another access holds is not pinned anew.
   *
   * @returns ENOENT (no IOAS, a hole), EINVAL, EOVERFLOW, EPERM (rights), EBUSY (going away),
   *   EFAULT, ENOMEM; then nothing is pinned
   */
  pin(iova: bigint, length: bigint, isWrite: boolean): PinReply {
    const none = (errno: number): PinReply => ({ errno, pfns: [] });
    if (length === 0n) return none(Errno.EINVAL);
    const range = byteRange(iova, length);
    if (range === null) return none(Errno.EOVERFLOW);
    if (this.ioas === null) return none(Errno.ENOENT);
    const parts: PinnedPart[] = [];
    const pfns: number[] = [];
    const errno = this.ioas.ioas.forEachContiguous(range, (area, start, last) => {
      const first = Number(pagesByteOf(area, start) >> 12n);
      const lastPage = Number(pagesByteOf(area, last) >> 12n);
      const partErrno = pinPart(area, first, lastPage, isWrite, pfns);
      if (partErrno === Errno.OK) parts.push({ area, first, last: lastPage });
      return partErrno;
    });
    if (errno !== Errno.OK) {
      for (const part of parts) unpinPart(part);
      return none(errno);
    }
    this.#pins.push({ iova, length, parts });
    return { errno, pfns };
  }

  /** Ends one {@link pin} of the same range. */
  unpin(iova: bigint, length: bigint): void {
    const index = this.#pins.findIndex((pin) => pin.iova === iova && pin.length === length);
    assert(index >= 0, "a range unpinned was pinned");
    const [pin] = this.#pins.splice(index, 1);
    for (const part of pin!.parts) unpinPart(part);
  }

  /** Ends all pins that share a byte with a range, as a driver does when it is told to let go. */
  unpinOverlapping(iova: bigint, length: bigint): void {
    const last = length === 0n ? iova : iova + length - 1n;
    for (const pin of [...this.#pins]) {
      if (pin.iova <= last && iova <= pin.iova + pin.length - 1n) this.unpin(pin.iova, pin.length);
    }
  }

  destroy(): void {
    const errno = this.moveTo(null);
    assert(errno === Errno.OK, "to no IOAS there is always a way");
  }
}

function pinPart(
  area: Area,
  first: number,
  last: number,
  isWrite: boolean,
  pfns: number[],
): number {
  const { pages } = area;
  if (area.preventsAccess) return Errno.EBUSY;
  if (pages.isDevice) return Errno.EINVAL;
  if ((area.prot & (isWrite ? Prot.WRITE : Prot.READ)) === 0) return Errno.EPERM;
  let index = first;
  let errno: number = Errno.OK;
  while (index <= last) {
    errno = pages.hold(index, last);
    if (errno !== Errno.OK) break;
    index = pages.heldLast + 1;
  }
  if (errno === Errno.OK) errno = pages.updateCharge();
  if (errno !== Errno.OK) {
    if (index > first) pages.release(first, index - 1);
    return errno;
  }
  area.accesses += 1;
  pages.forEachRun(first, last, (_at, pfn, count) => {
    for (let at = 0; at < count; at += 1) pfns.push(pfn + at);
    return Errno.OK;
  });
  return errno;
}

function unpinPart({ area, first, last }: PinnedPart): void {
  area.pages.release(first, last);
  area.pages.updateCharge();
  area.accesses -= 1;
}
