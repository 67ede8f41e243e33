/** Rights and attributes of a mapping. Source: include/linux/iommu.h, IOMMU_READ to IOMMU_PRIV. */
export const Prot = {
  READ: 1,
  WRITE: 2,
  /** DMA is cache coherent. */
  CACHE: 4,
  NOEXEC: 8,
  /** Device registers instead of memory. */
  MMIO: 16,
  /** Only privileged accesses may use the mapping. */
  PRIV: 32,
} as const;

/** Read and write. */
export const PROT_RW = Prot.READ | Prot.WRITE;
