/**
 * One mapping of a type1 container: what MAP_DMA made, UNMAP_DMA takes away.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c, struct vfio_dma. Addresses are in 4 KiB units.
 */
import type { UserProcess } from "../process/user-process.ts";

/** A mapping. */
export interface DmaMapping {
  readonly iovaPfn: number;
  /** First virtual page of the user; changes with VADDR updates. */
  vpn: number;
  /** Length that was asked for. */
  readonly pages: number;
  /** Bits of `Prot`: READ, WRITE or both. */
  readonly prot: number;
  /** Who is charged, and whose memory is behind it. */
  process: UserProcess;
  /** CAP_IPC_LOCK of the process when it mapped. */
  canLock: boolean;
  /** Pages charged for it. */
  lockedPages: number;
  /** Whether its pages are pinned and in the domains. */
  isMapped: boolean;
  /** Whether some of its frames have no pages. */
  hasReserved: boolean;
  /** Whether the user announced that the memory moves (UNMAP_DMA with VADDR). */
  isVaddrInvalid: boolean;
}
