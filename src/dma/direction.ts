/**
 * Directions and attributes of a DMA mapping, and the rights that follow from them.
 *
 * Source: include/linux/dma-direction.h; include/linux/dma-mapping.h, DMA_ATTR_*;
 * drivers/iommu/dma-iommu.c:dma_info_to_prot.
 */

import { unreachable } from "../errors.ts";
import { Prot } from "../iommu/prot.ts";

/** Which way data goes, seen from memory. */
export const DmaDirection = {
  BIDIRECTIONAL: 0,
  TO_DEVICE: 1,
  FROM_DEVICE: 2,
  NONE: 3,
} as const;
export type DmaDirection = (typeof DmaDirection)[keyof typeof DmaDirection];

/** Attributes of a mapping, as bits. */
export const DmaAttr = {
  FORCE_CONTIGUOUS: 1 << 6,
  ALLOC_SINGLE_PAGES: 1 << 7,
  PRIVILEGED: 1 << 9,
  MMIO: 1 << 10,
} as const;

/**
 * The rights that a mapping gets.
 *
 * @param coherent - whether the device's DMA is cache coherent
 * @param attrs - bits of {@link DmaAttr}
 * @returns bits of `Prot`; 0, which no domain maps, for no direction
 */
export function protOf(direction: DmaDirection, coherent: boolean, attrs: number): number {
  let prot = 0;
  if ((attrs & DmaAttr.MMIO) !== 0) prot = Prot.MMIO;
  else if (coherent) prot = Prot.CACHE;
  if ((attrs & DmaAttr.PRIVILEGED) !== 0) prot |= Prot.PRIV;
  switch (direction) {
    case DmaDirection.BIDIRECTIONAL:
      return prot | Prot.READ | Prot.WRITE;
    case DmaDirection.TO_DEVICE:
      return prot | Prot.READ;
    case DmaDirection.FROM_DEVICE:
      return prot | Prot.WRITE;
    case DmaDirection.NONE:
      return 0;
    default:
      return unreachable(direction);
  }
}
