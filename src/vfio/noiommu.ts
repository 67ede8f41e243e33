/**
 * The back end for devices that no IOMMU protects: it attaches nothing and maps nothing. What a
 * user writes into such a device goes to memory unchecked, and the kernel says so.
 *
 * Source: drivers/vfio/container.c: vfio_noiommu_open, vfio_noiommu_ioctl.
 */
import { Errno } from "../errno.ts";
import type { BackendState, ContainerBackend } from "./backend.ts";
import { result, type VfioTask } from "./file.ts";
import { VfioExtension } from "./requests.ts";

/** The parameter `enable_unsafe_noiommu_mode`; it may change at any time. */
export interface NoIommuMode {
  enabled: boolean;
}

/** The back end of a kernel that has CONFIG_VFIO_NOIOMMU. */
export class NoIommuBackend implements ContainerBackend {
  readonly name = "vfio-noiommu";
  readonly isNoIommu = true;
  readonly #mode: NoIommuMode;

  constructor(mode: NoIommuMode) {
    this.#mode = mode;
  }

  checkExtension(extension: number): number {
    return this.#mode.enabled && extension === VfioExtension.NOIOMMU ? 1 : 0;
  }

  open(type: number, task: VfioTask): BackendState | number {
    if (type !== VfioExtension.NOIOMMU) return Errno.EINVAL;
    if (!task.canRawIo) return Errno.EPERM;
    return {
      type1: null,
      checkExtension: (extension) => this.checkExtension(extension),
      ioctl: () => result(Errno.ENOTTY),
      attachGroup: () => Errno.OK,
      detachGroup() {},
      registerDevice() {},
      unregisterDevice() {},
      release() {},
    };
  }
}
