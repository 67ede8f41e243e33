/**
 * A recoverable I/O page fault as the IOMMU core passes it on, and the answers to it.
 *
 * Source: include/linux/iommu.h: struct iommu_fault_page_request, enum iommu_page_response_code,
 * IOMMU_FAULT_PERM_*, IOMMU_FAULT_PAGE_REQUEST_*. Addresses are a 4 KiB frame and an offset.
 */
import { NO_PASID } from "../tag-array.ts";

/** What a page request says about itself. */
export const PageRequestFlag = {
  PASID_VALID: 1,
  /** The group is complete, and is answered as one. */
  LAST_PAGE: 2,
  /** The answer has to carry the PASID. */
  RESPONSE_NEEDS_PASID: 4,
  /**
   * The second stage missed, and the address is an intermediate one. Linux 7.2 has no such flag; it
   * is the one of the proposal of 2021 (its patch 1), whose bit it has here.
   */
  STAGE2: 16,
} as const;

/** What an access needs. READ and WRITE are those of `Prot`. */
export const PageRequestPerm = { READ: 1, WRITE: 2, EXEC: 4, PRIV: 8 } as const;

/** How a group of page requests is answered. */
export const PageResponse = {
  /** The pages are there: retry. */
  SUCCESS: 0,
  /** They will not be there: do not retry. "Invalid Request" in PCI. */
  INVALID: 1,
  /** General error: the device may stop to ask at all. "Response Failure" in PCI. */
  FAILURE: 2,
} as const;
export type PageResponse = (typeof PageResponse)[keyof typeof PageResponse];

/** One page request. */
export interface PageRequest {
  /** Bits of {@link PageRequestFlag}. */
  readonly flags: number;
  /** `NO_PASID` without PASID_VALID. */
  readonly pasid: number;
  /** Group: the PRG index of PCI (9 bits), the stall tag of an SMMU (16 bits). */
  readonly grpid: number;
  /** Bits of {@link PageRequestPerm}. */
  readonly perm: number;
  readonly iovaPfn: number;
  /** 0 where the hardware tells pages only. */
  readonly iovaOffset: number;
}

/** A complete group of one request for one frame, of a device without PASIDs. */
export function pageRequest(iovaPfn: number, parts: Partial<PageRequest> = {}): PageRequest {
  const pasid = parts.pasid ?? NO_PASID;
  const flags = PageRequestFlag.LAST_PAGE | (pasid === NO_PASID ? 0 : PageRequestFlag.PASID_VALID);
  return { flags, pasid, grpid: 0, perm: PageRequestPerm.READ, iovaPfn, iovaOffset: 0, ...parts };
}

/**
 * What a device, or one of its PASIDs, was attached to a domain with; whoever attached it hangs
 * what else he wants on it. Source: struct iommu_attach_handle.
 */
export interface AttachHandle<Domain = object> {
  readonly domain: Domain;
}
