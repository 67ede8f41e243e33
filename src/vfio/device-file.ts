/**
 * A device that VFIO hands out, and the file that a user gets of it.
 *
 * Source: drivers/vfio/vfio_main.c: struct vfio_device_ops, vfio_df_open, vfio_df_close;
 * drivers/vfio/pci/vfio_pci_core.c:vfio_pci_core_match for names with options.
 */
import { Errno } from "../errno.ts";
import type { IommuDevice } from "../iommu/device.ts";
import {
  type FileOperations,
  type IoctlArgument,
  type IoctlResult,
  result,
  type VfioTask,
} from "./file.ts";
import type { PinningDevice } from "./type1/type1.ts";

/** A device bound to a VFIO driver. */
export interface VfioDevice {
  readonly iommuDevice: IommuDevice;
  /**
   * Whether it is a mediated device: software that pins what its DMA goes to, without an IOMMU of
   * its own.
   */
  readonly isEmulated?: boolean;
  /** What a mediated device that pins is told; devices without it never hear of an unmap. */
  readonly pinning?: PinningDevice;
  /** The first user comes. @returns an errno */
  open?(): number;
  /** The last user is gone. */
  close?(): void;
  ioctl?(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult;
}

/**
 * Whether a text that a user gave names a device. Physical devices take options after the name, of
 * which only a VF token exists; without SR-IOV none is right.
 *
 * @returns 1 when it does, 0 when it does not, or −EINVAL for options that are wrong
 */
export function matchName(device: VfioDevice, text: string): number {
  const { name } = device.iommuDevice;
  if (device.isEmulated === true) return text === name ? 1 : 0;
  if (!text.startsWith(name)) return 0;
  const options = text.slice(name.length);
  if (options !== "" && !options.startsWith(" ")) return 0;
  return options.trim() === "" ? 1 : -Errno.EINVAL;
}

/** An open device. */
export class DeviceFile implements FileOperations {
  readonly device: VfioDevice;
  readonly #onRelease: () => void;

  /** @param onRelease - called when nothing leads to the file any more */
  constructor(device: VfioDevice, onRelease: () => void) {
    this.device = device;
    this.#onRelease = onRelease;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    return this.device.ioctl?.(task, request, argument) ?? result(Errno.ENOTTY);
  }

  release(): void {
    this.#onRelease();
  }
}
