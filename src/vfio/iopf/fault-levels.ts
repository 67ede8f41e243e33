/**
 * Which stages' faults a device's handler wants: those of its one stage, or of either of two.
 *
 * Source: RFC v3 of 2021, patch 1 of 8: FAULT_REPORT_FLAT, _NESTED_L1, _NESTED_L2,
 * iommu_register_device_fault_handler, iommu_update_device_fault_handler. As posted, an update was
 * refused exactly when there was a handler, and a mismatch left a mutex locked; neither is so here.
 */
import { Errno } from "../../errno.ts";
import { PageRequestFlag } from "../../iommu/iopf/page-request.ts";

/** What a handler wants to hear of. */
export const FaultReport = {
  /** One stage, whichever that is. */
  FLAT: 1,
  NESTED_L1: 2,
  NESTED_L2: 4,
} as const;

const NESTED = FaultReport.NESTED_L1 | FaultReport.NESTED_L2;

/** The registration of one device. */
export class FaultLevels {
  #flags = 0;

  /** What is registered; 0 for nothing. */
  get flags(): number {
    return this.#flags;
  }

  /** @returns EINVAL for flags that contradict each other, EBUSY when there is a handler */
  register(flags: number): number {
    if (!isValid(flags)) return Errno.EINVAL;
    if (this.#flags !== 0) return Errno.EBUSY;
    this.#flags = flags;
    return Errno.OK;
  }

  unregister(): void {
    this.#flags = 0;
  }

  /**
   * Clears the flags of `mask` and sets those of `set`.
   *
   * @returns EINVAL without a handler, or when the outcome is not valid
   */
  update(mask: number, set: number): number {
    const flags = (this.#flags & ~mask) | set;
    if (this.#flags === 0 || !isValid(flags)) return Errno.EINVAL;
    this.#flags = flags;
    return Errno.OK;
  }

  /** Whether a request's stage is wanted. @returns EINVAL without a handler, EOPNOTSUPP if not */
  check(requestFlags: number): number {
    if (this.#flags === 0) return Errno.EINVAL;
    if ((this.#flags & FaultReport.FLAT) !== 0) return Errno.OK;
    const isStage2 = (requestFlags & PageRequestFlag.STAGE2) !== 0;
    const wanted = isStage2 ? FaultReport.NESTED_L2 : FaultReport.NESTED_L1;
    return (this.#flags & wanted) !== 0 ? Errno.OK : Errno.EOPNOTSUPP;
  }
}

function isValid(flags: number): boolean {
  return flags === FaultReport.FLAT || ((flags & NESTED) !== 0 && (flags & ~NESTED) === 0);
}
