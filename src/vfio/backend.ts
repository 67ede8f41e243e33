/**
 * What a container asks of its back end: the code that maps memory for the groups it holds.
 *
 * Source: drivers/vfio/vfio.h, struct vfio_iommu_driver_ops.
 */
import type { IommuGroup } from "../iommu/group.ts";
import type { VfioDevice } from "./device-file.ts";
import type { IoctlArgument, IoctlResult, VfioTask } from "./file.ts";
import type { GroupType } from "./group.ts";
import type { Type1 } from "./type1/type1.ts";

/** A back end that a system has. */
export interface ContainerBackend {
  readonly name: string;
  /** Whether it is the one for groups that no IOMMU protects. */
  readonly isNoIommu: boolean;
  /** CHECK_EXTENSION of a container that has no back end yet: above 0 when it has the extension. */
  checkExtension(extension: number): number;
  /** @returns what is to hold a container's mappings, or an errno */
  open(type: number, task: VfioTask): BackendState | number;
}

/** What a back end keeps for one container. */
export interface BackendState {
  /** The state that type1 keeps, for typed calls; null of another back end. */
  readonly type1: Type1 | null;
  checkExtension(extension: number): number;
  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult;
  /** @returns an errno; then nothing has changed */
  attachGroup(group: IommuGroup, type: GroupType): number;
  detachGroup(group: IommuGroup): void;
  registerDevice(device: VfioDevice): void;
  unregisterDevice(device: VfioDevice): void;
  /** The container has no group any more. */
  release(): void;
}
