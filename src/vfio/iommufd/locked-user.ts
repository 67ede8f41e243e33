/**
 * A user of the system, to whom iommufd charges pinned pages: one count for all their processes.
 *
 * Source: include/linux/sched/user.h, user_struct.locked_vm;
 * drivers/iommu/iommufd/pages.c:incr_user_locked_vm.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";

/** A user. */
export class LockedUser {
  #lockedPages = 0;

  /** Pages charged. */
  get lockedPages(): number {
    return this.#lockedPages;
  }

  /**
   * Charges pages, or with a negative count gives them back.
   *
   * @param limitPages - RLIMIT_MEMLOCK of the process that asks
   * @returns ENOMEM, and nothing is charged, when the limit would be passed
   */
  charge(pages: number, limitPages: number): number {
    const total = this.#lockedPages + pages;
    if (pages > 0 && total > limitPages) return Errno.ENOMEM;
    assert(total >= 0, "no more is given back than was charged");
    this.#lockedPages = total;
    return Errno.OK;
  }
}
