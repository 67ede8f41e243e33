/**
 * The back end "vfio-iommu-type1" of containers: what SET_IOMMU makes of types 1 and 3.
 *
 * Source: drivers/vfio/vfio_iommu_type1.c: vfio_iommu_type1_open, vfio_iommu_type1_ioctl,
 * vfio_iommu_type1_register_device, vfio_iommu_type1_release.
 */
import { Errno } from "../../errno.ts";
import type { IommuGroup } from "../../iommu/group.ts";
import type { BackendState, ContainerBackend } from "../backend.ts";
import type { VfioDevice } from "../device-file.ts";
import type { IoctlArgument, IoctlResult, VfioTask } from "../file.ts";
import type { GroupType } from "../group.ts";
import { VfioExtension } from "../requests.ts";
import { attachGroup } from "./attach.ts";
import { detachGroup, removeAllMappings } from "./detach.ts";
import { registerDevice, unregisterDevice } from "./external-pins.ts";
import { checkExtension } from "./info.ts";
import { type1Ioctl } from "./ioctl.ts";
import { type FaultingService, Type1, type Type1Options } from "./type1.ts";

/** What all containers of a system have in common. */
export interface Type1BackendOptions extends Omit<Type1Options, "isV2" | "faulting"> {
  /** Makes what serves I/O page faults of a container, in a kernel that has that. */
  readonly createFaulting?: () => FaultingService;
}

/** struct vfio_iommu. */
const STATE_BYTES = 256;

const NO_BYTES = new Uint8Array(0);

/** The back end. */
export class Type1Backend implements ContainerBackend {
  readonly name = "vfio-iommu-type1";
  readonly isNoIommu = false;
  readonly #options: Type1BackendOptions;

  constructor(options: Type1BackendOptions = {}) {
    this.#options = options;
  }

  checkExtension(extension: number): number {
    return checkExtension(null, extension, this.#options.hasMmioDontPin);
  }

  open(type: number): BackendState | number {
    if (type !== VfioExtension.TYPE1 && type !== VfioExtension.TYPE1_V2) return Errno.EINVAL;
    const { createFaulting, ...options } = this.#options;
    if (options.allow?.(STATE_BYTES) === false) return Errno.ENOMEM;
    const isV2 = type === VfioExtension.TYPE1_V2;
    const faulting = createFaulting === undefined ? {} : { faulting: createFaulting() };
    return new Type1State(new Type1({ ...options, ...faulting, isV2 }));
  }
}

/** Type1 behind one container. */
class Type1State implements BackendState {
  readonly type1: Type1;

  constructor(type1: Type1) {
    this.type1 = type1;
  }

  checkExtension(extension: number): number {
    return checkExtension(this.type1, extension);
  }

  ioctl(task: VfioTask, request: number, argument: IoctlArgument): IoctlResult {
    // A number where a pointer belongs leads to nothing that can be read.
    const bytes = typeof argument === "number" ? NO_BYTES : argument;
    const caller = { process: task.process, user: task.userMemory };
    return { ...type1Ioctl(this.type1, caller, request, bytes), value: 0 };
  }

  attachGroup(group: IommuGroup, type: GroupType): number {
    return attachGroup(this.type1, group, type === "emulated");
  }

  detachGroup(group: IommuGroup): void {
    detachGroup(this.type1, group);
  }

  registerDevice({ pinning }: VfioDevice): void {
    if (pinning !== undefined) registerDevice(this.type1, pinning);
  }

  unregisterDevice({ pinning }: VfioDevice): void {
    if (pinning !== undefined) unregisterDevice(this.type1, pinning);
  }

  release(): void {
    removeAllMappings(this.type1);
  }
}
