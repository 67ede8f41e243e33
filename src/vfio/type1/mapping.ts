/**
 * One mapping of a type1 container: what MAP_DMA made, UNMAP_DMA takes away.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c, struct vfio_dma. Addresses are in 4 KiB units.
 */
import type { ProcessMemory } from "../process/process-memory.ts";
import type { UserProcess } from "../process/user-process.ts";
import type { DirtyBitmap } from "./dirty-bitmap.ts";
import type { Extents } from "./extents.ts";
import type { PinnedPages } from "./pinned-pages.ts";

/** A mapping. */
export interface DmaMapping {
  readonly iovaPfn: number;
  /** First virtual page of the user; changes with VADDR updates. */
  vpn: number;
  /** Length that was asked for. */
  readonly pages: number;
  /** Bits of `Prot`: READ, WRITE or both. */
  readonly prot: number;
  /** Pages from the start that are in the domains; all of them once MAP_DMA has returned. */
  mappedPages: number;
  /** Who is charged, and whose memory is behind it from now on. */
  process: UserProcess;
  /**
   * Whose memory its pages were pinned in, for that is where they are unpinned: after a VADDR
   * update by another process no longer that of `process`. Null while nothing was pinned.
   */
  pinnedIn: ProcessMemory | null;
  /** CAP_IPC_LOCK of the process when it mapped. */
  canLock: boolean;
  /** Pages charged for it (locked_vm). */
  lockedPages: number;
  /** Whether its pages are pinned and in the domains (iommu_mapped). */
  isMapped: boolean;
  /** Whether device memory is found by arithmetic (VFIO_DMA_MAP_FLAG_MMIO_DONT_PIN). */
  readonly isMmioDirect: boolean;
  /** Whether the user announced that the memory moves (UNMAP_DMA with VADDR). */
  isVaddrInvalid: boolean;
  /** Where its pages lie, while that takes few runs. */
  readonly extents: Extents;
  /** Pages that drivers of mediated devices hold (pfn_list); null while there are none. */
  pins: PinnedPages | null;
  /** Which pages were written, while the container tracks that. */
  dirty: DirtyBitmap | null;
}
