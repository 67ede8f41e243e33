/**
 * /dev/vfio/vfio: a container, in which groups share one set of mappings.
 *
 * It is nothing until it holds a group, and gets its back end with SET_IOMMU; with the last group
 * it is nothing again. Source: drivers/vfio/container.c: vfio_fops_unl_ioctl,
 * vfio_container_ioctl_check_extension, vfio_ioctl_set_iommu, vfio_container_attach_group,
 * vfio_group_detach_container, vfio_group_use_container.
 */
import { Errno } from "../errno.ts";
import { assert } from "../errors.ts";
import { claimGroup, releaseGroup } from "../iommu/attach.ts";
import type { BackendState, ContainerBackend } from "./backend.ts";
import type { VfioDevice } from "./device-file.ts";
import { type IoctlArgument, type IoctlResult, result, type VfioTask } from "./file.ts";
import type { GroupHolder, HolderFile, VfioGroup } from "./group.ts";
import { API_VERSION, VfioRequest } from "./requests.ts";

/** A container. */
export class Container implements HolderFile, GroupHolder {
  readonly groupHolder = this;
  /** Its groups, the one added last in front: so SET_IOMMU comes to them in that order. */
  readonly groups: VfioGroup[] = [];
  /** What holds its mappings; null before SET_IOMMU and without groups. */
  state: BackendState | null = null;
  readonly #backends: readonly ContainerBackend[];
  #isNoIommu = false;

  /** @param backends - those of the system, in the order in which they are asked */
  constructor(backends: readonly ContainerBackend[]) {
    this.#backends = backends;
  }

  /**
   * CHECK_EXTENSION. Before SET_IOMMU every back end that could be set is asked.
   *
   * @returns above 0 when the extension is there
   */
  checkExtension(extension: number): number {
    if (this.state !== null) return this.state.checkExtension(extension);
    for (const backend of this.#backends) {
      if (this.groups.length > 0 && !this.#allows(backend)) continue;
      const value = backend.checkExtension(extension);
      if (value > 0) return value;
    }
    return 0;
  }

  /**
   * SET_IOMMU.
   *
   * @returns EINVAL without a group or when it is set already, ENODEV when no back end has the
   *   type, else what the last back end failed with
   */
  setIommu(task: VfioTask, type: number): number {
    if (this.groups.length === 0 || this.state !== null) return Errno.EINVAL;
    let errno: number = Errno.ENODEV;
    for (const backend of this.#backends) {
      if (!this.#allows(backend) || backend.checkExtension(type) <= 0) continue;
      const state = backend.open(type, task);
      if (typeof state === "number") {
        errno = state;
        continue;
      }
      errno = this.#attachAll(state);
      if (errno === Errno.OK) {
        this.state = state;
        return Errno.OK;
      }
      state.release();
    }
    return errno;
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    switch (request) {
      case VfioRequest.GET_API_VERSION:
        return result(Errno.OK, API_VERSION);
      case VfioRequest.CHECK_EXTENSION:
        return result(Errno.OK, this.checkExtension(numberOf(argument)));
      case VfioRequest.SET_IOMMU:
        return result(this.setIommu(task, numberOf(argument)));
      default:
        return this.state?.ioctl(task, request, argument) ?? result(Errno.EINVAL);
    }
  }

  /** The file is closed. Groups keep their container, so this changes nothing. */
  release(): void {}

  attachGroup(group: VfioGroup, task: VfioTask): number {
    const { iommuGroup } = group;
    assert(iommuGroup !== null, "a group given to a container exists");
    const isNoIommu = group.type === "no-iommu";
    if (isNoIommu && !task.canRawIo) return Errno.EPERM;
    if (this.groups.length > 0 && this.#isNoIommu !== isNoIommu) return Errno.EPERM;
    if (group.type === "iommu") {
      const errno = claimGroup(iommuGroup, group);
      if (errno !== Errno.OK) return errno;
    }
    const errno = this.state?.attachGroup(iommuGroup, group.type) ?? Errno.OK;
    if (errno !== Errno.OK) {
      if (group.type === "iommu") releaseGroup(iommuGroup);
      return errno;
    }
    this.#isNoIommu = isNoIommu;
    this.groups.unshift(group);
    return Errno.OK;
  }

  detachGroup(group: VfioGroup): void {
    const index = this.groups.indexOf(group);
    assert(index >= 0, "a group leaves the container that it is in");
    this.state?.detachGroup(group.iommuGroup!);
    if (group.type === "iommu") releaseGroup(group.iommuGroup!);
    this.groups.splice(index, 1);
    if (this.groups.length > 0) return;
    this.state?.release();
    this.state = null;
  }

  useGroup(group: VfioGroup, task: VfioTask): number {
    if (this.state === null) return Errno.EINVAL;
    return group.type === "no-iommu" && !task.canRawIo ? Errno.EPERM : Errno.OK;
  }

  addDevice(device: VfioDevice): number {
    this.state!.registerDevice(device);
    return Errno.OK;
  }

  removeDevice(device: VfioDevice): void {
    this.state!.unregisterDevice(device);
  }

  /** Unprotected groups only take the back end without an IOMMU, and nobody else does. */
  #allows(backend: ContainerBackend): boolean {
    return this.#isNoIommu === backend.isNoIommu;
  }

  #attachAll(state: BackendState): number {
    for (const [index, group] of this.groups.entries()) {
      const errno = state.attachGroup(group.iommuGroup!, group.type);
      if (errno === Errno.OK) continue;
      for (const before of this.groups.slice(0, index).reverse()) {
        state.detachGroup(before.iommuGroup!);
      }
      return errno;
    }
    return Errno.OK;
  }
}

/** An argument that is a number, as the kernel's `unsigned long`; a pointer is none it knows. */
function numberOf(argument: IoctlArgument): number {
  return typeof argument === "number" ? argument : Number.MAX_SAFE_INTEGER;
}
