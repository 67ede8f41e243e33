/**
 * The ioctls of a VFIO PCI device's file, on raw structures.
 *
 * Source: drivers/vfio/pci/vfio_pci_core.c: vfio_pci_ioctl_get_info,
 * vfio_pci_ioctl_get_region_info; drivers/vfio/vfio_main.c: vfio_ioctl_device_feature,
 * vfio_check_feature; drivers/vfio/pci/vfio_pci_dmabuf.c: vfio_pci_core_feature_dma_buf.
 */
import { Errno } from "../../errno.ts";
import { viewOf } from "../../wire/layout.ts";
import {
  type FileOperations,
  type IoctlArgument,
  type IoctlResult,
  result,
  type VfioTask,
} from "../file.ts";
import { encodeChain } from "../uapi/capability-chain.ts";
import { CapabilityHeader } from "../uapi/type1.ts";
import {
  DeviceInfo,
  DeviceRequest,
  DmaBufRange,
  Feature,
  FeatureDmaBuf,
  FeatureFlag,
  FeatureHead,
  REGION_CAP_MSIX_MAPPABLE,
  RegionFlag,
  RegionInfo,
} from "./device-structs.ts";
import type { VfioDmaBuf } from "./dma-buf.ts";
import type { DeviceRegion, RegionRange } from "./pci-bar.ts";

/** The device as its ioctls see it. */
export interface IoctlDevice {
  readonly info: { readonly flags: number; readonly regions: number; readonly irqs: number };
  readonly canExport: boolean;
  region(index: number): DeviceRegion | number;
  reset(): number;
  suspend(): number;
  resume(): void;
  exportDmaBuf(index: number, ranges: readonly RegionRange[]): VfioDmaBuf | number;
}

/** Part of vfio_device_info that every caller has. */
const INFO_BYTES_MIN = 16;
/** Largest block that kmalloc gives: a list of ranges beyond it is ENOMEM. */
const RANGES_BYTES_MAX = 4 * 2 ** 20;

/** A dma-buf's file, which iommufd maps from. */
export class DmaBufFile implements FileOperations {
  readonly mappable: { readonly kind: "dma-buf"; readonly buffer: VfioDmaBuf };

  constructor(buffer: VfioDmaBuf) {
    this.mappable = { kind: "dma-buf", buffer };
  }

  ioctl(): IoctlResult {
    return result(Errno.ENOTTY);
  }

  release(): void {
    this.mappable.buffer.close();
  }
}

/** Handles one ioctl of the device's file. */
export function deviceIoctl(
  device: IoctlDevice,
  task: VfioTask,
  request: number,
  argument: IoctlArgument,
): IoctlResult {
  if (request === DeviceRequest.RESET) return result(device.reset());
  const call =
    request === DeviceRequest.GET_INFO
      ? getInfo
      : request === DeviceRequest.GET_REGION_INFO
        ? getRegionInfo
        : request === DeviceRequest.FEATURE
          ? deviceFeature
          : null;
  if (call === null) return result(Errno.ENOTTY);
  if (typeof argument === "number") return result(Errno.EFAULT);
  return call(device, argument, task);
}

function getInfo(device: IoctlDevice, bytes: Uint8Array): IoctlResult {
  if (bytes.length < INFO_BYTES_MIN) return result(Errno.EFAULT);
  const argsz = viewOf(bytes).getUint32(0, true);
  if (argsz < INFO_BYTES_MIN) return result(Errno.EINVAL);
  const { flags, regions, irqs } = device.info;
  const info = { argsz, flags, numRegions: regions, numIrqs: irqs, capOffset: 0, pad: 0 };
  return written(bytes, DeviceInfo.bytesOf(info).subarray(0, Math.min(argsz, DeviceInfo.bytes)));
}

function getRegionInfo(device: IoctlDevice, bytes: Uint8Array): IoctlResult {
  if (bytes.length < RegionInfo.bytes) return result(Errno.EFAULT);
  const asked = RegionInfo.decode(viewOf(bytes));
  if (asked.argsz < RegionInfo.bytes) return result(Errno.EINVAL);
  const region = device.region(asked.index);
  if (typeof region === "number") return result(region);
  const chain = region.isMsixMappable
    ? encodeChain(
        [
          {
            id: REGION_CAP_MSIX_MAPPABLE,
            version: 1,
            bytes: new Uint8Array(CapabilityHeader.bytes),
          },
        ],
        RegionInfo.bytes,
      )
    : new Uint8Array(0);
  const needed = RegionInfo.bytes + chain.length;
  const fits = asked.argsz >= needed;
  const info = {
    argsz: fits ? asked.argsz : needed,
    flags: region.flags | (chain.length > 0 ? RegionFlag.CAPS : 0),
    index: asked.index,
    capOffset: chain.length > 0 && fits ? RegionInfo.bytes : 0,
    size: BigInt(region.bytes),
    offset: region.fileOffset,
  };
  const out = new Uint8Array(fits ? needed : RegionInfo.bytes);
  out.set(RegionInfo.bytesOf(info));
  if (fits) out.set(chain, RegionInfo.bytes);
  return written(bytes, out);
}

function deviceFeature(device: IoctlDevice, bytes: Uint8Array, task: VfioTask): IoctlResult {
  if (bytes.length < FeatureHead.bytes) return result(Errno.EFAULT);
  const { argsz, flags } = FeatureHead.decode(viewOf(bytes));
  if (argsz < FeatureHead.bytes) return result(Errno.EINVAL);
  const { MASK, GET, SET, PROBE } = FeatureFlag;
  if ((flags & ~(MASK | GET | SET | PROBE)) !== 0) return result(Errno.EINVAL);
  if ((flags & PROBE) === 0 && (flags & GET) !== 0 && (flags & SET) !== 0)
    return result(Errno.EINVAL);
  switch (flags & MASK) {
    case Feature.DMA_BUF: {
      if (!device.canExport) return result(Errno.EOPNOTSUPP);
      const checked = checkFeature(flags, argsz, GET, FeatureDmaBuf.bytes);
      return checked ?? getDmaBuf(device, bytes, task);
    }
    case Feature.LOW_POWER_ENTRY:
      return checkFeature(flags, argsz, SET, 0) ?? result(device.suspend());
    case Feature.LOW_POWER_EXIT: {
      const checked = checkFeature(flags, argsz, SET, 0);
      if (checked === null) device.resume();
      return checked ?? result(Errno.OK);
    }
    default:
      return result(Errno.ENOTTY);
  }
}

/** What a feature's common checks answer; null when the call goes on. */
function checkFeature(
  flags: number,
  argsz: number,
  supported: number,
  dataBytes: number,
): IoctlResult | null {
  const { GET, SET, PROBE } = FeatureFlag;
  if ((flags & (GET | SET) & ~supported) !== 0) return result(Errno.EINVAL);
  if ((flags & PROBE) !== 0) return result(Errno.OK);
  if ((flags & (GET | SET)) === 0) return result(Errno.EINVAL);
  return argsz < FeatureHead.bytes + dataBytes ? result(Errno.EINVAL) : null;
}

function getDmaBuf(device: IoctlDevice, bytes: Uint8Array, task: VfioTask): IoctlResult {
  const at = FeatureHead.bytes;
  if (bytes.length < at + FeatureDmaBuf.bytes) return result(Errno.EFAULT);
  const view = viewOf(bytes);
  const { regionIndex, flags, nrRanges } = FeatureDmaBuf.decode(view, at);
  if (nrRanges === 0 || flags !== 0) return result(Errno.EINVAL);
  const from = at + FeatureDmaBuf.bytes;
  if (nrRanges * DmaBufRange.bytes > RANGES_BYTES_MAX) return result(Errno.ENOMEM);
  if (from + nrRanges * DmaBufRange.bytes > bytes.length) return result(Errno.EFAULT);
  const ranges = Array.from({ length: nrRanges }, (_, index) =>
    DmaBufRange.decode(view, from + index * DmaBufRange.bytes),
  );
  const buffer = device.exportDmaBuf(regionIndex, ranges);
  if (typeof buffer === "number") return result(buffer);
  const opened = task.open(new DmaBufFile(buffer));
  if (opened.errno !== Errno.OK) buffer.close();
  return opened;
}

/** The argument with its first bytes replaced. */
function written(bytes: Uint8Array, head: Uint8Array): IoctlResult {
  if (head.length > bytes.length) return result(Errno.EFAULT);
  const out = bytes.slice();
  out.set(head);
  return { errno: Errno.OK, value: 0, bytes: out };
}
