/**
 * The handler of a domain that shares a process's address space: each request is a page fault of
 * the process.
 *
 * Source: drivers/iommu/iommu-sva.c: iommu_sva_iopf_handler, iommu_sva_handle_iopf,
 * iommu_sva_handle_mm.
 */
import type { FaultGroup, IopfHandler } from "./fault-group.ts";
import { PageRequestFlag, PageResponse } from "./page-request.ts";

/** An address space that a device shares. */
export interface SharedAddressSpace {
  /**
   * Faults a page in, as the process's own access would.
   *
   * @param perm - bits of `PageRequestPerm`
   * @returns false where there is no memory, no right, or no page to be had
   */
  handleFault(vpn: number, perm: number): boolean;
}

/** Handles the page requests of a shared address space; the first error ends a group. */
export class SvaHandler implements IopfHandler {
  readonly #space: SharedAddressSpace;
  readonly #run = (group: FaultGroup): void => {
    group.respond(this.#serve(group));
  };

  constructor(space: SharedAddressSpace) {
    this.#space = space;
  }

  handle(group: FaultGroup): number {
    return group.defer(this.#run);
  }

  #serve(group: FaultGroup): PageResponse {
    for (const { flags, iovaPfn, perm } of group.requests) {
      if ((flags & PageRequestFlag.PASID_VALID) === 0) return PageResponse.INVALID;
      if (!this.#space.handleFault(iovaPfn, perm)) return PageResponse.INVALID;
    }
    return PageResponse.SUCCESS;
  }
}
