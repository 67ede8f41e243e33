/**
 * A process that uses VFIO or iommufd: its memory, its limit of locked memory, its rights.
 *
 * Source: include/linux/mm_types.h, mm_struct.locked_vm; mm/util.c:__account_locked_vm;
 * drivers/vfio/vfio_iommu_type1.c:vfio_lock_acct.
 */
import { Errno } from "../../errno.ts";
import { assert } from "../../errors.ts";
import type { ProcessMemory } from "./process-memory.ts";

/** What a process is made of. */
export interface UserProcessOptions {
  /** Null for a task without memory of its own, which can map nothing. */
  readonly memory: ProcessMemory | null;
  /** RLIMIT_MEMLOCK in pages; infinity for RLIM_INFINITY. */
  readonly memlockPages?: number;
  /** CAP_IPC_LOCK: whether the limit does not count. */
  readonly canLock?: boolean;
}

/** A process. */
export class UserProcess {
  readonly memory: ProcessMemory | null;
  memlockPages: number;
  canLock: boolean;
  #lockedPages = 0;

  constructor(options: UserProcessOptions) {
    this.memory = options.memory;
    this.memlockPages = options.memlockPages ?? Number.POSITIVE_INFINITY;
    this.canLock = options.canLock ?? false;
  }

  /** Pages charged to the process (locked_vm). */
  get lockedPages(): number {
    return this.#lockedPages;
  }

  /**
   * Charges pages, or with a negative count gives them back.
   *
   * @param canLock - CAP_IPC_LOCK as it was when the mapping was made
   * @returns ENOMEM, and nothing is charged, when the limit would be passed
   */
  charge(pages: number, canLock: boolean): number {
    const total = this.#lockedPages + pages;
    if (pages > 0 && !canLock && total > this.memlockPages) return Errno.ENOMEM;
    assert(total >= 0, "no more is given back than was charged");
    this.#lockedPages = total;
    return Errno.OK;
  }
}
