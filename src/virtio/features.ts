/**
 * What all virtio devices have in common: the bits of the device status, and the feature bits that
 * belong to no device type.
 *
 * Source: virtio specification 1.3, "Device Status Field" and "Reserved Feature Bits".
 */

/** Bits of the device status. */
export const DeviceStatus = {
  ACKNOWLEDGE: 1,
  DRIVER: 2,
  DRIVER_OK: 4,
  FEATURES_OK: 8,
  NEEDS_RESET: 64,
  FAILED: 128,
} as const;

/** Feature bits that are common to all devices, as bits of their 32-bit word. */
export const CommonFeature = {
  /** Word 0, bit 28. */
  INDIRECT_DESC: 0x1000_0000,
  /** Word 0, bit 29. */
  EVENT_IDX: 0x2000_0000,
  /** Word 1, bit 0 (feature 32). */
  VERSION_1: 0x1,
  /** Word 1, bit 1 (feature 33): addresses are those of the platform's IOMMU. */
  ACCESS_PLATFORM: 0x2,
  /** Word 1, bit 8 (feature 40): a queue can be reset alone. */
  RING_RESET: 0x100,
} as const;
