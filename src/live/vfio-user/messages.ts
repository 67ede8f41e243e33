/**
 * Payloads of the vfio-user protocol. Positions count from the payload's first byte.
 *
 * Source: vfio-user protocol specification, version 0.0 (QEMU, docs/interop/vfio-user.rst), the
 * section of each command; include/uapi/linux/vfio.h for what the protocol took from VFIO.
 */
import { layout } from "../../wire/layout.ts";

const argsz = { kind: "u32", at: 0, doc: "size of this structure, bytes", as: "count" } as const;

/** VERSION; JSON text follows, ended by a zero byte. */
export const Version = layout("vfio_user_version", 4, {
  major: { kind: "u16", at: 0, doc: "major version" },
  minor: { kind: "u16", at: 2, doc: "minor version" },
});

/** Flags of DMA_MAP. */
export const DmaMapFlag = { READ: 1, WRITE: 2 } as const;

/** DMA_MAP. */
export const DmaMap = layout("vfio_user_dma_map", 32, {
  argsz,
  flags: { kind: "u32", at: 4, doc: "what devices may do", bits: { read: 0, write: 1 } },
  offset: { kind: "u64", at: 8, doc: "where the region starts in the file passed along" },
  address: { kind: "u64", at: 16, doc: "first address of the region", as: "address" },
  size: { kind: "u64", at: 24, doc: "bytes of the region", as: "count" },
});

/** Flags of DMA_UNMAP. */
export const DmaUnmapFlag = { DIRTY_BITMAP: 1, ALL: 2 } as const;

/** DMA_UNMAP, and its reply. */
export const DmaUnmap = layout("vfio_user_dma_unmap", 24, {
  argsz,
  flags: { kind: "u32", at: 4, doc: "how to unmap", bits: { dirtyBitmap: 0, all: 1 } },
  address: { kind: "u64", at: 8, doc: "first address of the region", as: "address" },
  size: { kind: "u64", at: 16, doc: "bytes of the region", as: "count" },
});

/** Flags of a device. */
export const DeviceFlag = { RESET: 1, PCI: 2 } as const;

/** DEVICE_GET_INFO, and its reply. */
export const DeviceInfo = layout("vfio_user_device_info", 16, {
  argsz,
  flags: { kind: "u32", at: 4, doc: "what it is", bits: { reset: 0, pci: 1 } },
  regions: { kind: "u32", at: 8, doc: "number of regions", as: "count" },
  interrupts: { kind: "u32", at: 12, doc: "number of interrupt indexes", as: "count" },
});

/** Flags of a region. */
export const RegionFlag = { READ: 1, WRITE: 2, MMAP: 4, CAPS: 8 } as const;

/** DEVICE_GET_REGION_INFO, and its reply. */
export const RegionInfo = layout("vfio_user_region_info", 32, {
  argsz,
  flags: {
    kind: "u32",
    at: 4,
    doc: "what can be done with it",
    bits: { read: 0, write: 1, mmap: 2, capabilities: 3 },
  },
  index: { kind: "u32", at: 8, doc: "0 … 5 BARs, 6 ROM, 7 config space" },
  capabilityOffset: { kind: "u32", at: 12, doc: "position of the first capability, 0 for none" },
  size: { kind: "u64", at: 16, doc: "bytes of the region", as: "count" },
  offset: { kind: "u64", at: 24, doc: "where the region starts in its file, for mmap" },
});

/** Head of a capability of a region. */
export const CapabilityHead = layout("vfio_info_cap_header", 8, {
  id: { kind: "u16", at: 0, doc: "which" },
  version: { kind: "u16", at: 2, doc: "of its layout" },
  next: { kind: "u32", at: 4, doc: "position of the next one in the payload, 0 for none" },
});

/** Identifier of the capability that lists areas which can be mapped. */
export const SPARSE_MMAP = 1;

/** The capability SPARSE_MMAP after its head; areas follow. */
export const SparseMmap = layout("vfio_region_info_cap_sparse_mmap", 8, {
  areas: { kind: "u32", at: 0, doc: "number of areas", as: "count" },
});

/** An area that can be mapped. */
export const SparseArea = layout("vfio_region_sparse_mmap_area", 16, {
  offset: { kind: "u64", at: 0, doc: "position in the region" },
  size: { kind: "u64", at: 8, doc: "bytes", as: "count" },
});

/** DEVICE_GET_REGION_IO_FDS, and its reply; subregions follow. */
export const RegionIoFds = layout("vfio_user_region_io_fds", 16, {
  argsz,
  flags: { kind: "u32", at: 4, doc: "zero" },
  index: { kind: "u32", at: 8, doc: "the region" },
  count: { kind: "u32", at: 12, doc: "number of subregions, zero in a request", as: "count" },
});

/** Flags of an interrupt index. */
export const IrqInfoFlag = { EVENTFD: 1, MASKABLE: 2, AUTOMASKED: 4, NORESIZE: 8 } as const;

/** DEVICE_GET_IRQ_INFO, and its reply. */
export const IrqInfo = layout("vfio_user_irq_info", 16, {
  argsz,
  flags: {
    kind: "u32",
    at: 4,
    doc: "what can be done with it",
    bits: { eventfd: 0, maskable: 1, automasked: 2, noResize: 3 },
  },
  index: {
    kind: "u32",
    at: 8,
    doc: "kind of interrupt",
    names: { 0: "INTx", 1: "MSI", 2: "MSI-X", 3: "error", 4: "request" },
  },
  count: { kind: "u32", at: 12, doc: "number of vectors", as: "count" },
});

/** Flags of DEVICE_SET_IRQS: one kind of data, one action. */
export const IrqSetFlag = {
  DATA_NONE: 1,
  DATA_BOOL: 2,
  DATA_EVENTFD: 4,
  ACTION_MASK: 8,
  ACTION_UNMASK: 16,
  ACTION_TRIGGER: 32,
} as const;

/** DEVICE_SET_IRQS; booleans follow, one byte each; event descriptors come with the message. */
export const IrqSet = layout("vfio_user_irq_set", 20, {
  argsz,
  flags: {
    kind: "u32",
    at: 4,
    doc: "kind of data and action",
    bits: { none: 0, bool: 1, eventfd: 2, mask: 3, unmask: 4, trigger: 5 },
  },
  index: { kind: "u32", at: 8, doc: "kind of interrupt" },
  start: { kind: "u32", at: 12, doc: "first vector" },
  count: { kind: "u32", at: 16, doc: "number of vectors", as: "count" },
});

/** REGION_READ and REGION_WRITE, and their replies; data follows. */
export const RegionAccess = layout("vfio_user_region_access", 16, {
  offset: { kind: "u64", at: 0, doc: "position in the region" },
  region: { kind: "u32", at: 8, doc: "index of the region" },
  count: { kind: "u32", at: 12, doc: "bytes of data", as: "count" },
});

/** REGION_WRITE_MULTI, and its reply; entries follow. */
export const WriteMulti = layout("vfio_user_write_multi", 8, {
  count: { kind: "u64", at: 0, doc: "number of writes", as: "count" },
});

/** One write of REGION_WRITE_MULTI. */
export const WriteEntry = layout("vfio_user_write_single", 24, {
  offset: { kind: "u64", at: 0, doc: "position in the region" },
  region: { kind: "u32", at: 8, doc: "index of the region" },
  count: { kind: "u32", at: 12, doc: "bytes of data, 1 … 8", as: "count" },
  data: { kind: "bytes", at: 16, length: 8, doc: "the data, from the left" },
});

/** DEVICE_FEATURE; data follows. */
export const DeviceFeature = layout("vfio_user_device_feature", 8, {
  argsz,
  flags: {
    kind: "u32",
    at: 4,
    doc: "which feature, and what to do with it",
    bits: { feature: [0, 15], get: 16, set: 17, probe: 18 },
  },
});
