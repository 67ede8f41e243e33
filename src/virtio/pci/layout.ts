/**
 * Where a virtio function keeps its structures: which BAR, at which offset, and the capabilities
 * that say so.
 *
 * Source: virtio specification 1.3, "Virtio Over PCI Bus", "Virtio Structure PCI Capabilities";
 * V159–V163, V180, V182, V186.
 */
import {
  CapabilityId,
  expressCapability,
  msixBarBytes,
  msixCapability,
} from "../../pci/capabilities.ts";
import { type Bar, type Capability, ConfigSpace } from "../../pci/config-space.ts";
import { layout } from "../../wire/layout.ts";

/** The vendor of every virtio function, and what its device IDs start at. */
export const VIRTIO_VENDOR = 0x1af4;
export const VIRTIO_DEVICE_BASE = 0x1040;
const SUBSYSTEM = 0x1100;

/** BARs. */
export const VirtioBar = { REGISTERS: 0, MSIX: 1, DOORBELL: 2 } as const;
/** Structures in the BAR of the registers. */
export const Structure = {
  COMMON: 0x0000,
  ISR: 0x1000,
  DEVICE: 0x2000,
  NOTIFY: 0x3000,
} as const;
export const STRUCTURE_BYTES = 0x1000;
const REGISTERS_BYTES = 0x4000;
/** Size of a doorbell page. */
export const DOORBELL_BYTES = 0x1000;
/** Bytes between the notification addresses of two queues. */
export const NOTIFY_MULTIPLIER = 4;
/** So many queues have an address of their own. */
export const QUEUES_MAX = STRUCTURE_BYTES / NOTIFY_MULTIPLIER;

/** Types of structure. */
const CfgType = { COMMON: 1, NOTIFY: 2, ISR: 3, DEVICE: 4, PCI: 5 } as const;

/** A virtio structure capability; notify and the access window have four more bytes. */
const VirtioCap = layout("virtio_pci_cap", 20, {
  vendor: { kind: "u8", at: 0, doc: "0x09" },
  next: { kind: "u8", at: 1, doc: "link" },
  length: { kind: "u8", at: 2, doc: "bytes of the capability" },
  type: { kind: "u8", at: 3, doc: "which structure" },
  bar: { kind: "u8", at: 4, doc: "where it lies" },
  offset: { kind: "u32", at: 8, doc: "offset in the BAR" },
  bytes: { kind: "u32", at: 12, doc: "length of the structure" },
  extra: { kind: "u32", at: 16, doc: "notify: multiplier; access window: data" },
});

/** Fields of the access window, from its capability on. */
export const Window = { BAR: 4, OFFSET: 8, LENGTH: 12, DATA: 16, END: 20 } as const;

/** Registers of the common configuration structure: name to offset and size. */
export const Common = {
  deviceFeatureSelect: { at: 0, bytes: 4 },
  deviceFeature: { at: 4, bytes: 4 },
  driverFeatureSelect: { at: 8, bytes: 4 },
  driverFeature: { at: 12, bytes: 4 },
  configVector: { at: 16, bytes: 2 },
  queueCount: { at: 18, bytes: 2 },
  status: { at: 20, bytes: 1 },
  configGeneration: { at: 21, bytes: 1 },
  queueSelect: { at: 22, bytes: 2 },
  queueSize: { at: 24, bytes: 2 },
  queueVector: { at: 26, bytes: 2 },
  queueEnable: { at: 28, bytes: 2 },
  queueNotifyOffset: { at: 30, bytes: 2 },
  queueDescriptorLow: { at: 32, bytes: 4 },
  queueDescriptorHigh: { at: 36, bytes: 4 },
  queueDriverLow: { at: 40, bytes: 4 },
  queueDriverHigh: { at: 44, bytes: 4 },
  queueDeviceLow: { at: 48, bytes: 4 },
  queueDeviceHigh: { at: 52, bytes: 4 },
  queueNotifyData: { at: 56, bytes: 2 },
  queueReset: { at: 58, bytes: 2 },
} as const;
export type CommonRegister = keyof typeof Common;
/** Length of the structure; long enough for RING_RESET (V186). */
export const COMMON_BYTES = 60;

/** What decides about a function's configuration space. */
export interface VirtioPciShape {
  readonly type: number;
  readonly classCode: number;
  readonly queueCount: number;
  readonly configBytes: number;
  readonly vectors: number;
  /** Whether notifications go to a page of their own, which a client may map. */
  readonly hasDoorbellPage: boolean;
  /** Whether the function is one of PCI Express, with 4096 bytes of configuration space. */
  readonly isExpress: boolean;
}

/** Configuration space, and where in it the access window is. */
export function buildConfigSpace(shape: VirtioPciShape): {
  readonly config: ConfigSpace;
  readonly bars: readonly Bar[];
  readonly windowAt: number;
} {
  const { type, queueCount, configBytes, vectors, hasDoorbellPage } = shape;
  const notify = hasDoorbellPage
    ? { bar: VirtioBar.DOORBELL, offset: 0 }
    : { bar: VirtioBar.REGISTERS, offset: Structure.NOTIFY };
  const registers = VirtioBar.REGISTERS;
  const notifyBytes = queueCount * NOTIFY_MULTIPLIER;
  const window = structure(CfgType.PCI, 0, 0, 0, 0);
  const capabilities = [
    msixCapability(vectors, VirtioBar.MSIX),
    structure(CfgType.COMMON, registers, Structure.COMMON, COMMON_BYTES),
    structure(CfgType.NOTIFY, notify.bar, notify.offset, notifyBytes, NOTIFY_MULTIPLIER),
    structure(CfgType.ISR, registers, Structure.ISR, 1),
    structure(CfgType.DEVICE, registers, Structure.DEVICE, configBytes),
    { ...window, writable: windowMask() },
    ...(shape.isExpress ? [expressCapability()] : []),
  ];
  const bars: Bar[] = [
    { index: VirtioBar.REGISTERS, bytes: REGISTERS_BYTES },
    { index: VirtioBar.MSIX, bytes: msixBarBytes(vectors) },
  ];
  if (hasDoorbellPage) bars.push({ index: VirtioBar.DOORBELL, bytes: DOORBELL_BYTES });
  const config = new ConfigSpace({
    header: {
      vendor: VIRTIO_VENDOR,
      device: VIRTIO_DEVICE_BASE + type,
      revision: 1,
      classCode: shape.classCode,
      subsystemVendor: VIRTIO_VENDOR,
      subsystem: SUBSYSTEM,
    },
    bars,
    capabilities,
    bytes: shape.isExpress ? 4096 : 256,
  });
  return { config, bars, windowAt: config.capabilityOffsets[5]! };
}

function structure(
  type: number,
  bar: number,
  offset: number,
  bytes: number,
  extra: number | null = null,
): Capability {
  const length = extra === null ? 16 : 20;
  const whole = VirtioCap.bytesOf({
    vendor: CapabilityId.VENDOR,
    next: 0,
    length,
    type,
    bar,
    offset,
    bytes,
    extra: extra ?? 0,
  });
  return { bytes: whole.slice(0, length) };
}

function windowMask(): Uint8Array {
  const mask = new Uint8Array(Window.END);
  mask[Window.BAR] = 0xff;
  mask.fill(0xff, Window.OFFSET, Window.DATA);
  return mask;
}
